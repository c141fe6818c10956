"""The windows of a run: where they are, and what is read of them. X windows, M targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m2m_model.arrays import Bools, Floats, Ints, Numbers, Rows, Strings
from m2m_model.data.activity import activity_NM
from m2m_model.data.features import Inputs
from m2m_model.data.panel import Panel
from m2m_model.data.served_by import COLD_START_DAYS, served_by, trainable_NT
from m2m_model.data.targets import targets_at
from m2m_model.network.model import Batch
from m2m_model.network.windows import Days, Runs, Windows
from m2m_model.training.ranks import Ranks

Columns = NDArray[Any]  # of windows: one entry, or row, each
RESIDENT = 0.6  # of a device's free memory that panels may take; the rest is the network's


@dataclass(frozen=True)
class WindowIndex:
    """Windows as (shard, series, cutoff) indices: what a pool of windows costs is 12 bytes each."""

    shard_X: Ints
    series_X: Ints
    cutoff_X: Ints

    def __len__(self) -> int:
        return len(self.shard_X)

    def __getitem__(self, rows: Rows) -> WindowIndex:
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
    """The panels of a run, and the windows in them. A rank maps its own panels into memory, and knows where all windows
    are: shards have the numbers of their names in order, whoever holds them."""

    def __init__(self, folders: Sequence[Path], inputs: Inputs, device: torch.device | None = None) -> None:
        """``folders`` are this rank's panels (none is well); those of all ranks together are the run's. Windows are cut
        on ``device`` (default: the CPU).

        Raises:
            ValueError: a panel was made for other inputs, or is held twice.
        """
        self.inputs, self.ranks = inputs, Ranks()
        opened = [(folder.name, Panel.open(folder)) for folder in folders]
        for name, panel in opened:
            if panel.spec != inputs.spec:
                raise ValueError(f"{name}: made for other metrics, attributes, tasks or lengths than the inputs")
        own = [(name, len(panel), panel.first_day, panel.last_day) for name, panel in opened]
        held = sorted((*shard, rank) for rank, shards in enumerate(self.ranks.gather(own)) for shard in shards)
        names = [name for name, *_ in held]
        if twice := [name for name, after in pairwise(names) if name == after]:
            raise ValueError(f"{twice[0]}: held twice; each rank takes its own of the shards (``shares``)")
        self.panels = {names.index(name): panel for name, panel in opened}
        self.cut = Windows(inputs, device or torch.device("cpu"))
        home = self.cut.device if _fit(self.panels.values(), self.cut.device) else torch.device("cpu")
        self.days = {shard: Days.of(panel, inputs.profile(panel), home) for shard, panel in self.panels.items()}
        self.scenarios = {shard: panel.scenario_N for shard, panel in self.panels.items()}
        self.owner_S = np.array([rank for *_, rank in held], np.int64)
        self.first_day = min((first for _, _, first, _, _ in held), default=date.max)
        self.last_day = max((last for _, _, _, last, _ in held), default=date.min)
        self.extent = f"{sum(series for _, series, *_ in held)} series over {self.first_day} .. {self.last_day}"

    def training_windows(self, last_cutoff: date, min_history_days: int, limit: int) -> WindowIndex:
        """All windows that may train, or ``limit`` of them evenly spread over series and days."""

        def may_train_NT(panel: Panel) -> Bools:
            return trainable_NT(panel, (last_cutoff - panel.first_day).days, min_history_days)

        return self._chosen(may_train_NT, lambda panel, flat: np.divmod(flat, panel.days), limit)

    def windows_at(self, cutoffs: Sequence[date], limit: int, served: Sequence[int]) -> WindowIndex:
        """Windows at ``cutoffs`` of the series that are served so (codes of ``data.served_by``), at most ``limit``."""

        def day_C(panel: Panel) -> Ints:
            last = panel.last_day - timedelta(days=self.inputs.spec.horizon_days)
            inside = [panel.index_of(cutoff) for cutoff in cutoffs if panel.first_day <= cutoff <= last]
            return np.array(inside, np.int64)

        def served_CN(panel: Panel) -> Bools:
            return np.array([np.isin(served_by(panel, int(day)), served) for day in day_C(panel)], bool)

        def decoded(panel: Panel, flat: Ints) -> tuple[Ints, Ints]:
            return flat % len(panel), day_C(panel)[flat // len(panel)]

        return self._chosen(served_CN, decoded, limit)

    def _chosen(
        self, mask: Callable[[Panel], Bools], decoded: Callable[[Panel, Ints], tuple[Ints, Ints]], limit: int
    ) -> WindowIndex:
        """All windows of a mask of each panel, whose flat indices are decoded to (series, cutoff), or ``limit`` of them
        evenly spread. The same on every rank, however many there are; one mask is in memory at a time."""
        counts = dict[int, int]()
        for counted in self.ranks.gather({shard: int(mask(panel).sum()) for shard, panel in self.panels.items()}):
            counts |= counted
        before_S = np.cumsum([0, *(counts[shard] for shard in range(len(counts)))])
        wanted = evenly(int(before_S[-1]), limit)
        own = []
        for shard, panel in self.panels.items():
            begin, end = np.searchsorted(wanted, before_S[[shard, shard + 1]])
            if end > begin:
                flat = np.flatnonzero(mask(panel))[wanted[begin:end] - before_S[shard]]
                own.append(WindowIndex.of(shard, *decoded(panel, flat)))
        index = WindowIndex.concatenate(self.ranks.gather(WindowIndex.concatenate(own)))
        return index[np.argsort(index.shard_X, kind="stable")]

    def own(self, index: WindowIndex) -> Ints:
        """The positions of this rank's windows in an index."""
        return np.flatnonzero(self.owner_S[index.shard_X] == self.ranks.rank)

    def everywhere(self, of: Callable[[WindowIndex], Sequence[Columns]], index: WindowIndex) -> list[Columns]:
        """What a function says of each window, in the index's order: every rank asks it of its own windows, and hears
        what the others found. All ranks must come."""
        said = self.ranks.gather(of(index[self.own(index)]))
        position = np.argsort(np.argsort(self.owner_S[index.shard_X], kind="stable"))
        return [np.concatenate(parts)[position] for parts in zip(*said, strict=True)]

    def windows(self, index: WindowIndex) -> Batch:
        """Cut the windows of an index in order of shards, all of them this rank's (as below), on the device."""
        return self._cut(index)[0]

    def examples(self, index: WindowIndex) -> tuple[Batch, Tensor]:
        """Windows, and what came of them in units of the targets' scales (B, M), on the device."""
        batch, after = self._cut(index)
        totals = [days.totals_after(series_B, cutoff_B).to(self.cut.device) for days, series_B, cutoff_B in after]
        return batch, torch.cat([batch.level_BM[:0], *totals]) / self.cut.scale_X

    def _cut(self, index: WindowIndex) -> tuple[Batch, list[tuple[Days, Tensor, Tensor]]]:
        at = list[tuple[Days, Tensor, Tensor]]()
        for shard, rows in self.by_shard(index):
            days = self.days[shard]
            numbers = (torch.from_numpy(part[rows].astype(np.int64)) for part in (index.series_X, index.cutoff_X))
            series_B, cutoff_B = (tensor.to(days.daily_XM.device) for tensor in numbers)
            at.append((days, series_B, cutoff_B))
        if not at:
            return self.cut.blank(0), []
        return self.cut.of(Runs.concatenate([days.runs(series_B, cutoff_B) for days, series_B, cutoff_B in at])), at

    def targets(self, index: WindowIndex) -> Floats:
        """Totals (X, M) of what each window is to forecast, in the index's order."""
        target_XM = np.zeros((len(index), len(self.inputs.spec.targets)))
        for shard, rows in self.by_shard(index):
            target_XM[rows] = targets_at(self.panels[shard], index.series_X[rows], index.cutoff_X[rows])
        return target_XM

    def by_day(self, of: Callable[[Panel, int, Ints], Numbers], index: WindowIndex) -> Floats:
        """What a function of (panel, day, series) says of each window, (X, M), in the index's order."""
        found_XM = np.zeros((len(index), len(self.inputs.spec.targets)))
        for shard, rows in self.by_shard(index):
            for day in np.unique(index.cutoff_X[rows]):
                at_day = rows[index.cutoff_X[rows] == day]
                found_XM[at_day] = of(self.panels[shard], int(day), index.series_X[at_day])
        return found_XM

    def groups(self, index: WindowIndex) -> Ints:
        """The activity group (X, M) of each window."""
        return self.by_day(activity_NM, index).astype(np.int64)

    def is_young(self, index: WindowIndex) -> Bools:
        """Which windows have less than COLD_START_DAYS of history."""
        young_X = np.zeros(len(index), bool)
        for shard, rows in self.by_shard(index):
            registered_X = self.panels[shard].registered_N[index.series_X[rows]].astype(np.int64)
            young_X[rows] = index.cutoff_X[rows] + 1 - registered_X < COLD_START_DAYS
        return young_X

    def advertiser_of(self, index: WindowIndex) -> Ints:
        """A number of each window's advertiser, the same in all its scenarios: they are in one shard."""
        advertiser_X = index.shard_X.astype(np.int64) << 32
        for shard, rows in self.by_shard(index):
            advertiser_X[rows] += self.panels[shard].advertiser_index_N[index.series_X[rows]]
        return advertiser_X

    def scenario_of(self, index: WindowIndex) -> Strings:
        scenario_X = np.empty(len(index), object)
        for shard, rows in self.by_shard(index):
            scenario_X[rows] = self.scenarios[shard][index.series_X[rows]]
        return scenario_X

    def by_shard(self, index: WindowIndex) -> list[tuple[int, Ints]]:
        """Each shard of an index, and its positions in it."""
        return [(int(shard), np.flatnonzero(index.shard_X == shard)) for shard in np.unique(index.shard_X)]


def _fit(panels: Iterable[Panel], device: torch.device) -> bool:
    """Whether the panels of a rank may stay on its device beside the network; from the host, runs follow batch by
    batch."""
    if device.type != "cuda":
        return True
    of_days = ("performance_XP", "behavior_XF", "daily_XM", "future_XC", "advertiser_total_YM")
    needed: int = sum(getattr(panel, name).nbytes for panel in panels for name in of_days)
    return needed < RESIDENT * torch.cuda.mem_get_info(device)[0]


def shares(sizes: Sequence[int], world: int) -> list[list[int]]:
    """The shards (as positions in ``sizes``) that each of ``world`` ranks holds: the largest first, each to the rank
    that has least so far."""
    held: list[list[int]] = [[] for _ in range(world)]
    for shard in sorted(range(len(sizes)), key=lambda shard: -sizes[shard]):
        min(held, key=lambda own: (sum(sizes[k] for k in own), len(own))).append(shard)
    return held


def evenly(count: int, limit: int) -> Ints:
    """All of 0..count-1, or ``limit`` of them at even distances."""
    if count <= limit:
        return np.arange(count)
    return (np.arange(limit) * (count / limit)).astype(np.int64)
