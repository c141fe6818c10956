"""The way to a total: what each day of the horizon is expected to bring, and how sure the sum up to that day is.

A day has its share of the mean: by the weekdays of its scenario, from which the series' own ones move it as far as it
was active. The sum up to a day is the total seen early: its zero is more likely (that of the total to a power, as in a
Poisson process), what lies above 0 is less. To which power, and how much less, is what validation cutoffs saw, by the
share of the mean that was expected by then. At the last day nothing is left to learn: it is the total.

N series, T tasks, M targets, H days of the longest horizon, D days of any, W weekdays, K activity groups, S steps of
the way, V levels above zero, Q published levels, X any of D x N. Series come last: what is done day by day is done for
all of them at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from m2m_model.arrays import Floats, Ints, Strings
from m2m_model.data.activity import activity_NM
from m2m_model.data.panel import Panel, days_of, recent
from m2m_model.data.served_by import COLD_START_DAYS, history_days
from m2m_model.data.spec import SequenceSpec
from m2m_model.forecasts.calibration import ABOVE, STEPS, WEEK, Pacing
from m2m_model.forecasts.cells import codes_of
from m2m_model.forecasts.distribution import Distribution
from m2m_model.forecasts.forecasts import Forecasts
from m2m_model.levels import LEVELS, MEDIAN, PUBLISHED

CHUNK = 512  # series at a time: what they need stays in the cache
HABIT_WEEKS = 8  # the last weeks say which weekdays are a series' own
FIGURES = ("expected", "cumulated", "cumulated_p05", "cumulated_p50", "cumulated_p95")
GRAIN = 2.0**-7  # of an average day: sums on the way are told to it, for it takes half the bytes
DIGITS = 10  # binary ones, which quantiles on the way are told to
_LEVELS = (PUBLISHED[0], MEDIAN, PUBLISHED[-1])
_LEAST_ZERO = 1e-3  # of a mass of 0 no power is any more

PATH_SCHEMA = pa.schema(
    [("advertiser_id", pa.string()), ("scenario_id", pa.string()), ("task", pa.string()), ("day", pa.date32())]
    + [(name, pa.float64()) for name in FIGURES]
)


@dataclass(frozen=True)
class Habit:
    """The weekdays of series in their last weeks, from that of the day after the cutoff on: their shares (T, W, N), and
    the active days that say so (T, N): 0 of a series with less than COLD_START_DAYS of history, or with nothing in the
    last half of the weeks."""

    share_TWN: Floats
    active_TN: Floats

    @classmethod
    def of(cls, panel: Panel, day: int, series: Ints) -> Habit:
        age_N, tasks = history_days(panel, day)[series], len(panel.spec.tasks)
        block_NkR = recent(panel, day, series, WEEK * HABIT_WEEKS).reshape(len(series), HABIT_WEEKS, WEEK * tasks)
        amount_TWN, late_TWN = (
            found_NR.reshape(-1, WEEK, tasks).transpose(2, 1, 0)
            for found_NR in (block_NkR.sum(1), (block_NkR > 0)[:, HABIT_WEEKS // 2 :].any(1))
        )
        active_TWN = (block_NkR > 0).sum(1, dtype=np.uint8).reshape(-1, WEEK, tasks).transpose(2, 1, 0)
        known_TN = late_TWN.any(1) & (age_N >= COLD_START_DAYS)
        # The k-th day of a week that ends at the cutoff lies 7w + 6 - k days back.
        weeks_WN = np.clip((age_N - np.arange(WEEK - 1, -1, -1)[:, None] + WEEK - 1) // WEEK, 1, HABIT_WEEKS)
        return cls(_shares(amount_TWN / weeks_WN, 1), active_TWN.sum(1, dtype=np.float64) * known_TN)


@dataclass(frozen=True)
class Early:
    """A total, seen early: its zero masses, and how much of what lies above zero there is if all parts of it come
    alike. R are all D x N in one row."""

    level_R: Floats  # G x N in one row
    final_N: Floats  # zero mass of the total
    zero_R: Floats
    scale_R: Floats

    @classmethod
    def of(cls, m: int, way_DN: Floats, power_DN: Floats, spread: Distribution) -> Early:
        # What is no number ends as a mass, too.
        final_N = np.fmin(np.fmax(spread.p_zero_NM[:, m], _LEAST_ZERO), 1 - _LEAST_ZERO).astype(np.float64)
        zero_DN = np.exp(np.log(final_N) * power_DN)
        # Means: way x mean = (1 - zero) x mean above zero, early as at the end.
        scale_DN = way_DN * (1 - final_N) / np.maximum(1 - zero_DN, 1e-9)
        return cls(spread.level_GNM[:, :, m].ravel(), final_N, zero_DN.ravel(), scale_DN.ravel())

    def amount(self, at_X: Ints, above_X: Floats) -> Floats:
        """The scaled quantile of the total above zero, at some of R."""
        series = len(self.final_N)
        n_X = at_X % series
        final_X = self.final_N[n_X]
        # Levels lie 1/40 apart, but for the least two: below them amounts are small.
        place_X = (final_X + (1 - final_X) * above_X) * 40 + 1
        g_X = place_X.astype(np.int64)
        total_X = _between(self.level_R, g_X * series + n_X, series, place_X - g_X)
        return np.asarray(total_X * self.scale_R[at_X])


def daily_path(forecasts: Forecasts, panel: Panel, pacing: Pacing) -> pa.Table:
    """What is expected of each day of the longest horizon, and the sums up to it: ``PATH_SCHEMA``, in order of its
    first four columns. On the last day of each horizon the sums are that total's mean and quantiles."""
    spec, series = panel.spec, len(forecasts.series_N)
    tasks = sorted(range(len(spec.tasks)), key=lambda t: spec.tasks[t].name)
    names = pa.table(
        {"advertiser": pa.array(forecasts.advertiser_N, pa.string())}
        | {"scenario": pa.array(forecasts.scenario_N, pa.string())}
    )
    order_N = np.asarray(pc.sort_indices(names, [("advertiser", "ascending"), ("scenario", "ascending")]))
    figure_FNTH = np.empty((len(FIGURES), series, len(tasks), spec.horizon_days))
    for at in range(0, series, CHUNK):
        rows = slice(at, at + CHUNK)
        of_chunk_FTHN = path_figures(forecasts[order_N[rows]], panel, pacing)
        figure_FNTH[:, rows] = of_chunk_FTHN[:, tasks].transpose(0, 3, 1, 2)
    each_R = pa.array(np.repeat(order_N, len(tasks) * spec.horizon_days))
    task_R = pa.array(np.tile(np.repeat(tasks, spec.horizon_days), series))
    day_H = days_of(forecasts.cutoff) + 1 + np.arange(spec.horizon_days, dtype=np.int32)
    columns = {
        "advertiser_id": names["advertiser"].take(each_R),
        "scenario_id": names["scenario"].take(each_R),
        "task": pa.array([task.name for task in spec.tasks], pa.string()).take(task_R),
        "day": pa.array(np.tile(day_H, series * len(tasks))).cast(pa.date32()),
    }
    return pa.table(columns | dict(zip(FIGURES, figure_FNTH.reshape(len(FIGURES), -1), strict=True)), PATH_SCHEMA)


