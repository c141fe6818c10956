"""Kernels on Spark's workers: what comes back, and what is added up before it does."""

from __future__ import annotations

import gc

import polars as pl
from pyspark.sql import SparkSession

from pipelines.spark import buckets

SCHEMA = pl.Schema({"cell": pl.String(), "n": pl.Int64(), "total": pl.Float64()})
AMOUNTS = (0.1, 1e16, 3.0, -1e16, 0.7, 1.0)  # any other order of addition gives another sum


def test_sums_do_not_depend_on_which_bucket_comes_first(spark: SparkSession) -> None:
    def kernel(bucket: int) -> pl.DataFrame:
        cells = ["a", None] if bucket % 2 else ["a"]  # null is a key like any other
        return pl.DataFrame([(cell, 1, AMOUNTS[bucket]) for cell in cells], SCHEMA, orient="row")

    def run(order: list[int]) -> list[tuple[object, ...]]:
        found = buckets.map_buckets(spark, order, kernel, SCHEMA, sum_by=["cell"])
        return found.sort("cell", nulls_last=True).rows()

    first = run([0, 1, 2, 3, 4, 5])
    assert [row[:2] for row in first] == [("a", 6), (None, 3)]
    assert run([5, 3, 1, 4, 2, 0]) == first
    assert buckets.map_buckets(spark, [0, 2], kernel, SCHEMA).height == 2


def test_what_modules_brought_is_not_searched_for_garbage_after_each_task(spark: SparkSession) -> None:
    schema = pl.Schema({"searched": pl.Int64(), "spared": pl.Int64()})

    def kernel(bucket: int) -> pl.DataFrame:
        return pl.DataFrame([(len(gc.get_objects()), gc.get_freeze_count())], schema, orient="row")

    for searched, spared in buckets.map_buckets(spark, range(4), kernel, schema).iter_rows():
        assert searched < spared
