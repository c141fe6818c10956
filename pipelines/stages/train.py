"""The work of `train`: pipelines/train.py says what it reads and writes, and when it fails."""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow.entities import Param, RunTag
from mlflow.exceptions import MlflowException
from pyspark.sql import SparkSession

from m2m_model.data.features import Inputs, fit_inputs
from m2m_model.data.panel import Panel
from m2m_model.training.calendar import train_end, validation_cutoffs
from m2m_model.training.progress import TrainResult
from pipelines.cli import Run
from pipelines.events import EVENTS
from pipelines.life import plots
from pipelines.life.registry import ModelVersion, Registry
from pipelines.locks import locked
from pipelines.spark.code import runs_here
from pipelines.spark.ranks import Trained, refuse_missing_gpus, run_on_ranks, wait_for_ranks
from pipelines.spark.session import master_of, spark_session
from pipelines.spark.shards import CHECKPOINTS, EARLY, LATE, MODEL, SHARDS, shards_in, train_on_shards, write_shards
from pipelines.warehouse.claims import claimed
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.pins import Reads
from pipelines.warehouse.sequences import TABLE, SequenceFiles, held_out_cutoffs, open_sequences
from pipelines.warehouse.store import Folder


def train(
    run: Run, spark: SparkSession, warehouse: Warehouse, from_scratch: bool = False, snapshot_id: int | None = None
) -> ModelVersion:
    """Train, log and register; returns the new version. ``snapshot_id``: on the sequences as that snapshot has them."""
    config, ds = run.config, run.ds
    reads = Reads(run.stage, warehouse)
    sequences = open_sequences(config, reads, ds, snapshot_id)
    folder = warehouse.scratch / "training" / f"{ds}-{config.training_hash}-{sequences.snapshot_id}"
    Registry(config).experiment_id()  # a training whose model nobody would keep does not begin
    busy = f"train {ds}: another training of these sequences is running in {folder.uri}"
    owner = f"{run.run_id} on {socket.gethostname()}"
    with locked(config.home / "locks" / f"{folder.name}.lock", busy) if folder.local else claimed(folder, owner, busy):
        version = _train(run, spark, reads, sequences, folder, from_scratch)
        folder.remove()  # what is left behind is a run to resume
    return version


def _train(
    run: Run, spark: SparkSession, reads: Reads, sequences: SequenceFiles, folder: Folder, from_scratch: bool
) -> ModelVersion:
    config = run.config
    wait_for_ranks(spark, config.distributor, run.say)  # before anything is made for them
    held_out_from = held_out_cutoffs(config, run.ds)[-1]
    most = config.training.validation_cutoffs
    last_label = train_end(sequences.first, held_out_from, config.dataset.horizons, most)
    if from_scratch:
        for part in folder.folders():  # and not the claim that we hold it by
            part.remove()
    resume = bool((folder / CHECKPOINTS).names())
    run.say(
        f"{sequences.series:,} series; labels to {last_label}, validation to {held_out_from}, held out after it"
        + ("; going on from a checkpoint" if resume else "")
    )
    started = time.monotonic()
    shards = folder / SHARDS
    inputs = fit_inputs(write_shards(spark, sequences, shards, last_label), config.model.bins)
    late = fit_rivals(run, folder, inputs, sequences.first, held_out_from) if config.training.boosted else None
    arguments = {
        "inputs": inputs,
        "model_config": config.model,
        "train_config": config.training,
        "held_out_from": held_out_from,
        "folder": folder,
    }
    registry = Registry(config)
    with _logged(run, reads, sequences, registry) as log:
        trained = run_on_ranks(spark, config.distributor, train_on_shards, arguments, resume, run.say, log.of_epoch)
        result: TrainResult = trained.result
        with (
            TemporaryDirectory(prefix="m2m-") as own,
            (folder / MODEL).at_hand() as model,
            late.at_hand() if late else nullcontext() as rivals,
        ):
            version = _log(run, registry, log, trained, model, Path(own), rivals)
    EVENTS.registered(version.version)
    run.say(
        f"version {version.version} of {registry.name} in {time.monotonic() - started:.0f} s: "
        f"{result.windows:,} windows, {result.rows_per_second:,.0f} rows/s, best epoch {result.best_epoch}"
    )
    return version


