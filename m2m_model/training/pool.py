"""The windows of a run: where they are, and what is read of them. X windows, M tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from m2m_model.arrays import Bools, Floats, Ints, Numbers, Rows, Strings
from m2m_model.data.activity import activity_NM
from m2m_model.data.features import Inputs, Windows
from m2m_model.data.panel import Panel
from m2m_model.data.served_by import COLD_START_DAYS, served_by, trainable_NT
from m2m_model.data.targets import targets_at


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

        def mask_NT(panel: Panel) -> Bools:
            return trainable_NT(panel, (last_cutoff - panel.first_day).days, min_history_days)

        counts = [int(mask_NT(panel).sum()) for panel in self.panels]
        wanted = evenly(sum(counts), limit)
        parts, before = [], 0
        for shard, (panel, count) in enumerate(zip(self.panels, counts, strict=True)):
            mine = wanted[(wanted >= before) & (wanted < before + count)] - before
            flat = np.flatnonzero(mask_NT(panel))[mine] if len(mine) else mine
            parts.append(WindowIndex.of(shard, flat // max(panel.days, 1), flat % max(panel.days, 1)))
            before += count
        return WindowIndex.concatenate(parts)

    def windows_at(self, cutoffs: Sequence[date], limit: int, served: Sequence[int]) -> WindowIndex:
        """Windows at ``cutoffs`` of the series that are served so (codes of ``data.served_by``), at most ``limit``."""
        parts = []
        for shard, panel in enumerate(self.panels):
            for cutoff in cutoffs:
                if panel.first_day <= cutoff <= panel.last_day - timedelta(days=self.inputs.spec.horizon_days):
                    day = panel.index_of(cutoff)
                    series = np.flatnonzero(np.isin(served_by(panel, day), served))
                    parts.append(WindowIndex.of(shard, series, np.full(len(series), day)))
        found = WindowIndex.concatenate(parts)
        return found[evenly(len(found), limit)]

    def windows(self, index: WindowIndex) -> Windows:
        """Cut the windows of an index that is in order of shards."""
        parts = [
            self.inputs.windows(self.panels[shard], self.profiles[shard], index.series_X[rows], index.cutoff_X[rows])
            for shard, rows in self.by_shard(index)
        ]
        if len(parts) == 1:
            return parts[0]
        return Windows(
            *(np.concatenate(arrays) for arrays in zip(*(vars(part).values() for part in parts), strict=True))
        )

    def targets(self, index: WindowIndex) -> Floats:
        """Task totals (X, M) of each window's horizon, in the index's order."""
        target_XM = np.zeros((len(index), len(self.inputs.spec.tasks)))
        for shard, rows in self.by_shard(index):
            target_XM[rows] = targets_at(self.panels[shard], index.series_X[rows], index.cutoff_X[rows])
        return target_XM

    def by_day(self, of: Callable[[Panel, int, Ints], Numbers], index: WindowIndex) -> Floats:
        """What a function of (panel, day, series) says of each window, (X, M), in the index's order."""
        found_XM = np.zeros((len(index), len(self.inputs.spec.tasks)))
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

    def scenario_of(self, index: WindowIndex) -> Strings:
        scenario_X = np.empty(len(index), object)
        for shard, rows in self.by_shard(index):
            scenario_X[rows] = self.scenarios[shard][index.series_X[rows]]
        return scenario_X

    def by_shard(self, index: WindowIndex) -> list[tuple[int, Ints]]:
        """Each shard of an index, and its positions in it."""
        return [(int(shard), np.flatnonzero(index.shard_X == shard)) for shard in np.unique(index.shard_X)]


def evenly(count: int, limit: int) -> Ints:
    """All of 0..count-1, or ``limit`` of them at even distances."""
    if count <= limit:
        return np.arange(count)
    return (np.arange(limit) * (count / limit)).astype(np.int64)
