"""Bucketed kernels: Spark schedules, a Polars function does the work of one bucket, only a small report comes back.

A *report* is a long table (bucket, ds, scenario_id, counter, value, example). A kernel that writes a file reports it
with the counter ``file`` (value = rows, example = path); everything else is a count for the checks. The driver sees
days x scenarios x counters, never a row per advertiser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import polars as pl
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from pipelines.spark.code import shipped
from pipelines.warehouse.files import DataFile, read_files

REPORT = pl.Schema(
    {
        "bucket": pl.Int32(),
        "ds": pl.Date(),
        "scenario_id": pl.String(),
        "counter": pl.String(),
        "value": pl.Float64(),
        "example": pl.String(),
    }
)
_SPARK_TYPES = {pl.Int32: "int", pl.Int64: "bigint", pl.Date: "date", pl.String: "string", pl.Float64: "double"}
FILE = "file"


def map_buckets(
    spark: SparkSession,
    buckets: Sequence[int],
    kernel: Callable[[int], pl.DataFrame],
    schema: pl.Schema = REPORT,
    sum_by: Sequence[str] = (),
) -> pl.DataFrame:
    """Run ``kernel(bucket)`` for every bucket on Spark's workers and gather their small results, of ``schema``; with
    ``sum_by``, all other columns added up within those keys, by the workers.

    A task runs many buckets, one after the other: 64 tasks of one bucket cost seven times as much as 8 of eight.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for index in batch.column("id").to_pylist():
                yield from _to_batches(kernel(buckets[index]), schema)

    count = tasks(spark, len(buckets))
    placed = spark.range(0, len(buckets), 1, count)
    if not sum_by:
        return _gather(placed, run, schema)

    def add_up(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        arrived = [pl.from_arrow(batch) for batch in batches]
        if arrived:
            rows = pl.concat([part for part in arrived if isinstance(part, pl.DataFrame)])
            # A fixed order of addition: floating-point sums must not depend on which task ends first.
            added = rows.sort(rows.columns).group_by(sum_by, maintain_order=True).sum()
            yield from _to_batches(added, schema)

    return _gather(placed.mapInArrow(shipped(spark, run), _columns(schema)).repartition(count, *sum_by), add_up, schema)


def map_frame(frame: DataFrame, buckets: int, kernel: Callable[[int, pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
    """Shuffle a Spark frame once by its ``bucket``, run ``kernel(bucket, rows)`` on each and gather the reports.

    A task holds all its rows at once, so each bucket has a task of its own: that costs 0.03 s each, and [dataset]
    buckets bounds the memory.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        arrived = [pl.from_arrow(batch) for batch in batches]
        if arrived:
            rows = pl.concat([part for part in arrived if isinstance(part, pl.DataFrame)])
            for (bucket,), part in rows.group_by("bucket"):
                yield from _to_batches(kernel(bucket, part), REPORT)

    placed = frame.repartitionById(buckets, F.coalesce("bucket", F.lit(0)))
    return _gather(placed, run, REPORT)


def frame_of(spark: SparkSession, files: Sequence[DataFile], schema: pa.Schema) -> DataFrame:
    """The rows of data files of one table as a Spark frame; workers read them as every other reader does."""

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for index in batch.column("id").to_pylist():
                yield from read_files([files[index]], schema).to_arrow().cast(schema).to_batches()

    placed = spark.range(0, len(files), 1, tasks(spark, len(files)))
    return placed.mapInArrow(shipped(spark, read), from_arrow_schema(schema))


def file_row(file: DataFile) -> pl.DataFrame:
    """The report of one written file."""
    return pl.DataFrame([(file.bucket, file.ds, None, FILE, float(file.rows), file.path)], schema=REPORT, orient="row")


def prefixed(prefix: str, report: pl.DataFrame) -> pl.DataFrame:
    """The report of a kernel's second table, to travel with that of its first."""
    return report.with_columns(pl.concat_str(pl.lit(prefix), "counter").alias("counter"))


def split(report: pl.DataFrame, prefix: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The report of the first table, and that of the prefixed one."""
    second = pl.col("counter").str.starts_with(prefix)
    return report.filter(~second), report.filter(second).with_columns(pl.col("counter").str.strip_prefix(prefix))


def files_in(report: pl.DataFrame) -> list[DataFile]:
    """The files that a report names, in a fixed order."""
    rows = report.filter(counter=FILE).sort("ds", "bucket")
    return [
        DataFile(path, ds, bucket, int(count))
        for bucket, ds, count, path in rows.select("bucket", "ds", "value", "example").iter_rows()
    ]


def concat(reports: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Join reports; none gives an empty one."""
    return pl.concat([pl.DataFrame(schema=REPORT), *reports])


def tasks(spark: SparkSession, buckets: int) -> int:
    """How many tasks share the buckets: two a core, so that a slow one does not hold up the others."""
    return max(1, min(buckets, 2 * int(spark.sparkContext.defaultParallelism)))


def _to_batches(rows: pl.DataFrame, schema: pl.Schema) -> list[pa.RecordBatch]:
    table = rows.select(schema.names()).cast(schema).to_arrow()
    plain = [pa.field(f.name, pa.string() if pa.types.is_large_string(f.type) else f.type) for f in table.schema]
    return list(table.cast(pa.schema(plain)).to_batches())


def _gather(
    frame: DataFrame, run: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]], schema: pl.Schema
) -> pl.DataFrame:
    gathered = pl.from_arrow(frame.mapInArrow(shipped(frame.sparkSession, run), _columns(schema)).toArrow())
    assert isinstance(gathered, pl.DataFrame)
    return gathered.cast(schema)


def _columns(schema: pl.Schema) -> str:
    return ", ".join(f"{name} {_SPARK_TYPES[type(kind)]}" for name, kind in schema.items())
