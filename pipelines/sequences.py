"""Readers of features.advertiser_sequence: bucket files to panels, and to shards that training maps into memory."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date, timedelta
from functools import reduce
from operator import add
from pathlib import Path

import pyarrow as pa
from pyspark.sql import SparkSession

from m2m_model.inputs import Panel, PanelStatistics, SequenceSpec
from pipelines.config import Config
from pipelines.errors import DataError
from pipelines.warehouse import DataFile, Warehouse, read_files

TABLE = "features.advertiser_sequence"


@dataclass(frozen=True)
class SequenceFiles:
    """The sequences as of one day: their files by bucket, and what is needed to read them on a worker."""

    as_of: date
    snapshot_id: int
    files: dict[int, list[DataFile]]
    schema: pa.Schema
    spec: SequenceSpec

    @property
    def buckets(self) -> list[int]:
        return sorted(self.files)

    @property
    def series(self) -> int:
        return sum(file.rows for files in self.files.values() for file in files)

    def panel(self, bucket: int, days: int) -> Panel:
        """The bucket's series over the last ``days`` days, in key order."""
        rows = read_files(self.files[bucket], self.schema).to_arrow()
        return Panel.from_sequences(rows, self.spec, self.as_of, days)


def open_sequences(config: Config, warehouse: Warehouse, as_of: date) -> SequenceFiles:
    """Plan the sequences as of a day.

    Raises:
        DataError: they were never built.
    """
    by_bucket: dict[int, list[DataFile]] = defaultdict(list)
    for file in warehouse.files(TABLE, as_of, as_of):
        by_bucket[file.bucket].append(file)
    snapshot_id = warehouse.snapshot_id(TABLE)
    if not by_bucket or snapshot_id is None:
        raise DataError(
            f"{TABLE} ds={as_of}: no sequences; expected at least one series. Build them with: "
            f"python -m pipelines.build_sequences --config {config.path} --date {as_of}"
        )
    return SequenceFiles(as_of, snapshot_id, dict(by_bucket), warehouse.arrow_schema(TABLE), config.sequence_spec)


def kept_days(config: Config, as_of: date) -> int:
    """Days of history that the sequences as of a day can hold."""
    return min(config.history.keep_days, (as_of - config.dataset.first_day).days + 1)


def held_out_cutoffs(config: Config, as_of: date) -> list[date]:
    """Held-out cutoffs, latest first: as-of minus the horizon, then every ``every_days`` back.

    Raises:
        DataError: the data starts too late for the earliest of them.
    """
    horizon, backtest = config.dataset.horizon_days, config.backtest
    latest = as_of - timedelta(days=horizon)
    cutoffs = [latest - timedelta(days=backtest.every_days * i) for i in range(backtest.cutoffs)]
    if cutoffs[-1] <= config.dataset.first_day:
        raise DataError(
            f"{TABLE} ds={as_of}: the data starts on {config.dataset.first_day}, too late for {backtest.cutoffs} "
            f"held-out cutoffs: the earliest would be {cutoffs[-1]}. Lower [backtest] cutoffs, or wait for more days."
        )
    return cutoffs


def write_shards(
    spark: SparkSession, sequences: SequenceFiles, folder: Path, days: int, train_end: date
) -> tuple[list[Path], PanelStatistics]:
    """Write one memory-mapped panel a bucket, on Spark's workers, to a folder that every rank can read.

    Returns:
        The shards, and the statistics of their rows up to ``train_end`` (bounded, added up by Spark).
    """

    def write(bucket: int) -> PanelStatistics:
        panel = sequences.panel(bucket, days)
        panel.save(folder / f"bucket={bucket:05d}")
        return PanelStatistics.of(panel, train_end)

    folder.mkdir(parents=True, exist_ok=True)
    tasks = min(len(sequences.buckets), 2 * spark.sparkContext.defaultParallelism)
    partial = spark.sparkContext.parallelize(sequences.buckets, tasks).map(write)
    # A fixed order of addition: floating-point sums must not depend on which task ends first.
    statistics = reduce(add, partial.collect())
    return [folder / f"bucket={bucket:05d}" for bucket in sequences.buckets], statistics
