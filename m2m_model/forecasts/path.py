"""The way to a total: what each day of the horizon is expected to bring, and how sure the sum up to that day is.

A day has its share of the mean: by the weekdays of its scenario, from which the series' own ones move it as far as it
was active. The sum up to a day is the total seen early: its zero is more likely (that of the total to a power, as in a
Poisson process), what lies above 0 is less. To which power, and how much less, is what validation cutoffs saw, by the
share of the mean that was expected by then. At the last day nothing is left to learn: it is the total.

N series, T tasks, M targets, H days of the longest horizon, D days of any, W weekdays, K activity groups, S steps of
the way, V levels above zero, Q published levels, X any of N x D.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from m2m_model.arrays import Floats, Ints, Strings
from m2m_model.data.activity import GROUPS, activity_NM
from m2m_model.data.panel import Panel, days_of, recent
from m2m_model.data.served_by import COLD_START_DAYS, history_days
from m2m_model.data.spec import SequenceSpec
from m2m_model.forecasts.cells import codes_of
from m2m_model.forecasts.distribution import Distribution
from m2m_model.forecasts.forecasts import Forecasts
from m2m_model.levels import LEVELS, MEDIAN, PUBLISHED

CHUNK = 512  # series at a time: what they need stays in the cache
WEEK, HABIT_WEEKS = 7, 8  # the last weeks say which weekdays are a series' own
STEPS = 12  # of the square root of the way: the more of them, the nearer to its begin
WAY: Floats = (np.arange(STEPS + 1) / STEPS) ** 2
ABOVE: Floats = np.linspace(0.05, 0.95, 7)  # levels of what lies above zero
FIGURES = ("expected", "cumulated", "cumulated_p05", "cumulated_p50", "cumulated_p95")
_LEVELS = (PUBLISHED[0], MEDIAN, PUBLISHED[-1])
_LEAST_ZERO = 1e-3  # of a mass of 0 no power is any more

PATH_SCHEMA = pa.schema(
    [("advertiser_id", pa.string()), ("scenario_id", pa.string()), ("task", pa.string()), ("day", pa.date32())]
    + [(name, pa.float64()) for name in FIGURES]
)


@dataclass(frozen=True)
class Clock:
    """How a target of one activity group comes, at each of ``WAY``: the power of its zero mass, and by what the amount
    above zero differs from its share, at each of ``ABOVE``."""

    power_S: tuple[float, ...]
    ratio_SV: tuple[tuple[float, ...], ...]


EVEN = Clock(tuple(WAY.tolist()), ((1.0,) * len(ABOVE),) * (STEPS + 1))


@dataclass(frozen=True)
class Habit:
    """The weekdays of series in their last weeks, from that of the day after the cutoff on: their shares (N, T, W), and
    the active days that say so, 0 of a series with less than COLD_START_DAYS of history."""

    share_NTW: Floats
    active_NT: Floats

    @classmethod
    def of(cls, panel: Panel, day: int, series: Ints) -> Habit:
        age_N = history_days(panel, day)[series]
        recent_NDT = recent(panel, day, series, WEEK * HABIT_WEEKS)
        tasks = recent_NDT.shape[2]
        # The k-th day of a week that ends at the cutoff lies 7w + 6 - k days back.
        back_W = np.arange(WEEK - 1, -1, -1)
        weeks_NW = np.clip((age_N[:, None] - back_W + WEEK - 1) // WEEK, 1, HABIT_WEEKS)
        rate_NWT = recent_NDT.reshape(-1, HABIT_WEEKS, WEEK, tasks).sum(1) / weeks_NW[:, :, None]
        share_NWT = _shares(rate_NWT, 1)
        active_NT = (recent_NDT > 0).sum(1) * (age_N >= COLD_START_DAYS)[:, None]
        return cls(share_NWT.transpose(0, 2, 1), active_NT.astype(np.float64))


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

    def weekdays(self, scenario_N: Strings, first_N: Ints) -> Floats:
        """(N, T, W) shares of each series' scenario, from weekday ``first_N`` on."""
        weekday_STW = np.array([*self.scenarios.values(), self.weekday_TW])
        code_N, order_NW = codes_of(scenario_N, list(self.scenarios)), (first_N[:, None] + np.arange(WEEK)) % WEEK
        return np.asarray(weekday_STW[code_N[:, None], :, order_NW].transpose(0, 2, 1))

    def shares(self, habit: Habit, scenario_N: Strings, first_N: Ints, own_T: Floats | None = None) -> Floats:
        """The same, moved by the series' own weekdays."""
        weight_NT1 = (habit.active_NT * np.asarray(self.own_T if own_T is None else own_T))[:, :, None]
        return np.asarray((self.weekdays(scenario_N, first_N) + weight_NT1 * habit.share_NTW) / (1 + weight_NT1))

    @cached_property
    def _clocks(self) -> tuple[Floats, Floats]:
        """(M, K, S) powers and (M, K, S, V) ratios."""
        return (
            np.array([[clock.power_S for clock in clocks] for clocks in self.clock_MK]),
            np.array([[clock.ratio_SV for clock in clocks] for clocks in self.clock_MK]),
        )

    def quantiles(self, m: int, group_N: Ints, way_ND: Floats, spread: Distribution) -> Floats:
        """(Q, N, D) of the sums at shares ``way_ND`` of the mean of target m."""
        power_KS, ratio_KSV = (table[m] for table in self._clocks)
        at_ND = np.sqrt(way_ND) * STEPS
        step_ND = np.clip(at_ND.astype(np.int64), 0, STEPS - 1)
        rest_ND, k_ND = at_ND - step_ND, np.broadcast_to(group_N[:, None], way_ND.shape)
        power_ND = (1 - rest_ND) * power_KS[k_ND, step_ND] + rest_ND * power_KS[k_ND, step_ND + 1]
        seen = Early.of(m, way_ND, power_ND, spread)
        found_QND = np.zeros((len(_LEVELS), *way_ND.shape))
        for found_ND, level in zip(found_QND, LEVELS[list(_LEVELS)], strict=True):
            at = np.nonzero(seen.zero_ND < level)
            above_X = (level - seen.zero_ND[at]) / (1 - seen.zero_ND[at])
            place_X = np.interp(above_X, ABOVE, np.arange(len(ABOVE)))
            v_X = np.minimum(place_X.astype(np.int64), len(ABOVE) - 2)
            k_X, s_X, rest_X, up_X = k_ND[at], step_ND[at], rest_ND[at], place_X - v_X
            early_X, late_X = (
                (1 - up_X) * ratio_KSV[k_X, s, v_X] + up_X * ratio_KSV[k_X, s, v_X + 1] for s in (s_X, s_X + 1)
            )
            found_ND[at] = ((1 - rest_X) * early_X + rest_X * late_X) * seen.amount(at, above_X)
        return found_QND

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


