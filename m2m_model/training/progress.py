"""Where a run stands: what its epochs measured, what a checkpoint holds, what is said on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from torch import Tensor

from m2m_model.network.model import M2M
from m2m_model.training.plan import Plan

PROGRESS_EVERY_S = 5.0

Say = Callable[[str], object]
At = Callable[[int, float, int], object]


def printed(line: str) -> None:
    print(line, flush=True)


def unheard(*_: object) -> None:
    pass


@dataclass(frozen=True)
class CellMetric:
    """Validation error of one scenario and target; ``task`` is the target's title."""

    scenario_id: str
    task: str
    n: int
    nmae: float


@dataclass(frozen=True)
class EpochMetrics:
    """``nmae`` is of the network's own median, the mean over targets."""

    epoch: int
    train_loss: float
    validation_loss: float
    nmae: float
    cells: tuple[CellMetric, ...] = ()


Ended = Callable[[EpochMetrics], object]


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
    refit_nmae: tuple[float, float] | None = None  # in the last week that is over: refitted, and as measured
    validation_cutoffs: tuple[date, ...] = field(default_factory=tuple)


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
            self.best_nmae, self.best_epoch, self.best_weights = metrics.nmae, metrics.epoch, weights_of(model)
        self.stopped = metrics.epoch - self.best_epoch >= patience


class Progress:
    """A line every few seconds, for whoever waits."""

    def __init__(self, speaks: bool, say: Say, at: At, ended: Ended) -> None:
        self.speaks, self._say, self._at, self._ended = speaks, say, at, ended
        self.begin()

    def begin(self) -> None:
        """Steps are counted from now on: what came before them says nothing of their speed."""
        self.started = self.spoke = time.monotonic()

    def say(self, line: str) -> None:
        if self.speaks:
            self._say(line)

    def epoch(self, metrics: EpochMetrics, plan: Plan, best: bool) -> None:
        if self.speaks:
            self._ended(metrics)
        self.say(
            f"epoch {metrics.epoch}/{plan.epochs} loss {metrics.train_loss:.3f} validation loss "
            f"{metrics.validation_loss:.3f} NMAE {metrics.nmae:.4f}{'  best so far' if best else ''}"
        )

    def step(self, state: RunState, plan: Plan, first_step: int, last_step: int, waited_s: float, rows: int) -> None:
        self._at(state.step, waited_s, rows)
        now = time.monotonic()
        if not self.speaks or now - self.spoke < PROGRESS_EVERY_S:
            return
        self.spoke = now
        seconds_per_step = (now - self.started) / (state.step - first_step)
        left = int(seconds_per_step * (last_step - state.step))
        epoch = (state.step - 1) // plan.steps_per_epoch
        step, steps = state.step - epoch * plan.steps_per_epoch, plan.steps_per_epoch
        self.say(
            f"epoch {epoch + 1}/{plan.epochs} step {step}/{steps} loss {state.train_loss:.3f} "
            f"{plan.batch_size / seconds_per_step:,.0f} rows/s {left // 60}:{left % 60:02d} left"
        )


def weights_of(model: M2M) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
