"""Panels of the sequences on disk, for training: made on the workers, a bucket at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from functools import reduce
from operator import add
from pathlib import Path

from pyspark.sql import SparkSession

from m2m_model.data.statistics import PanelStatistics
from pipelines.spark.buckets import tasks
from pipelines.spark.code import shipped
from pipelines.warehouse.sequences import SequenceFiles


def write_shards(
    spark: SparkSession, sequences: SequenceFiles, folder: Path, train_end: date
) -> tuple[list[Path], PanelStatistics]:
    """Write one memory-mapped panel a bucket, on Spark's workers, to a folder that every rank can read.

    Returns:
        The shards, and the statistics of their rows up to ``train_end`` (bounded, added up by Spark).
    """

    def write(buckets: Iterable[int]) -> Iterator[PanelStatistics]:
        for bucket in buckets:
            panel = sequences.panel(bucket)
            panel.save(folder / f"bucket={bucket:05d}")
            yield PanelStatistics.of(panel, train_end)

    folder.mkdir(parents=True, exist_ok=True)
    placed = spark.sparkContext.parallelize(sequences.buckets, tasks(spark, len(sequences.buckets)))
    partial = placed.mapPartitions(shipped(spark, write))
    # A fixed order of addition: floating-point sums must not depend on which task ends first.
    statistics = reduce(add, partial.collect())
    return [folder / f"bucket={bucket:05d}" for bucket in sequences.buckets], statistics