@dataclass(frozen=True)
class Early:
    """A total, seen early: the zero masses, and what lies above zero if every part of it comes alike."""

    level_NG: Floats
    final_N: Floats  # zero mass of the total
    zero_ND: Floats
    scale_ND: Floats

    @classmethod
    def of(cls, m: int, way_ND: Floats, power_ND: Floats, spread: Distribution) -> Early:
        final_N = np.clip(np.nan_to_num(spread.p_zero_NM[:, m]), _LEAST_ZERO, 1 - _LEAST_ZERO).astype(np.float64)
        zero_ND = final_N[:, None] ** power_ND
        # Means: way x mean = (1 - zero) x mean above zero, early as at the end.
        scale_ND = way_ND * (1 - final_N[:, None]) / np.maximum(1 - zero_ND, 1e-9)
        return cls(np.ascontiguousarray(spread.level_GNM[:, :, m].T), final_N, zero_ND, scale_ND)

    def amount(self, at: tuple[Ints, Ints], above_X: Floats) -> Floats:
        """The scaled quantile of the total above zero, for some series and days."""
        final_X = self.final_N[at[0]]
        place_X = np.interp(final_X + (1 - final_X) * above_X, LEVELS, np.arange(len(LEVELS)))
        g_X = np.minimum(place_X.astype(np.int64), len(LEVELS) - 2)
        low_X, high_X = self.level_NG[at[0], g_X], self.level_NG[at[0], g_X + 1]
        return np.asarray((low_X + (place_X - g_X) * (high_X - low_X)) * self.scale_ND[at])


def daily_path(forecasts: Forecasts, panel: Panel, pacing: Pacing) -> pa.Table:
    """What is expected of each day of the longest horizon, and the sums up to it: ``PATH_SCHEMA``, in order of its
    first four columns. On the last day of each horizon the sum is that horizon's total, its mean and quantiles."""
    spec, series = panel.spec, len(forecasts.series_N)
    tasks = sorted(range(len(spec.tasks)), key=lambda t: spec.tasks[t].name)
    names = pa.table(
        {"advertiser": pa.array(forecasts.advertiser_N, pa.string())}
        | {"scenario": pa.array(forecasts.scenario_N, pa.string())}
    )
    order_N = np.asarray(pc.sort_indices(names, [("advertiser", "ascending"), ("scenario", "ascending")]))
    parts = [_figures(forecasts[order_N[at : at + CHUNK]], panel, pacing) for at in range(0, series, CHUNK)]
    figure_FNTH = np.concatenate([np.zeros((len(FIGURES), 0, len(tasks), spec.horizon_days)), *parts], 1)[:, :, tasks]
    each_R = pa.array(np.repeat(order_N, len(tasks) * spec.horizon_days))
    task_R = pa.array(np.tile(np.repeat(tasks, spec.horizon_days), series))
    day_R = np.tile(days_of(forecasts.cutoff) + 1 + np.arange(spec.horizon_days, dtype=np.int32), series * len(tasks))
    columns = {
        "advertiser_id": names["advertiser"].take(each_R),
        "scenario_id": names["scenario"].take(each_R),
        "task": pa.array([task.name for task in spec.tasks]).take(task_R),
        "day": pa.array(day_R).cast(pa.date32()),
    }
    return pa.table(columns | dict(zip(FIGURES, figure_FNTH.reshape(len(FIGURES), -1), strict=True)), PATH_SCHEMA)