def fit_rivals(run: Run, folder: Folder, inputs: Inputs, first_day: date, held_out_from: date) -> Folder:
    """Fit the rivals here, where all shards are at hand, for the ranks to judge; returns where the late ones are."""
    from m2m_model.rivals import artifact

    training = run.config.training
    run.say("fitting LightGBM, which serves where validation says so")
    cutoffs = validation_cutoffs(first_day, held_out_from, inputs.spec.horizons_days, training.validation_cutoffs)
    with (folder / SHARDS).at_hand() as place:
        rivals = artifact.fit_rivals([Panel.open(shard) for shard in shards_in(place)], inputs, cutoffs, held_out_from)
    for found, part in ((rivals.early, EARLY), (rivals.late, LATE)):
        (folder / part).remove()
        with (folder / part).filling() as place:
            artifact.save_rivals(found, place)
    return folder / LATE


@dataclass
class Log:
    """The MLflow run of a training, open while it trains."""

    registry: Registry
    run_id: str
    epochs: set[int] = field(default_factory=set)  # whose figures it has

    def of_epoch(self, told: Mapping[str, Any]) -> None:
        """An epoch's figures as the rank tells them; what MLflow does not take now is there at the end."""
        if told["epoch"] in self.epochs:
            return
        metrics: dict[tuple[str, ...], float] = {
            ("train_loss",): told["train_loss"],
            ("validation_loss",): told["validation_loss"],
            ("validation_nmae",): told["nmae"],
        }
        metrics |= {("validation_nmae", cell["scenario_id"], cell["task"]): cell["nmae"] for cell in told["cells"]}
        with suppress(MlflowException):
            self.registry.log_metrics(self.run_id, metrics, told["epoch"], _now_ms())
            self.epochs.add(told["epoch"])


def _now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


@contextmanager
def _logged(run: Run, reads: Reads, sequences: SequenceFiles, registry: Registry) -> Iterator[Log]:
    """An MLflow run that says from its start what it trains on, and with which settings."""
    config = run.config
    params: dict[str, Any] = {"as_of": run.ds, "series": sequences.series}
    for part in (config.dataset, config.model, config.training, config.distributor, config.history, config.backtest):
        params |= {f"{type(part).__name__}.{key}": value for key, value in dataclasses.asdict(part).items()}
    tags = {f"m2m.{key}": value for key, value in run.lineage(**reads.recorded).items()}
    with registry.new_run(f"train {run.ds}", params, {**tags, "m2m.ds": str(run.ds)}) as run_id:
        registry.log_dataset(run_id, TABLE, run.ds, sequences.snapshot_id, sequences.series)
        registry.client.log_artifact(run_id, str(config.path), "config")
        yield Log(registry, run_id)


def _log(
    run: Run, registry: Registry, log: Log, trained: Trained, model: Path, own: Path, rivals: Path | None
) -> ModelVersion:
    """What the training found to MLflow; ``own`` is a folder for what is drawn."""
    result: TrainResult = trained.result
    for epoch in result.epochs:  # those before a resume were told to another run
        log.of_epoch(dataclasses.asdict(epoch))
    found = [Param("best_epoch", str(result.best_epoch)), Param("steps", str(result.steps))]
    tag = RunTag("m2m.validation-cutoffs", ", ".join(map(str, result.validation_cutoffs)))
    registry.client.log_batch(log.run_id, params=found, tags=[tag])
    speed: dict[tuple[str, ...], float] = {("rows_per_second",): result.rows_per_second}
    speed |= {("idle_share", f"rank {rank}"): share for rank, share in trained.idle.items()}
    speed |= {("rows_per_second", f"rank {rank}"): rows for rank, rows in trained.rows_per_second.items()}
    if result.refit_nmae:
        speed |= dict(zip([("refit_nmae",), ("refit_nmae_as_measured",)], result.refit_nmae, strict=True))
    registry.log_metrics(log.run_id, speed, timestamp_ms=_now_ms())
    for figure in plots.training_plots(result.epochs, own / "plots"):
        registry.client.log_artifact(log.run_id, str(figure), "plots")
    if rivals:
        registry.log_rivals(log.run_id, rivals)
    return registry.register(log.run_id, model)


def work(run: Run, from_scratch: bool, snapshot: str | None) -> None:
    refuse_missing_gpus(run.config.distributor, runs_here(master_of(run.config)))
    warehouse = Warehouse.existing(run.config, run.ds)
    snapshot_id = warehouse.snapshot_named(TABLE, snapshot) if snapshot else None
    with spark_session(run.config, run.run_id, run.stage) as spark:
        train(run, spark, warehouse, from_scratch, snapshot_id)
