"""From a point forecast to a distribution: what happened, on held-out cutoffs, when such a forecast was made.

N rows (series x cutoff), M targets, Q quantiles, J forecast levels of a cell; T tasks, W weekdays, K activity groups, S
steps of the way to a total, V levels of what lies above zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from m2m_model.arrays import Bools, Floats, Ints, Strings
from m2m_model.data.activity import GROUPS, YOUNG
from m2m_model.data.spec import SequenceSpec, Target
from m2m_model.forecasts.cells import Cells
from m2m_model.forecasts.distribution import Distribution, decode, levels_of, zero_below
from m2m_model.levels import LEVELS, MEDIAN

FORECAST_LEVELS = 10  # at most this many per cell
LEVEL_ROWS = (30, 200)  # rows that one level is made from: a third of the cell's, within these; levels overlap
FLOOR = 0.2  # of the target's mean: keeps the ratio to a forecast of zero finite
WEEK = 7
STEPS = 12  # of the square root of the way to a total: the more of them, the nearer to its begin
WAY: Floats = (np.arange(STEPS + 1) / STEPS) ** 2
ABOVE: Floats = np.linspace(0.05, 0.95, 7)  # levels of what lies above zero
SHIFT_KEPT = 0.5  # of the rise or fall that all series of a task shared on the few validation dates: half is chance


@dataclass(frozen=True)
class Cell:
    """One target (of one scenario): at each forecast level, the mean, the share of zeros and the quantiles of
    (actual / forecast)."""

    log_level_J: list[float]
    mean_ratio_J: list[float]
    zero_J: list[float]
    ratio_GJ: list[list[float]]


@dataclass(frozen=True)
class ResidualQuantiles:
    """Empirical quantiles of the actual given the forecast, per target, activity group, scenario and forecast level;
    JSON-serialisable. The mean is without bias on the rows that it was learned from."""

    targets: tuple[Target, ...]
    floor_M: tuple[float, ...]
    mean_scale_M: tuple[float, ...]
    cells: Cells[Cell] | None  # None = no rows

    @classmethod
    def fit(
        cls,
        forecast_NM: Floats,
        actual_NM: Floats,
        scenario_N: Strings,
        group_NM: Ints,
        targets: Sequence[Target],
        shift_kept: float = SHIFT_KEPT,
    ) -> ResidualQuantiles:
        """Learn from N (forecast, actual) pairs of validation cutoffs. N = 0 gives the point forecast back.

        ``shift_kept``: how much of what actuals have more, or less, than forecasts all together is believed to last; 1
        where it is a rule's bias and no drift.
        """
        ones = (1.0,) * len(targets)
        if len(forecast_NM) == 0:
            return cls(tuple(targets), ones, ones, None)
        forecast_NM = np.maximum(forecast_NM.astype(np.float64), 0)
        size_M = np.maximum(forecast_NM, actual_NM).mean(0)
        floor_M = tuple(float(FLOOR * size) if size > 0 else 1.0 for size in size_M)
        steady_NM = actual_NM / _shared_shift(forecast_NM.sum(0), actual_NM.sum(0)) ** (1 - shift_kept)

        def learn(rows: Bools, m: int, coarser: Cell | None) -> Cell:
            return _fit_cell(forecast_NM[rows, m], steady_NM[rows, m], floor_M[m])

        found = cls(tuple(targets), floor_M, ones, Cells.fit(scenario_N, group_NM, learn))
        mean_M, steady_M = found.apply(forecast_NM, scenario_N, group_NM).mean_NM.sum(0), steady_NM.sum(0)
        scale_M = np.divide(steady_M, mean_M, out=np.ones_like(mean_M), where=(mean_M > 0) & (steady_M > 0))
        return replace(found, mean_scale_M=tuple(map(float, scale_M)))

    def apply(self, forecast_NM: Floats, scenario_N: Strings, group_NM: Ints) -> Distribution:
        """The distribution behind each forecast, its median as the point."""
        forecast_NM = np.maximum(forecast_NM.astype(np.float64), 0)
        if self.cells is None:
            return Distribution.point(forecast_NM)
        cell_NM = self.cells.number_of(scenario_N, group_NM)
        reach_NM = forecast_NM + np.asarray(self.floor_M)
        figure_NMV = self._table.at(cell_NM, np.log(reach_NM))
        mean_NM = figure_NMV[..., 0] * reach_NM * np.asarray(self.mean_scale_M)
        level_NMG = figure_NMV[..., 2:] * reach_NM[..., None]
        for m, target in enumerate(self.targets):
            if target.aggregate == "days":
                level_NMG[:, m] = np.round(np.clip(level_NMG[:, m], 0, target.horizon_days))
                mean_NM[:, m] = np.clip(mean_NM[:, m], 0, target.horizon_days)
        return Distribution(level_NMG[..., MEDIAN], mean_NM, figure_NMV[..., 1], level_NMG.transpose(2, 0, 1))

    @cached_property
    def _table(self) -> Table:
        assert self.cells is not None
        return Table.of([(c.log_level_J, [c.mean_ratio_J, c.zero_J, *c.ratio_GJ]) for c in self.cells.listed])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ResidualQuantiles:
        """The inverse of ``to_dict``."""
        return cls(
            tuple(Target(**target) for target in values["targets"]),
            tuple(values["floor_M"]),
            tuple(values["mean_scale_M"]),
            values["cells"] and Cells.read(values["cells"], lambda cell: Cell(**cell)),
        )


def _shared_shift(forecast_M: Floats, actual_M: Floats) -> Floats:
    """Actual over forecast, all series together; 1 where either is nothing."""
    both_M = (forecast_M > 0) & (actual_M > 0)
    return np.clip(np.divide(actual_M, forecast_M, out=np.ones_like(actual_M), where=both_M), 0.25, 4.0)


def _fit_cell(forecast_X: Floats, actual_X: Floats, floor: float) -> Cell:
    order_X = np.argsort(forecast_X, kind="stable")
    ratio_X = actual_X / (forecast_X + floor)
    log_X = np.log(forecast_X + floor)
    log_level_J, mean_J, zero_J, ratio_JG = [], [], [], []
    for rows in _levels(order_X):
        log_level_J.append(float(log_X[rows].mean()))
        mean_J.append(float(actual_X[rows].sum() / (forecast_X[rows] + floor).sum()))
        zero_J.append(float((actual_X[rows] == 0).mean()))
        ratio_JG.append(np.quantile(ratio_X[rows], LEVELS).round(6).tolist())
    return Cell(log_level_J, mean_J, zero_J, np.asarray(ratio_JG).T.tolist())


def _levels(order_X: Ints) -> list[Ints]:
    """Rows of each forecast level, lowest first. Neighbours share half their rows: few rows make several levels."""
    rows = len(order_X)
    size = min(rows, max(int(np.clip(rows // 3, *LEVEL_ROWS)), rows // FORECAST_LEVELS))
    count = int(np.clip(2 * rows // size - 1, 1, FORECAST_LEVELS))
    starts = np.unique(np.linspace(0, rows - size, count).astype(int))
    return [order_X[start : start + size] for start in starts]


@dataclass(frozen=True)
class Table:
    """Functions of one number, one a cell, by J points each (the last repeated to fill up), with V values at each."""

    point_CJ: Floats
    value_CJV: Floats

    @classmethod
    def of(cls, cells: Sequence[tuple[Sequence[float], Sequence[Sequence[float]]]]) -> Table:
        """From the points of each cell, ascending, and the values at them, V x J."""
        most = 1 + max(len(points) for points, _ in cells)
        index = [np.minimum(np.arange(most), len(points) - 1) for points, _ in cells]
        return cls(
            np.stack([np.asarray(points)[j] for (points, _), j in zip(cells, index, strict=True)]),
            np.stack([np.asarray(values).T[j] for (_, values), j in zip(cells, index, strict=True)]),
        )

    def at(self, cell_x: Ints, number_x: Floats) -> Floats:
        """The V values of each number in its cell, interpolated, and flat beyond the outermost points: (x, V)."""
        point_xJ = self.point_CJ[cell_x]
        low_x = np.clip((point_xJ <= number_x[..., None]).sum(-1) - 1, 0, point_xJ.shape[-1] - 2)
        from_x, to_x = (np.take_along_axis(point_xJ, j_x[..., None], -1)[..., 0] for j_x in (low_x, low_x + 1))
        width_x = to_x - from_x
        none_x = np.where(np.isnan(number_x), number_x, 0.0)  # NaN stays NaN, whatever the cell
        share_x = np.divide(number_x - from_x, width_x, out=none_x, where=width_x > 0)
        share_x1 = np.clip(share_x, 0, 1)[..., None]
        return np.asarray((1 - share_x1) * self.value_CJV[cell_x, low_x] + share_x1 * self.value_CJV[cell_x, low_x + 1])


@dataclass(frozen=True)
class LevelCalibration:
    """Conformal calibration of distributions: which level of the forecast holds what share of the actuals.

    Distributional conformal prediction (Chernozhukov, Wuethrich and Zhu 2021): on validation cutoffs the actual's own
    level u = F(y) is found for every row, and level p of a forecast is read at the p-quantile of u. A zero that the
    forecast gives a mass to has a range of levels, over which it counts evenly (Czado, Gneiting and Held 2009). Levels
    move only as far as the cutoffs agree: what they share by chance is shrunk away.
    """

    cells: Cells[tuple[float, ...]]  # the level to read for each of ``LEVELS``
    mean_ratio_M: tuple[float, ...]
    young_ratio_M: tuple[float, ...]  # the same of young series: the market's drift is not what they do

    @classmethod
    def fit(
        cls, forecast: Distribution, actual_NM: Floats, scenario_N: Strings, group_NM: Ints, cutoff_N: Ints
    ) -> LevelCalibration:
        """Learn from N rows of several cutoffs. N = 0 changes nothing."""
        tasks = actual_NM.shape[1]
        if len(actual_NM) == 0:
            return cls.identity(tasks)
        young_NM = group_NM == YOUNG
        ratios = [
            np.sqrt(_shared_shift((forecast.mean_NM * of_NM).sum(0), (actual_NM * of_NM).sum(0)))
            for of_NM in (~young_NM, young_NM)
        ]
        low_NM, high_NM = levels_of(forecast, actual_NM)

        def learn(rows: Bools, m: int, coarser: tuple[float, ...] | None) -> tuple[float, ...]:
            prior_G = LEVELS if coarser is None else np.asarray(coarser)
            return tuple(_shrunk_levels(low_NM[rows, m], high_NM[rows, m], cutoff_N[rows], prior_G).tolist())

        return cls(Cells.fit(scenario_N, group_NM, learn), *(tuple(map(float, ratio_M)) for ratio_M in ratios))

    @classmethod
    def identity(cls, tasks: int) -> LevelCalibration:
        """Leaves every forecast as it is."""
        return cls(Cells(((tuple(LEVELS.tolist()),) * GROUPS,) * tasks, {}), (1.0,) * tasks, (1.0,) * tasks)

    def apply(self, forecast: Distribution, scenario_N: Strings, group_NM: Ints) -> Distribution:
        """The forecast with its levels moved, and the point that follows from them."""
        cell_NM = self.cells.number_of(scenario_N, group_NM)
        zeros, below_CG, share_CG = self._tables
        p_zero_NM = zeros.at(cell_NM, forecast.p_zero_NM)[..., 0]
        level_NMG = forecast.level_GNM.transpose(1, 2, 0)
        below_NMG, share_NMG = below_CG[cell_NM], share_CG[cell_NM]
        low_NMG, high_NMG = (np.take_along_axis(level_NMG, g_NMG, 2) for g_NMG in (below_NMG, below_NMG + 1))
        moved_NMG = (1 - share_NMG) * low_NMG + share_NMG * high_NMG
        level_GNM = zero_below(p_zero_NM, moved_NMG.transpose(2, 0, 1))
        mean_NM = forecast.mean_NM * np.where(group_NM == YOUNG, self.young_ratio_M, self.mean_ratio_M)
        return decode(Distribution(forecast.point_NM, mean_NM, p_zero_NM, level_GNM))

    @cached_property
    def _tables(self) -> tuple[Table, Ints, Floats]:
        """Of each cell: which zero mass is read for one, which level lies below each that is read, and how far above it
        that one is."""
        read_CG = np.asarray(self.cells.listed)
        position_CG = np.interp(read_CG, LEVELS, np.arange(len(LEVELS)))
        below_CG = np.minimum(position_CG.astype(int), len(LEVELS) - 2)
        zeros = Table.of([([0, *read_G, 1], [[0, *LEVELS, 1]]) for read_G in read_CG])
        return zeros, below_CG, position_CG - below_CG

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LevelCalibration:
        """The inverse of ``to_dict``."""
        ratios = (tuple(values[name]) for name in ("mean_ratio_M", "young_ratio_M"))
        return cls(Cells.read(values["cells"], tuple), *ratios)


def _shrunk_levels(low_X: Floats, high_X: Floats, cutoff_X: Ints, prior_G: Floats) -> Floats:
    """For each of ``LEVELS``, the level to read: learned over the cutoffs, drawn to ``prior_G`` where they disagree."""
    cutoffs = np.unique(cutoff_X)
    found_DG = np.stack([_quantiles_of(low_X[cutoff_X == day], high_X[cutoff_X == day]) for day in cutoffs])
    move_DG = found_DG - prior_G
    move_G = move_DG.mean(0)
    # With one cutoff nothing is known of how much cutoffs differ: half of its move is kept.
    noise_G = move_DG.var(0, ddof=1) / len(cutoffs) if len(cutoffs) > 1 else move_G**2
    kept_G = np.divide(move_G**2, move_G**2 + noise_G, out=np.zeros_like(move_G), where=move_G != 0)
    return np.asarray(np.clip(np.maximum.accumulate(prior_G + kept_G * move_G), 0, 1))


def _quantiles_of(low_X: Floats, high_X: Floats) -> Floats:
    """Quantiles at ``LEVELS`` of levels that are each spread evenly over low..high."""
    edge = np.concatenate([[0.0], LEVELS, [1.0]])
    share_E = np.array([np.clip((level - low_X) / (high_X - low_X), 0, 1).mean() for level in edge])
    rising_E = share_E + 1e-9 * np.arange(len(edge))  # flat stretches have no inverse
    return np.asarray(np.interp(LEVELS, rising_E, edge))


@dataclass(frozen=True)
class Shared:
    """One target: the share of the variance of a series' normal score that is all series', its scenario's
    (``scenarios``: of those that were seen), its advertiser's; and the cutoffs that say so."""

    market: float
    scenario: float
    scenarios: Mapping[str, float]
    advertiser: float
    cutoffs: int


