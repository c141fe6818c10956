"""Panels of the sequences, for training: made on the workers, a bucket at a time, into a folder that all can reach."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from datetime import date
from fnmatch import fnmatch
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from m2m_model.data.statistics import PanelStatistics
from m2m_model.training.loop import train_rank
from m2m_model.training.pool import shares
from m2m_model.training.progress import EpochMetrics, TrainResult, unheard
from m2m_model.training.ranks import Ranks
from pipelines.errors import ConfigError
from pipelines.spark.buckets import tasks
from pipelines.spark.code import shipped
from pipelines.warehouse.sequences import SequenceFiles
from pipelines.warehouse.store import Folder

# Folders of a training run; the rivals that learned from early labels, and those that learned from all.
SHARDS, CHECKPOINTS, MODEL, EARLY, LATE = "shards", "checkpoints", "model", "rivals-early", "rivals-late"
_NAMED = "bucket=*[0-9]"


def write_shards(spark: SparkSession, sequences: SequenceFiles, folder: Folder, train_end: date) -> PanelStatistics:
    """Write one panel a bucket, on Spark's workers; each rank that trains maps its own into memory.

    Returns:
        The statistics of their rows up to ``train_end`` (bounded, added up by Spark).

    Raises:
        ConfigError: ``folder`` is on local disk, and the workers are elsewhere.
    """

    def write(buckets: Iterable[int]) -> Iterator[PanelStatistics]:
        for bucket in buckets:
            panel = sequences.panel(bucket)
            with folder.filling() as place:
                panel.save(place / f"bucket={bucket:05d}")
            yield PanelStatistics.of(panel, train_end)

    placed = spark.sparkContext.parallelize(sequences.buckets, tasks(spark, len(sequences.buckets)))
    partial = placed.mapPartitions(shipped(spark, write))
    # A fixed order of addition: floating-point sums must not depend on which task ends first.
    statistics: PanelStatistics = reduce(add, partial.collect())
    if folder.local and len(shards_in(folder.local)) < len(sequences.buckets):
        raise ConfigError(
            f"{folder.uri}: workers wrote shards there, and on this machine they are not: where workers are on other "
            'machines, the scratch must be in a store that all reach: [storage] scratch = "s3://..."'
        )
    return statistics


def shards_in(folder: Path) -> list[Path]:
    """The panels of a folder that is at hand, in the order of their buckets."""
    return sorted(folder.glob(_NAMED))


def train_on_shards(
    folder: Folder, tell: Callable[[dict[str, Any]], object] = unheard, **arguments: Any
) -> TrainResult:
    """One rank of the run that ``folder`` is of: it has its own shards at hand, and the rivals if there are some, and
    rank 0 leaves checkpoints and the model there, and tells of every epoch; ``arguments`` are the others of
    ``train_rank``."""
    checkpoints = None if folder.local else folder / CHECKPOINTS
    with ExitStack() as held, folder.filling() as run_dir:
        with (ranks := Ranks()).patiently():
            shards = [held.enter_context(shard.at_hand()) for shard in own_shards(folder / SHARDS, ranks)]
        rivals = None
        if (folder / EARLY).names():
            from m2m_model.rivals.artifact import Rivals, load_rivals

            early, late = (load_rivals(held.enter_context((folder / part).at_hand())) for part in (EARLY, LATE))
            rivals = Rivals(early, late)

        def ended(metrics: EpochMetrics) -> None:
            tell(asdict(metrics))

        return train_rank(shards, run_dir, checkpoints=checkpoints, rivals=rivals, epoch_ended=ended, **arguments)


def own_shards(folder: Folder, ranks: Ranks) -> list[Folder]:
    """Those that this rank holds; rank 0 looks what there is, so that all divide the same."""
    size_of = ranks.share(folder.sizes() if ranks.rank == 0 else None)
    names = [name for name in size_of if fnmatch(name, _NAMED)]
    return [folder / names[shard] for shard in shares([size_of[name] for name in names], ranks.world)[ranks.rank]]
