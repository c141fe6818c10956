"""The training loop: every rank calls ``train_rank``; rank 0 writes.

Validation cutoffs are held_out_from - h and every 7 days before it; no training label ends after the earliest of them,
and nothing after ``held_out_from`` is read. What a step does follows from (seed, step, rank) alone, so a run that
resumes needs no sampler state. V validation windows, X any windows; other shapes as in inputs.py.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from m2m_model import baselines, checkpoint
from m2m_model.blend import Blend
from m2m_model.boosted import fit_boosted, training_cutoffs
from m2m_model.calibration import LevelCalibration, ResidualQuantiles
from m2m_model.config import ModelConfig, TrainConfig, to_dict
from m2m_model.distribution import LEVELS, MEDIAN, Distribution
from m2m_model.inputs import (
    COLD_START_DAYS,
    Inputs,
    Panel,
    Windows,
    daily_totals,
    eligible,
    history_days,
    silent,
    trainable_NT,
)
from m2m_model.likelihoods import to_distribution
from m2m_model.model import M2M, Batch, Learned
from m2m_model.predict import COLD_START_METHOD, M2M_METHOD, SILENT_METHOD, Forecaster, choose_device

Floats = NDArray[Any]
Ints = NDArray[Any]

PROGRESS_EVERY_S = 5.0
LEARNED_FROM = 50_000  # training windows that edges and feature scales are taken from
WARM_UP = 0.05  # share of the steps


@dataclass(frozen=True)
class CellMetric:
    """Validation error of one scenario x task."""

    scenario_id: str
    task: str
    n: int
    nmae: float


@dataclass(frozen=True)
class EpochMetrics:
    """``nmae`` is of the network's own median, the mean over tasks."""

    epoch: int
    train_loss: float
    validation_loss: float
    nmae: float
    cells: tuple[CellMetric, ...] = ()


@dataclass(frozen=True)
class TrainResult:
    """What a run did. ``model_folder`` is what ``Forecaster.load`` opens (written by rank 0)."""

    model_folder: Path
    epochs: tuple[EpochMetrics, ...]
    best_epoch: int
    steps: int
    windows: int
    rows_per_second: float
    resumed_from_step: int = 0
    validation_cutoffs: tuple[date, ...] = field(default_factory=tuple)


def fit_serving(
    data: Shards, validation: WindowIndex, raw: Distribution, actual_VM: Floats, blended: bool
) -> tuple[LevelCalibration, Blend | None]:
    """Calibration of the network's levels, and its blend with the simple forecasts, from the validation cutoffs.

    The blend judges the network at each cutoff with levels that were calibrated on the others.
    """
    scenario_V, cutoff_V = data.scenario_of(validation), validation.cutoff_X
    levels = LevelCalibration.fit(raw, actual_VM, scenario_V, cutoff_V)
    if not blended:
        return levels, None
    point_VM = np.empty_like(actual_VM)
    for cutoff in np.unique(cutoff_V):
        rows = cutoff_V == cutoff
        others = LevelCalibration.fit(raw[~rows], actual_VM[~rows], scenario_V[~rows], cutoff_V[~rows])
        point_VM[rows] = others.apply(raw[rows], scenario_V[rows]).point_NM
    simple = {name: data.baseline(forecast, validation) for name, forecast in baselines.BASELINES.items()}
    return levels, Blend.fit(point_VM, simple, actual_VM, scenario_V, cutoff_V)