@dataclass(frozen=True)
class Dependence:
    """How series go wrong together, per target; JSON-serialisable."""

    targets: tuple[Shared, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Dependence:
        """The inverse of ``to_dict``."""
        return cls(tuple(Shared(**target) for target in values["targets"]))


@dataclass(frozen=True)
class Clock:
    """How a target of one activity group comes, at each of ``WAY``: the power of its zero mass, and by what the amount
    above zero differs from its share, at each of ``ABOVE``."""

    power_S: tuple[float, ...]
    ratio_SV: tuple[tuple[float, ...], ...]


EVEN = Clock(tuple(WAY.tolist()), ((1.0,) * len(ABOVE),) * (STEPS + 1))


@dataclass(frozen=True)
class Pacing:
    """How totals come, day by day; JSON-serialisable. Shares of the weekdays, Monday first, of each scenario that was
    seen and of all; ``own_T``: what an active day of a series counts beside them."""

    weekday_TW: tuple[tuple[float, ...], ...]
    scenarios: Mapping[str, tuple[tuple[float, ...], ...]]
    own_T: tuple[float, ...]
    clock_MK: tuple[tuple[Clock, ...], ...]

    @classmethod
    def even(cls, spec: SequenceSpec) -> Pacing:
        """All days alike: where nothing was learned."""
        week_TW = ((1 / WEEK,) * WEEK,) * len(spec.tasks)
        return cls(week_TW, {}, (0.0,) * len(spec.tasks), ((EVEN,) * GROUPS,) * len(spec.targets))

    @cached_property
    def clocks(self) -> tuple[Floats, Floats]:
        """(M, K, S) powers and (M, K, S, V) ratios."""
        return (
            np.array([[clock.power_S for clock in clocks] for clocks in self.clock_MK]),
            np.array([[clock.ratio_SV for clock in clocks] for clocks in self.clock_MK]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Pacing:
        """The inverse of ``to_dict``."""

        def rows(table: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
            return tuple(map(tuple, table))

        return cls(
            rows(values["weekday_TW"]),
            {name: rows(table) for name, table in values["scenarios"].items()},
            tuple(values["own_T"]),
            tuple(
                tuple(Clock(tuple(clock["power_S"]), rows(clock["ratio_SV"])) for clock in clocks)
                for clocks in values["clock_MK"]
            ),
        )