def _figures(forecasts: Forecasts, panel: Panel, pacing: Pacing) -> Floats:
    """(``FIGURES``, N, T, H) of some series."""
    spec, spread, series = panel.spec, forecasts.distribution, forecasts.series_N
    day = panel.index_of(forecasts.cutoff)
    first_N = np.full(len(series), first_weekday(panel, day))
    share_NTW = pacing.shares(Habit.of(panel, day, series), forecasts.scenario_N, first_N)
    expected_NTH, sum_NTH = days_and_sums(spread.mean_NM, share_NTW, spec)
    group_NM = activity_NM(panel, day, series)
    level_QNTH = np.zeros((len(_LEVELS), *sum_NTH.shape))
    for m, days, way_ND in ways(spread.mean_NM, sum_NTH, spec):
        final_QN1 = spread.level_GNM[list(_LEVELS), :, m, None]
        before_QN1 = level_QNTH[:, :, m // len(spec.horizons_days), days.start - 1 : days.start] if days.start else 0
        with np.errstate(invalid="ignore"):  # a faulty forecast is for the checks to see
            found_QND = np.maximum.accumulate(pacing.quantiles(m, group_NM[:, m], way_ND, spread), 0)
        if spec.targets[m].aggregate == "days":
            count_D = 1 + np.arange(days.start, days.stop)
            found_QND = np.maximum(np.minimum(np.rint(found_QND), count_D), final_QN1 - (days.stop - count_D))
        found_QND[:, :, -1:] = final_QN1
        found_QND = np.clip(found_QND, before_QN1, final_QN1)
        level_QNTH[:, :, m // len(spec.horizons_days), days] = np.maximum.accumulate(found_QND, 2)
    return np.concatenate([[expected_NTH, sum_NTH], level_QNTH])


def first_weekday(panel: Panel, day: int) -> int:
    """Of the day after ``day`` (an index in T), Monday = 0."""
    return (panel.day_of(day).weekday() + 1) % WEEK


def days_and_sums(mean_NM: Floats, share_NTW: Floats, spec: SequenceSpec) -> tuple[Floats, Floats]:
    """(N, T, H) each: the mean of the longest horizon day by day, and summed up to each day, through the means of the
    shorter ones. A day of a task that counts days is a probability."""
    horizons = len(spec.horizons_days)
    mean_NTk = mean_NM.reshape(len(mean_NM), -1, horizons).astype(np.float64)
    mass_NTk = np.maximum(np.diff(mean_NTk, axis=2, prepend=0), 0)
    expected_NTH = np.empty((*mean_NTk.shape[:2], spec.horizon_days))
    for k, (start, stop) in enumerate(pairwise((0, *spec.horizons_days))):
        share_NTD = _shares(share_NTW[:, :, np.arange(start, stop) % WEEK], 2)
        expected_NTH[:, :, start:stop] = mass_NTk[:, :, k, None] * share_NTD
    for t, task in enumerate(spec.tasks):
        if task.aggregate == "days" and (expected_NTH[:, t] > 1).any():
            for start, stop in pairwise((0, *spec.horizons_days)):
                expected_NTH[:, t, start:stop] = _at_most_one(expected_NTH[:, t, start:stop])
    sum_NTH = np.cumsum(expected_NTH, 2)
    sum_NTH[:, :, np.array(spec.horizons_days) - 1] = mean_NTk
    return expected_NTH, sum_NTH


def ways(mean_NM: Floats, sum_NTH: Floats, spec: SequenceSpec) -> Iterator[tuple[int, slice, Floats]]:
    """Of each target the days that no shorter horizon has, and which share of its mean is expected by each, (N, D)."""
    horizons = len(spec.horizons_days)
    for m in range(len(spec.targets)):
        k = m % horizons
        days = slice(spec.horizons_days[k - 1] if k else 0, spec.horizons_days[k])
        even_D = (1 + np.arange(days.start, days.stop)) / days.stop
        mean_N1 = mean_NM[:, m, None]
        share_ND = np.divide(
            sum_NTH[:, m // horizons, days], mean_N1, out=np.tile(even_D, (len(mean_NM), 1)), where=mean_N1 > 0
        )
        yield m, days, np.clip(np.nan_to_num(share_ND), 0, 1)


def _shares(amount_xyz: Floats, axis: int) -> Floats:
    """Of their sum along an axis; all alike where it is nothing."""
    sum_x1z = amount_xyz.sum(axis, keepdims=True)
    even = np.full_like(amount_xyz, 1 / amount_xyz.shape[axis])
    return np.divide(amount_xyz, sum_x1z, out=even, where=sum_x1z > 0)


def _at_most_one(expected_ND: Floats) -> Floats:
    """What is above 1 goes to the other days, by what they lack of it."""
    part_ND = np.minimum(expected_ND, 1)
    room_ND, more_N1 = 1 - part_ND, (expected_ND - part_ND).sum(1, keepdims=True)
    return np.asarray(np.minimum(part_ND + room_ND * more_N1 / np.maximum(room_ND.sum(1, keepdims=True), 1e-12), 1))
