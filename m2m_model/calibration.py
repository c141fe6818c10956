"""From a point forecast to a distribution: what happened, on held-out cutoffs, when such a forecast was made.

N rows (series x cutoff), M tasks, Q quantiles, J forecast levels of a cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2m_model.config import Task

Floats = NDArray[Any]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

LEVELS = 10  # at most this many forecast levels per cell
LEVEL_ROWS = (30, 200)  # rows that one level is made from: a third of the cell's, within these; levels overlap
CELL_ROWS = 480  # a scenario with fewer rows uses its task's pooled cell
FLOOR = 0.2  # of the task's mean: keeps the ratio to a forecast of zero finite
SHIFT_KEPT = 0.5  # of the rise or fall that all series of a task shared on the few validation dates: half is chance


@dataclass(frozen=True)
class Distribution:
    """Forecast distributions of N series and M tasks, in the metrics' own units. Never below 0, never crossing."""

    mean_NM: Floats
    median_NM: Floats
    p05_NM: Floats
    p25_NM: Floats
    p75_NM: Floats
    p95_NM: Floats

    @classmethod
    def point(cls, forecast_NM: Floats) -> Distribution:
        """A forecast without a distribution: every figure is the point itself."""
        return cls(*([forecast_NM] * 6))

    @property
    def quantiles(self) -> tuple[Floats, ...]:
        """In the order of ``QUANTILES``."""
        return self.p05_NM, self.p25_NM, self.median_NM, self.p75_NM, self.p95_NM

    def with_median(self, median_NM: Floats) -> Distribution:
        """The same with another median; quantiles that it would cross move with it."""
        low = [np.minimum(quantile_NM, median_NM) for quantile_NM in (self.p05_NM, self.p25_NM)]
        high = [np.maximum(quantile_NM, median_NM) for quantile_NM in (self.p75_NM, self.p95_NM)]
        return Distribution(self.mean_NM, median_NM, *low, *high)


@dataclass(frozen=True)
class Cell:
    """One task (of one scenario): at each forecast level, the mean and the quantiles of (actual / forecast)."""

    log_level_J: list[float]
    mean_ratio_J: list[float]
    ratio_QJ: list[list[float]]


@dataclass(frozen=True)
class ResidualQuantiles:
    """Empirical quantiles of the actual given the forecast, per scenario x task x forecast level; JSON-serialisable.

    A scenario with few rows uses the task's pooled cell; so does one that was never seen.
    """

    tasks: tuple[Task, ...]
    horizon_days: int
    floor_M: tuple[float, ...]
    pooled: tuple[Cell | None, ...]  # per task; None = no rows
    scenarios: Mapping[str, tuple[Cell, ...]]

    @classmethod
    def fit(
        cls,
        forecast_NM: Floats,
        actual_NM: Floats,
        scenario_N: NDArray[Any],
        tasks: Sequence[Task],
        horizon_days: int,
    ) -> ResidualQuantiles:
        """Learn from N (forecast, actual) pairs of validation cutoffs. N = 0 gives the point forecast back."""
        columns = range(len(tasks))
        if len(forecast_NM) == 0:
            return cls(tuple(tasks), horizon_days, (1.0,) * len(tasks), (None,) * len(tasks), {})
        size_M = np.maximum(forecast_NM, actual_NM).mean(0)
        floor_M = tuple(float(FLOOR * size) if size > 0 else 1.0 for size in size_M)

        steady_NM = actual_NM / _shared_shift(forecast_NM.sum(0), actual_NM.sum(0)) ** (1 - SHIFT_KEPT)

        def cells(rows: NDArray[Any]) -> tuple[Cell, ...]:
            return tuple(_fit_cell(forecast_NM[rows, m], steady_NM[rows, m], floor_M[m]) for m in columns)

        names, code_N, count = np.unique(scenario_N.astype(str), return_inverse=True, return_counts=True)
        large = {str(name): cells(code_N == code) for code, name in enumerate(names) if count[code] >= CELL_ROWS}
        return cls(tuple(tasks), horizon_days, floor_M, cells(np.ones(len(forecast_NM), bool)), large)

    def apply(self, forecast_NM: Floats, scenario_N: NDArray[Any]) -> Distribution:
        """The distribution behind each point forecast; ``days`` tasks stay within 0..horizon_days."""
        names, code_N = np.unique(scenario_N.astype(str), return_inverse=True)
        result_GNM = np.zeros((1 + len(QUANTILES), *forecast_NM.shape))
        for m, task in enumerate(self.tasks):
            for code, name in enumerate(names):
                rows = code_N == code
                cell = self.scenarios[name][m] if name in self.scenarios else self.pooled[m]
                forecast_X = np.maximum(forecast_NM[rows, m].astype(np.float64), 0)
                result_GNM[:, rows, m] = _apply_cell(cell, forecast_X, self.floor_M[m])
            if task.aggregate == "days":
                result_GNM[:, :, m] = np.clip(result_GNM[:, :, m], 0, self.horizon_days)
                result_GNM[1:, :, m] = np.round(result_GNM[1:, :, m])
        mean_NM, p05_NM, p25_NM, median_NM, p75_NM, p95_NM = result_GNM
        return Distribution(mean_NM, median_NM, p05_NM, p25_NM, p75_NM, p95_NM)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ResidualQuantiles:
        """The inverse of ``to_dict``."""
        return cls(
            tuple(Task(**task) for task in values["tasks"]),
            values["horizon_days"],
            tuple(values["floor_M"]),
            tuple(cell and Cell(**cell) for cell in values["pooled"]),
            {name: tuple(Cell(**cell) for cell in cells) for name, cells in values["scenarios"].items()},
        )


