"""What is learned for unlike series apart: per task and activity group, and per scenario where it has rows enough.

A series that clicks every day and one that clicks once a month may have the same forecast and are not equally likely to
do nothing. N rows, M tasks, K activity groups (``data.activity``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from m2m_model.arrays import Bools, Ints, Strings
from m2m_model.data.activity import GROUPS

CELL_ROWS = 480  # a group of a scenario with fewer uses that of all scenarios
GROUP_ROWS = 120  # a group with fewer takes its neighbours' rows in

T = TypeVar("T")


@dataclass(frozen=True)
class Cells(Generic[T]):
    """One ``T`` per task and group for all scenarios together, and those of scenarios that have their own."""

    pooled_MK: tuple[tuple[T, ...], ...]
    scenarios: Mapping[str, tuple[tuple[T | None, ...], ...]]

    @classmethod
    def fit(cls, scenario_N: Strings, group_NM: Ints, learn: Callable[[Bools, int, T | None], T]) -> Cells[T]:
        """``learn`` gets the rows, the task and what the next coarser cell learned: all rows, a group, a scenario's."""
        names, columns = scenario_N.astype(str), range(group_NM.shape[1])
        whole = [learn(np.ones(len(names), bool), m, None) for m in columns]
        pooled_MK = tuple(tuple(learn(_near(group_NM[:, m], k), m, whole[m]) for k in range(GROUPS)) for m in columns)

        def own(name: str, m: int, k: int) -> T | None:
            rows = (names == name) & (group_NM[:, m] == k)
            return learn(rows, m, pooled_MK[m][k]) if rows.sum() >= CELL_ROWS else None

        found = {
            str(name): tuple(tuple(own(name, m, k) for k in range(GROUPS)) for m in columns)
            for name, count in zip(*np.unique(names, return_counts=True), strict=True)
            if count >= CELL_ROWS
        }
        return cls(pooled_MK, {name: cells for name, cells in found.items() if any(map(any, cells))})

    def each(self, scenario_N: Strings, group_NM: Ints) -> Iterator[tuple[Ints, int, T]]:
        """The rows that share a cell, their task, the cell; every (row, task) once."""
        if not len(scenario_N):
            return
        known = {name: code for code, name in enumerate(self.scenarios)}
        names, inverse_N = np.unique(scenario_N.astype(str), return_inverse=True)
        code_N = np.array([known.get(str(name), -1) for name in names], np.int64)[inverse_N]
        for m in range(group_NM.shape[1]):
            key_N = code_N * GROUPS + group_NM[:, m]
            order_N = np.argsort(key_N, kind="stable")
            keys, starts = np.unique(key_N[order_N], return_index=True)
            for key, rows in zip(keys, np.split(order_N, starts[1:]), strict=True):
                code, k = divmod(int(key), GROUPS)
                own = list(self.scenarios.values())[code][m][k] if code >= 0 else None
                cell = self.pooled_MK[m][k] if own is None else own
                yield rows, m, cell

    @classmethod
    def read(cls, values: Mapping[str, Any], read: Callable[[Any], T]) -> Cells[T]:
        """The inverse of ``dataclasses.asdict``; ``read`` makes a ``T`` of its plain values."""

        pooled_MK = tuple(tuple(map(read, cells)) for cells in values["pooled_MK"])
        scenarios = {
            name: tuple(tuple(None if cell is None else read(cell) for cell in cells) for cells in tasks)
            for name, tasks in values["scenarios"].items()
        }
        return cls(pooled_MK, scenarios)


def _near(group_N: Ints, k: int) -> Bools:
    """Rows of group k; where they are few, of its neighbours too."""
    away_N = np.abs(group_N - k)
    reach = next((reach for reach in range(GROUPS) if (away_N <= reach).sum() >= GROUP_ROWS), GROUPS)
    return np.asarray(away_N <= reach)