def validation_count(first_day: date, held_out_from: date, most: int) -> int:
    """How many validation cutoffs the history affords: a third of its weeks, at least one."""
    return max(1, min(most, (held_out_from - first_day).days // 21))


def validation_cutoffs(held_out_from: date, horizon_days: int, count: int) -> tuple[date, ...]:
    """The cutoffs that stop training and calibrate, latest first."""
    return tuple(held_out_from - timedelta(days=horizon_days + 7 * k) for k in range(count))


def train_end(first_day: date, held_out_from: date, horizon_days: int, most: int) -> date:
    """The last day that training labels, bin edges and scales may use: the earliest validation cutoff."""
    count = validation_count(first_day, held_out_from, most)
    return validation_cutoffs(held_out_from, horizon_days, count)[-1]


def train_rank(
    shards: list[Path],
    run_dir: Path,
    inputs: Inputs,
    model_config: ModelConfig,
    train_config: TrainConfig,
    held_out_from: date,
    resume: bool = False,
) -> TrainResult:
    """Train on the panels in ``shards`` (all of them, on every rank) and write ``run_dir``/model.

    Works alone or inside an initialised torch.distributed process group. With ``resume`` it goes on from the newest
    checkpoint in ``run_dir`` and ends at the same weights as a run that was never stopped.

    Raises:
        ValueError: there is no window to train on, or none to validate on (the message says which dates were looked
            at); or ``resume`` finds the checkpoint of a run with other settings.
    """
    ranks, device = Ranks(), choose_device()
    horizon, data = inputs.spec.horizon_days, Shards(shards, inputs)
    count = validation_count(data.first_day, held_out_from, train_config.validation_cutoffs)
    cutoffs = validation_cutoffs(held_out_from, horizon, count)
    last_cutoff = cutoffs[-1] - timedelta(days=horizon)
    pool = data.training_windows(last_cutoff, train_config.min_history_days, train_config.max_windows)
    validation = data.validation_windows(cutoffs, train_config.validation_windows)
    if not len(pool):
        raise ValueError(
            f"nothing to train on: no series with {train_config.min_history_days} registered days and a row in "
            f"{inputs.spec.eligible_days} days at a cutoff up to {last_cutoff} in {data.extent}"
        )
    if not len(validation):
        raise ValueError(
            f"nothing to validate on: no eligible series at {', '.join(map(str, cutoffs))} in {data.extent}"
        )
    actual_VM = data.targets(validation)

    sample = pool[_evenly(len(pool), LEARNED_FROM)]
    learned = Learned.of(
        data.windows(sample), data.targets(sample) / np.asarray(inputs.task_scales), model_config.ratio_bins
    )
    torch.manual_seed(train_config.seed)
    model = M2M(model_config, inputs, learned).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), train_config.learning_rate, weight_decay=train_config.weight_decay, fused=True
    )
    plan = Plan.of(len(pool), train_config)
    settings = {"model": to_dict(model_config), "train": to_dict(train_config), "held_out_from": str(held_out_from)}
    fingerprint = json.dumps(settings | {"windows": len(pool), "scales": inputs.task_scales}, sort_keys=True)
    progress = Progress(ranks.rank == 0)
    state = RunState(best_weights=_copy(model))
    if resume and (stored := ranks.share(checkpoint.newest(run_dir / "checkpoints") if ranks.rank == 0 else None)):
        if stored["fingerprint"] != fingerprint:
            raise ValueError(f"{run_dir}: the checkpoint is of a run with other settings or data; train without resume")
        model.load_state_dict(stored["model"])
        optimizer.load_state_dict(stored["optimizer"])
        state = RunState.from_dict(stored["state"])
        progress.say(f"resuming at step {state.step}/{plan.steps}")
    elif ranks.rank == 0:
        checkpoint.clear(run_dir / "checkpoints")
    resumed_from, started = state.step, time.monotonic()

    def save() -> None:
        if ranks.rank == 0:
            stored = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "fingerprint": fingerprint}
            checkpoint.write(run_dir / "checkpoints", state.step, stored | {"state": asdict(state)})

    while state.step < plan.steps and not state.stopped:
        _seed(train_config.seed, state.step, ranks.rank)
        model.train()
        _set_learning_rate(optimizer, train_config.learning_rate, state.step / plan.steps)
        mine = plan.batch(state.step, train_config.seed)[ranks.rank :: ranks.world]
        state.loss_sum += _train_step(model, optimizer, data, pool[mine], plan.batch_size, train_config, ranks, device)
        state.step += 1
        progress.step(state, plan, resumed_from)
        if state.step % plan.steps_per_epoch == 0 or state.step == plan.steps:
            metrics = _validate(model, data, validation, actual_VM, state, plan, ranks, device)
            state.end_epoch(metrics, model, train_config.patience)
            best = "  best so far" if state.best_epoch == metrics.epoch else ""
            progress.say(
                f"epoch {metrics.epoch}/{plan.epochs} loss {metrics.train_loss:.3f} validation loss "
                f"{metrics.validation_loss:.3f} NMAE {metrics.nmae:.4f}{best}"
            )
            save()
        elif state.step % train_config.checkpoint_every_steps == 0:
            save()

    seconds = time.monotonic() - started
    model.load_state_dict(state.best_weights)
    raw, _ = data.forecast(model, validation, ranks, device)
    if ranks.rank == 0:
        levels, blend = fit_serving(data, validation, raw, actual_VM, train_config.blend)
        calibrations = data.calibrate_baselines(cutoffs, train_config.validation_windows)
        boosted = {}
        if train_config.boosted:
            progress.say("fitting LightGBM, the baseline to beat")
            panels = data.panels
            last_labels = [(held_out_from - panel.first_day).days for panel in panels]
            at = {k: training_cutoffs(panels[k], last_label) for k, last_label in enumerate(last_labels)}
            boosted = fit_boosted(panels, inputs.scenarios, at)
        metadata = {
            "held_out_from": str(held_out_from),
            "validation_cutoffs": [str(cutoff) for cutoff in cutoffs],
            "train_config": to_dict(train_config),
            "best_epoch": state.best_epoch,
            "validation_nmae": state.best_nmae,
            "steps": state.step,
            "training_windows": len(pool),
        }
        forecaster = Forecaster(model, model_config, inputs, calibrations, levels, blend, boosted, metadata, device)
        forecaster.save(run_dir / "model")
    ranks.wait()
    rows = (state.step - resumed_from) * plan.batch_size
    return TrainResult(
        model_folder=run_dir / "model",
        epochs=tuple(state.metrics()),
        best_epoch=state.best_epoch,
        steps=state.step,
        windows=len(pool),
        rows_per_second=rows / max(seconds, 1e-9),
        resumed_from_step=resumed_from,
        validation_cutoffs=cutoffs,
    )


