"""What is learned for unlike series apart: per target and activity group, and per scenario where it has rows enough.

A series that clicks every day and one that clicks once a month may have the same forecast and are not equally likely to
do nothing. N rows, M targets, K activity groups (``data.activity``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from m2m_model.arrays import Bools, Ints, Strings
from m2m_model.data.activity import GROUPS

CELL_ROWS = 480  # a group of a scenario with fewer uses that of all scenarios
GROUP_ROWS = 120  # a group with fewer takes its neighbours' rows in

T = TypeVar("T")


@dataclass(frozen=True)
class Cells(Generic[T]):
    """One ``T`` per target and group for all scenarios together, and those of scenarios that have their own."""

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

    @property
    def listed(self) -> Sequence[T]:
        """All cells."""
        return self._numbers[0]

    def number_of(self, scenario_N: Strings, group_NM: Ints) -> Ints:
        """Which of the ``listed`` cells each row and task is in, (N, M)."""
        scenario_N1 = codes_of(scenario_N, list(self.scenarios))[:, None]
        return np.asarray(self._numbers[1][scenario_N1, np.arange(group_NM.shape[1]), group_NM])

    @cached_property
    def _numbers(self) -> tuple[Sequence[T], Ints]:
        """All cells, and the number of each scenario's, task's and group's; last those of all other scenarios."""
        cells, columns = [cell for group in self.pooled_MK for cell in group], range(len(self.pooled_MK))
        number_SMK = np.tile(np.arange(len(cells)).reshape(-1, GROUPS), (len(self.scenarios) + 1, 1, 1))
        for code, own_MK in enumerate(self.scenarios.values()):
            for m, k in product(columns, range(GROUPS)):
                if (cell := own_MK[m][k]) is not None:
                    number_SMK[code, m, k] = len(cells)
                    cells.append(cell)
        return cells, number_SMK

    @classmethod
    def read(cls, values: Mapping[str, Any], read: Callable[[Any], T]) -> Cells[T]:
        """The inverse of ``dataclasses.asdict``; ``read`` makes a ``T`` of its plain values."""

        pooled_MK = tuple(tuple(map(read, cells)) for cells in values["pooled_MK"])
        scenarios = {
            name: tuple(tuple(None if cell is None else read(cell) for cell in cells) for cells in tasks)
            for name, tasks in values["scenarios"].items()
        }
        return cls(pooled_MK, scenarios)


def codes_of(name_N: Strings, known: Sequence[str]) -> Ints:
    """The position of each name among those that are known; of any other, one past the last."""
    found = pc.index_in(pa.array(name_N, pa.string()), value_set=pa.array(known, pa.string()))
    return np.asarray(pc.fill_null(found, len(known)), np.int64)


def _near(group_N: Ints, k: int) -> Bools:
    """Rows of group k; where they are few, of its neighbours too."""
    away_N = np.abs(group_N - k)
    reach = next((reach for reach in range(GROUPS) if (away_N <= reach).sum() >= GROUP_ROWS), GROUPS)
    return np.asarray(away_N <= reach)