def _shared_shift(forecast_M: Floats, actual_M: Floats) -> Floats:
    """Actual over forecast, all series together; 1 where either is nothing."""
    both_M = (forecast_M > 0) & (actual_M > 0)
    return np.clip(np.divide(actual_M, forecast_M, out=np.ones_like(actual_M), where=both_M), 0.25, 4.0)


def _fit_cell(forecast_X: Floats, actual_X: Floats, floor: float) -> Cell:
    forecast_X = np.maximum(forecast_X.astype(np.float64), 0)
    order_X = np.argsort(forecast_X, kind="stable")
    ratio_X = actual_X / (forecast_X + floor)
    log_X = np.log(forecast_X + floor)
    log_level_J, mean_J, ratio_JQ = [], [], []
    for rows in _levels(order_X):
        log_level_J.append(float(log_X[rows].mean()))
        mean_J.append(float(actual_X[rows].sum() / (forecast_X[rows] + floor).sum()))
        ratio_JQ.append(np.quantile(ratio_X[rows], QUANTILES).tolist())
    return Cell(log_level_J, mean_J, np.asarray(ratio_JQ).T.tolist())


def _levels(order_X: NDArray[Any]) -> list[NDArray[Any]]:
    """Rows of each forecast level, lowest first. Neighbours share half their rows: few rows make several levels."""
    rows = len(order_X)
    size = min(rows, max(int(np.clip(rows // 3, *LEVEL_ROWS)), rows // LEVELS))
    count = int(np.clip(2 * rows // size - 1, 1, LEVELS))
    starts = np.unique(np.linspace(0, rows - size, count).astype(int))
    return [order_X[start : start + size] for start in starts]


def _apply_cell(cell: Cell | None, forecast_X: Floats, floor: float) -> Floats:
    """Mean and quantiles, (1 + Q, X): the levels' ratios, interpolated over the logarithm of the forecast."""
    if cell is None:
        return np.tile(forecast_X, (1 + len(QUANTILES), 1))
    log_X = np.log(forecast_X + floor)
    ratios = [cell.mean_ratio_J, *cell.ratio_QJ]
    return np.stack([np.interp(log_X, cell.log_level_J, ratio_J) * (forecast_X + floor) for ratio_J in ratios])