@np.errstate(invalid="ignore", over="ignore")  # a faulty forecast is for the checks to see
def path_figures(forecasts: Forecasts, panel: Panel, pacing: Pacing) -> Floats:
    """(``FIGURES``, T, H, N) of some series."""
    spec, spread, series = panel.spec, forecasts.distribution, forecasts.series_N
    day, horizons = panel.index_of(forecasts.cutoff), len(spec.horizons_days)
    first_N = np.full(len(series), first_weekday(panel, day))
    share_TWN = shares(pacing, Habit.of(panel, day, series), forecasts.scenario_N, first_N)
    figure_FTHN = np.zeros((len(FIGURES), len(spec.tasks), spec.horizon_days, len(series)))
    figure_FTHN[0], sum_THN = days_and_sums(spread.mean_NM, share_TWN, spec)
    figure_FTHN[1] = sum_THN
    group_NM = activity_NM(panel, day, series)
    for m, days, way_DN in ways(spread.mean_NM, sum_THN, spec):
        found_QDN = figure_FTHN[2:, m // horizons, days]
        final_Q1N = spread.level_GNM[list(_LEVELS), None, :, m]
        before_Q1N = figure_FTHN[2:, m // horizons, days.start - 1, None] if days.start else 0.0
        whole = spec.targets[m].aggregate == "days"
        raw_QDN = _coarse(quantiles(pacing, m, group_NM[:, m], way_DN, spread))
        for q in range(1, len(_LEVELS)):
            np.maximum(raw_QDN[q], raw_QDN[q - 1], out=raw_QDN[q])
        np.minimum(np.maximum(np.rint(raw_QDN) if whole else raw_QDN, before_Q1N), final_Q1N, out=found_QDN)
        if whole:  # a day a day, and time enough for those that are left
            np.maximum(found_QDN, final_Q1N - np.arange(found_QDN.shape[1])[::-1, None], out=found_QDN)
            np.minimum(found_QDN[:, :1], before_Q1N + 1, out=found_QDN[:, :1])
        for d in range(1, found_QDN.shape[1]):
            last_QN, next_QN = found_QDN[:, d - 1], found_QDN[:, d]
            np.maximum(next_QN, last_QN, out=next_QN)
            if whole:
                np.minimum(next_QN, last_QN + 1, out=next_QN)
        found_QDN[:, -1:] = final_Q1N
    return figure_FTHN


def shares(pacing: Pacing, habit: Habit, scenario_N: Strings, first_N: Ints, own_T: Floats | None = None) -> Floats:
    """(T, W, N) of a week that begins with weekday ``first_N``: those of each series' scenario, moved by its own."""
    weekday_TWS = np.array([*pacing.scenarios.values(), pacing.weekday_TW]).transpose(1, 2, 0)
    weekday_WN = (first_N + np.arange(WEEK)[:, None]) % WEEK
    share_TWN = weekday_TWS[:, weekday_WN, codes_of(scenario_N, list(pacing.scenarios))]
    weight_T1N = (habit.active_TN * np.asarray(pacing.own_T if own_T is None else own_T)[:, None])[:, None]
    return np.asarray((share_TWN + weight_T1N * habit.share_TWN) / (1 + weight_T1N))


def quantiles(pacing: Pacing, m: int, group_N: Ints, way_DN: Floats, spread: Distribution) -> Floats:
    """(Q, D, N) of the sums at shares ``way_DN`` of the mean of target m."""
    power_KS, ratio_KSV = (table[m] for table in pacing.clocks)
    power_R, ratio_R = power_KS.ravel(), ratio_KSV.ravel()
    at_DN = np.sqrt(way_DN) * STEPS
    step_DN = np.minimum(at_DN.astype(np.int64), STEPS - 1)
    rest_DN, cell_DN = at_DN - step_DN, group_N * (STEPS + 1) + step_DN
    early = Early.of(m, way_DN, _between(power_R, cell_DN, 1, rest_DN), spread)
    cell_R, rest_R, found_QR = cell_DN.ravel(), rest_DN.ravel(), np.zeros((len(_LEVELS), way_DN.size))
    for found_R, level in zip(found_QR, LEVELS[list(_LEVELS)], strict=True):
        at_X = np.flatnonzero(early.zero_R < level)
        zero_X = early.zero_R[at_X]
        above_X = (level - zero_X) / (1 - zero_X)
        place_X = np.maximum((above_X - ABOVE[0]) / (ABOVE[1] - ABOVE[0]), 0)
        v_X = np.minimum(place_X.astype(np.int64), len(ABOVE) - 2)
        first_X, up_X = cell_R[at_X] * len(ABOVE) + v_X, place_X - v_X
        sooner_X, later_X = (_between(ratio_R, r_X, 1, up_X) for r_X in (first_X, first_X + len(ABOVE)))
        found_R[at_X] = (sooner_X + rest_R[at_X] * (later_X - sooner_X)) * early.amount(at_X, above_X)
    return found_QR.reshape(-1, *way_DN.shape)


def first_weekday(panel: Panel, day: int) -> int:
    """Of the day after ``day`` (an index in T), Monday = 0."""
    return (panel.day_of(day).weekday() + 1) % WEEK


def days_and_sums(mean_NM: Floats, share_TWN: Floats, spec: SequenceSpec) -> tuple[Floats, Floats]:
    """(T, H, N) each: the mean of the longest horizon day by day, and summed up to each day, through the means of the
    shorter ones. A day of a task that counts days is a probability."""
    mean_TkN = mean_NM.T.reshape(len(spec.tasks), -1, len(mean_NM)).astype(np.float64)
    sum_THN = np.empty((len(spec.tasks), spec.horizon_days, len(mean_NM)))
    counts = [t for t, task in enumerate(spec.tasks) if task.aggregate == "days"]
    before_T1N = np.zeros((len(spec.tasks), 1, len(mean_NM)))
    for k, (start, stop) in enumerate(pairwise((0, *spec.horizons_days))):
        final_T1N = mean_TkN[:, k, None]
        mass_T1N = np.maximum(final_T1N - before_T1N, 0)
        expected_TDN = mass_T1N * _shares(share_TWN[:, np.arange(start, stop) % WEEK], 1)
        expected_TDN[counts] = _at_most_one(expected_TDN[counts])
        grain_T1N = GRAIN * 2.0 ** np.floor(np.log2(np.maximum(mass_T1N / (stop - start), 1e-300)))
        sum_TDN = np.floor((before_T1N + np.cumsum(expected_TDN, 1)) / grain_T1N + 0.5) * grain_T1N
        np.minimum(np.maximum(sum_TDN, before_T1N), final_T1N, out=sum_TDN)
        # A day a day, after the horizon before and up to this one.
        day_D1 = np.arange(stop - start)[:, None]
        least_TDN, most_TDN = final_T1N[counts] - day_D1[::-1], before_T1N[counts] + day_D1 + 1
        sum_TDN[counts] = np.maximum(np.minimum(sum_TDN[counts], most_TDN), least_TDN)
        sum_TDN[:, -1:] = final_T1N
        sum_THN[:, start:stop] = sum_TDN
        before_T1N = final_T1N
    return np.diff(sum_THN, axis=1, prepend=0), sum_THN


def ways(mean_NM: Floats, sum_THN: Floats, spec: SequenceSpec) -> Iterator[tuple[int, slice, Floats]]:
    """Of each target the days that no shorter horizon has, and which share of its mean is expected by each, (D, N)."""
    horizons = len(spec.horizons_days)
    for m in range(len(spec.targets)):
        k, mean_N = m % horizons, mean_NM[:, m]
        days = slice(spec.horizons_days[k - 1] if k else 0, spec.horizons_days[k])
        even_D1 = (1 + np.arange(days.start, days.stop))[:, None] / days.stop
        share_DN = np.divide(
            sum_THN[m // horizons, days], mean_N, out=np.repeat(even_D1, len(mean_N), 1), where=mean_N > 0
        )
        yield m, days, np.fmin(np.fmax(share_DN, 0), 1)


def _shares(amount_xyz: Floats, axis: int) -> Floats:
    """Of their sum along an axis; all alike where it is nothing."""
    sum_x1z = amount_xyz.sum(axis, keepdims=True)
    nothing_x1z = sum_x1z <= 0
    if nothing_x1z.any():
        amount_xyz, sum_x1z = amount_xyz + nothing_x1z, sum_x1z + nothing_x1z * amount_xyz.shape[axis]
    return np.asarray(amount_xyz / sum_x1z)


def _between(table_R: Floats, at_x: Ints, step: int, share_x: Floats) -> Floats:
    """Entries of a table, and what lies so far on the way to those a step after them."""
    first_x = table_R[at_x]
    return np.asarray(first_x + share_x * (table_R[at_x + step] - first_x))


def _coarse(amount_x: Floats) -> Floats:
    """Rounded to ``DIGITS``; what was not below stays so."""
    shift = 52 - DIGITS
    bits_x = amount_x.astype(np.float64).view(np.int64)
    return ((bits_x + (1 << shift - 1)) >> shift << shift).view(np.float64)


def _at_most_one(expected_TDN: Floats) -> Floats:
    """What is above 1 goes to the other days, by what they lack of it."""
    part_TDN = np.minimum(expected_TDN, 1)
    room_TDN, more_T1N = 1 - part_TDN, (expected_TDN - part_TDN).sum(1, keepdims=True)
    return np.asarray(part_TDN + room_TDN * np.minimum(more_T1N / np.maximum(room_TDN.sum(1, keepdims=True), 1e-12), 1))