def calibrate_baselines(
    shards: list[Path], inputs: Inputs, held_out_from: date, most: int = 4, max_rows: int = 50_000
) -> dict[str, ResidualQuantiles]:
    """Residual quantiles of every baseline, cold_start and silent on the validation cutoffs, for want of a model.

    Keys: the names in BASELINES, "cold_start", "silent".
    """
    data = Shards(shards, inputs)
    count = validation_count(data.first_day, held_out_from, most)
    cutoffs = validation_cutoffs(held_out_from, inputs.spec.horizon_days, count)
    return data.calibrate_baselines(cutoffs, max_rows)


class Ranks:
    """This process among those that train together; alone when torch.distributed is not initialised."""

    def __init__(self) -> None:
        self.together = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if self.together else 0
        self.world = dist.get_world_size() if self.together else 1

    def add(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, in place."""
        if self.together:
            dist.all_reduce(tensor)
        return tensor

    def share(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if not self.together:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def wait(self) -> None:
        if self.together:
            dist.barrier()


@dataclass(frozen=True)
class WindowIndex:
    """Windows as (shard, series, cutoff) indices: what a pool of windows costs is 12 bytes each."""

    shard_X: Ints
    series_X: Ints
    cutoff_X: Ints

    def __len__(self) -> int:
        return len(self.shard_X)

    def __getitem__(self, rows: Any) -> WindowIndex:
        return WindowIndex(self.shard_X[rows], self.series_X[rows], self.cutoff_X[rows])

    @classmethod
    def concatenate(cls, parts: Sequence[WindowIndex]) -> WindowIndex:
        columns = ("shard_X", "series_X", "cutoff_X")
        empty = np.zeros(0, np.int32)
        return cls(*(np.concatenate([empty, *(getattr(part, name) for part in parts)]) for name in columns))

    @classmethod
    def of(cls, shard: int, series: Ints, cutoff: Ints) -> WindowIndex:
        return cls(np.full(len(series), shard, np.int32), series.astype(np.int32), cutoff.astype(np.int32))


class Shards:
    """The memory-mapped panels of a run, and the windows in them."""

    def __init__(self, folders: Sequence[Path], inputs: Inputs) -> None:
        self.inputs = inputs
        self.panels = [Panel.open(folder) for folder in folders]
        for folder, panel in zip(folders, self.panels, strict=True):
            if panel.spec != inputs.spec:
                raise ValueError(f"{folder}: made for other metrics, attributes, tasks or lengths than the inputs")
        self.profiles = [inputs.profile(panel) for panel in self.panels]
        self.scenarios = [panel.scenario_N for panel in self.panels]

    @property
    def first_day(self) -> date:
        return min((panel.first_day for panel in self.panels), default=date.max)

    @property
    def extent(self) -> str:
        """Series and days, for messages."""
        series = sum(map(len, self.panels))
        days = (
            f"{min(p.first_day for p in self.panels)} .. {max(p.last_day for p in self.panels)}" if self.panels else "-"
        )
        return f"{series} series over {days}"

    def training_windows(self, last_cutoff: date, min_history_days: int, limit: int) -> WindowIndex:
        """All windows that may train, or ``limit`` of them evenly spread over series and days."""

        def mask_NT(panel: Panel) -> NDArray[np.bool_]:
            return trainable_NT(panel, (last_cutoff - panel.first_day).days, min_history_days)

        counts = [int(mask_NT(panel).sum()) for panel in self.panels]
        wanted = _evenly(sum(counts), limit)
        parts, before = [], 0
        for shard, (panel, count) in enumerate(zip(self.panels, counts, strict=True)):
            mine = wanted[(wanted >= before) & (wanted < before + count)] - before
            flat = np.flatnonzero(mask_NT(panel))[mine] if len(mine) else mine
            parts.append(WindowIndex.of(shard, flat // max(panel.days, 1), flat % max(panel.days, 1)))
            before += count
        return WindowIndex.concatenate(parts)

    def validation_windows(self, cutoffs: Sequence[date], limit: int, method: str = M2M_METHOD) -> WindowIndex:
        """Windows at ``cutoffs`` of the series that ``method`` serves, at most ``limit``."""
        parts = []
        for shard, panel in enumerate(self.panels):
            for cutoff in cutoffs:
                if not panel.first_day <= cutoff <= panel.last_day - timedelta(days=self.inputs.spec.horizon_days):
                    continue
                day = panel.index_of(cutoff)
                young_N = history_days(panel, day) < COLD_START_DAYS
                served_N = silent(panel, day) if method == SILENT_METHOD else eligible(panel, day)
                if method != SILENT_METHOD:
                    served_N &= young_N if method == COLD_START_METHOD else ~young_N
                series = np.flatnonzero(served_N)
                parts.append(WindowIndex.of(shard, series, np.full(len(series), day)))
        found = WindowIndex.concatenate(parts)
        return found[_evenly(len(found), limit)]

    def windows(self, index: WindowIndex) -> Windows:
        """Cut the windows of an index that is in order of shards."""
        parts = [
            self.inputs.windows(self.panels[shard], self.profiles[shard], index.series_X[rows], index.cutoff_X[rows])
            for shard, rows in self._by_shard(index)
        ]
        if len(parts) == 1:
            return parts[0]
        return Windows(
            *(np.concatenate(arrays) for arrays in zip(*(vars(part).values() for part in parts), strict=True))
        )

    def targets(self, index: WindowIndex) -> Floats:
        """Task totals (X, M) of each window's horizon, in the index's order."""
        target_XM = np.zeros((len(index), len(self.inputs.spec.tasks)))
        for shard, rows in self._by_shard(index):
            target_XM[rows] = targets_at(self.panels[shard], index.series_X[rows], index.cutoff_X[rows])
        return target_XM

    def forecast(
        self, model: M2M, index: WindowIndex, ranks: Ranks, device: torch.device, actual_XM: Floats | None = None
    ) -> tuple[Distribution, float]:
        """The network's own distributions, on every rank; each computes its share. With actuals also the mean loss."""
        scale_M = np.asarray(self.inputs.task_scales)
        result = torch.zeros((2 + len(LEVELS), len(index), len(scale_M)), dtype=torch.float32)
        loss_sum = 0.0
        mine = np.arange(ranks.rank, len(index), ranks.world)
        model.eval()
        with torch.inference_mode():
            for shard, part in self._by_shard(index[mine]):
                for rows in np.array_split(mine[part], math.ceil(len(part) / 4096)):
                    windows = index[rows]
                    batch = Batch.of(
                        self.inputs.windows(
                            self.panels[shard], self.profiles[shard], windows.series_X, windows.cutoff_X
                        ),
                        device,
                    )
                    output_BMQ = model(batch)
                    law = to_distribution(
                        model.likelihood.distribution(output_BMQ, batch.level_BM), self.inputs.task_scales
                    )
                    stacked = np.concatenate([[law.mean_NM, law.p_zero_NM], law.level_GNM])
                    result[:, torch.from_numpy(rows)] = torch.from_numpy(stacked.astype(np.float32))
                    if actual_XM is not None:
                        target_BM = torch.from_numpy((actual_XM[rows] / scale_M).astype(np.float32)).to(device)
                        loss_sum += float(model.loss_of(output_BMQ, batch.level_BM, target_BM)) * len(rows)
        total = ranks.add(torch.cat([torch.tensor([loss_sum]), result.flatten()]).to(device)).cpu().numpy()
        found = total[1:].reshape(result.shape).astype(np.float64)
        return Distribution(found[2 + MEDIAN], found[0], found[1], found[2:]), float(total[0]) / max(len(index), 1)

    def baseline(self, forecast: baselines.Baseline, index: WindowIndex) -> Floats:
        """A baseline's totals (X, M), in the index's order."""
        forecast_XM = np.zeros((len(index), len(self.inputs.spec.tasks)))
        for shard, rows in self._by_shard(index):
            for day in np.unique(index.cutoff_X[rows]):
                at_day = rows[index.cutoff_X[rows] == day]
                forecast_XM[at_day] = forecast(self.panels[shard], int(day), index.series_X[at_day])
        return forecast_XM

    def scenario_of(self, index: WindowIndex) -> NDArray[Any]:
        scenario_X = np.empty(len(index), object)
        for shard, rows in self._by_shard(index):
            scenario_X[rows] = self.scenarios[shard][index.series_X[rows]]
        return scenario_X

    def calibration(self, index: WindowIndex, forecast_XM: Floats, actual_XM: Floats) -> ResidualQuantiles:
        spec = self.inputs.spec
        return ResidualQuantiles.fit(forecast_XM, actual_XM, self.scenario_of(index), spec.tasks, spec.horizon_days)

    def calibrate_baselines(self, cutoffs: Sequence[date], limit: int) -> dict[str, ResidualQuantiles]:
        """By name: every baseline, cold_start and silent."""
        served = {name: (M2M_METHOD, forecast) for name, forecast in baselines.BASELINES.items()}
        served[COLD_START_METHOD] = (COLD_START_METHOD, baselines.cold_start)
        served[SILENT_METHOD] = (SILENT_METHOD, baselines.silent)
        calibrations = {}
        for name, (method, forecast) in served.items():
            index = self.validation_windows(cutoffs, limit, method)
            calibrations[name] = self.calibration(index, self.baseline(forecast, index), self.targets(index))
        return calibrations

    def _by_shard(self, index: WindowIndex) -> list[tuple[int, Ints]]:
        return [(int(shard), np.flatnonzero(index.shard_X == shard)) for shard in np.unique(index.shard_X)]


def targets_at(panel: Panel, series_X: Ints, cutoff_X: Ints) -> Floats:
    """``inputs.targets_Nm`` for windows with cutoffs of their own."""
    day_XH = cutoff_X[:, None] + 1 + np.arange(panel.spec.horizon_days)
    return np.asarray(daily_totals(panel.performance_NTP[series_X[:, None], day_XH], panel.spec).sum(1))


@dataclass(frozen=True)
class Plan:
    """How many steps every rank will take, and which windows each step reads: known before the first one."""

    pool: int
    batch_size: int
    steps: int
    steps_per_epoch: int
    epochs: int

    @classmethod
    def of(cls, pool: int, config: TrainConfig) -> Plan:
        windows = min(config.max_windows, pool * config.epochs)
        steps = max(math.ceil(windows / config.batch_size), config.min_steps, config.epochs)
        per_epoch = math.ceil(steps / config.epochs)
        return cls(pool, config.batch_size, steps, per_epoch, math.ceil(steps / per_epoch))

    def batch(self, step: int, seed: int) -> Ints:
        """Positions in the pool: a walk through one random order of it after the other."""
        position = step * self.batch_size + np.arange(self.batch_size)
        rounds = position // self.pool
        return np.concatenate(
            [_order(self.pool, seed, int(r))[position[rounds == r] % self.pool] for r in np.unique(rounds)]
        )


@dataclass
class RunState:
    """What a checkpoint holds besides model and optimizer."""

    best_weights: dict[str, Tensor]
    step: int = 0
    loss_sum: float = 0.0  # since the epoch's start
    loss_steps: int = 0  # steps before this epoch
    epochs: list[dict[str, Any]] = field(default_factory=list)
    best_nmae: float = math.inf
    best_epoch: int = 0
    stopped: bool = False

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunState:
        return cls(**values)

    def metrics(self) -> list[EpochMetrics]:
        return [
            EpochMetrics(**{**epoch, "cells": tuple(CellMetric(**cell) for cell in epoch["cells"])})
            for epoch in self.epochs
        ]

    @property
    def train_loss(self) -> float:
        return self.loss_sum / max(self.step - self.loss_steps, 1)

    def end_epoch(self, metrics: EpochMetrics, model: M2M, patience: int) -> None:
        self.epochs.append({**asdict(metrics), "cells": [asdict(cell) for cell in metrics.cells]})
        self.loss_sum, self.loss_steps = 0.0, self.step
        if metrics.nmae < self.best_nmae or self.best_epoch == 0:
            self.best_nmae, self.best_epoch, self.best_weights = metrics.nmae, metrics.epoch, _copy(model)
        self.stopped = metrics.epoch - self.best_epoch >= patience


class Progress:
    """A line every few seconds, for whoever waits."""

    def __init__(self, speaks: bool) -> None:
        self.speaks, self.started, self.spoke = speaks, time.monotonic(), time.monotonic()

    def say(self, line: str) -> None:
        if self.speaks:
            print(line, flush=True)

    def step(self, state: RunState, plan: Plan, first_step: int) -> None:
        now = time.monotonic()
        if not self.speaks or now - self.spoke < PROGRESS_EVERY_S:
            return
        self.spoke = now
        seconds_per_step = (now - self.started) / (state.step - first_step)
        left = int(seconds_per_step * (plan.steps - state.step))
        epoch = (state.step - 1) // plan.steps_per_epoch
        step, steps = state.step - epoch * plan.steps_per_epoch, plan.steps_per_epoch
        self.say(
            f"epoch {epoch + 1}/{plan.epochs} step {step}/{steps} loss {state.train_loss:.3f} "
            f"{plan.batch_size / seconds_per_step:,.0f} rows/s {left // 60}:{left % 60:02d} left"
        )


def _train_step(
    model: M2M,
    optimizer: torch.optim.Optimizer,
    data: Shards,
    index: WindowIndex,
    batch_size: int,
    config: TrainConfig,
    ranks: Ranks,
    device: torch.device,
) -> float:
    """One step on this rank's share of the batch; the gradients of all ranks are added up."""
    index = index[np.argsort(index.shard_X, kind="stable")]
    batch = Batch.of(data.windows(index), device)
    scale_M = np.asarray(data.inputs.task_scales)
    target_BM = torch.from_numpy((data.targets(index) / scale_M).astype(np.float32)).to(device)
    optimizer.zero_grad(set_to_none=False)
    share = len(index) / batch_size
    loss = model.loss(batch, target_BM) * share
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = ranks.add(torch.cat([loss.detach().view(1), *(gradient.flatten() for gradient in gradients)]))
    if ranks.together:
        pieces = torch.split(flat[1:], [gradient.numel() for gradient in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
    optimizer.step()
    return float(flat[0])


def _validate(
    model: M2M,
    data: Shards,
    index: WindowIndex,
    actual_VM: Floats,
    state: RunState,
    plan: Plan,
    ranks: Ranks,
    device: torch.device,
) -> EpochMetrics:
    """Loss and error of the network's own median. The same figures on every rank."""
    raw, loss = data.forecast(model, index, ranks, device, actual_VM)
    scenario_V = data.scenario_of(index)
    error_VM = np.abs(actual_VM - raw.median_NM)
    cells = []
    for scenario in sorted(set(scenario_V)):
        rows = scenario_V == scenario
        for m, task in enumerate(data.inputs.spec.tasks):
            nmae = error_VM[rows, m].sum() / max(actual_VM[rows, m].sum(), 1e-12)
            cells.append(CellMetric(str(scenario), task.name, int(rows.sum()), float(nmae)))
    sums_M = actual_VM.sum(0)
    nmae_M = error_VM.sum(0)[sums_M > 0] / sums_M[sums_M > 0]
    epoch = math.ceil(state.step / plan.steps_per_epoch)
    return EpochMetrics(epoch, state.train_loss, loss, float(nmae_M.mean()) if len(nmae_M) else 0.0, tuple(cells))


def _order(pool: int, seed: int, rounds: int) -> Ints:
    """The random order of one walk through the pool; remembered for the steps that share it."""
    key = (pool, seed, rounds)
    if key not in _ORDERS:
        while len(_ORDERS) > 1:
            _ORDERS.pop(next(iter(_ORDERS)))
        _ORDERS[key] = np.random.default_rng([seed, rounds]).permutation(pool).astype(np.int32)
    return _ORDERS[key]


_ORDERS: dict[tuple[int, int, int], Ints] = {}


def _evenly(count: int, limit: int) -> Ints:
    """All of 0..count-1, or ``limit`` of them at even distances."""
    if count <= limit:
        return np.arange(count)
    return (np.arange(limit) * (count / limit)).astype(np.int64)


def _copy(model: M2M) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def _seed(seed: int, step: int, rank: int) -> None:
    """Dropout of a step depends on nothing but these three."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1))


def _set_learning_rate(optimizer: torch.optim.Optimizer, peak: float, progress: float) -> None:
    """Linear warm-up, then a half cosine down to a fiftieth."""
    factor = progress / WARM_UP if progress < WARM_UP else 0.02 + 0.49 * (1 + math.cos(math.pi * progress))
    for group in optimizer.param_groups:
        group["lr"] = peak * max(factor, 0.02)
