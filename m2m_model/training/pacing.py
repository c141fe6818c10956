"""How totals come day by day, learned: weekdays from the last half year of history, all else from windows whose horizon
is over. X windows, O candidates, k weeks; other shapes as in ``paths.path``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial

import numpy as np

from m2m_model.arrays import Bools, Floats, Ints, Strings
from m2m_model.data.features import Inputs
from m2m_model.data.panel import CHUNK, Panel
from m2m_model.forecasts.calibration import ABOVE, EVEN, WAY, WEEK, Clock, Pacing
from m2m_model.forecasts.cells import Cells, codes_of
from m2m_model.forecasts.distribution import Distribution
from m2m_model.paths.path import Early, Habit, days_and_sums, first_weekday, shares, ways
from m2m_model.training.pool import Columns, Shards, WindowIndex, evenly

PROFILE_WEEKS = 26
OWN = (0.0, 1 / 320, 1 / 160, 1 / 80, 1 / 40, 1 / 20, 1 / 10)  # what an active day of a series may count
LEAST_SHARE = 1e-3  # of a day that nothing is expected of: what comes all the same is a surprise of so much
POWERS: Floats = np.linspace(0, 1, 101)
RATIOS = (0.1, 10.0)  # beyond them no few amounts are believed
CELL_DAYS, CELL_WINDOWS, CELL_AMOUNTS = 8, 2_000, 30  # looked at, at most, and at least


@dataclass(frozen=True)
class Followed:
    """Windows day by day: the weekday of the first day, the series' own weekdays, what came. And what the weekdays of
    each scenario had, Monday first, in the weeks up to the last day that is read; last all other scenarios."""

    first_X: Ints
    habit: Habit
    came_THX: Floats
    weeks_STkW: Floats

    @classmethod
    def of(cls, data: Shards, index: WindowIndex, last_day: date) -> Followed:
        """The same on every rank; each looks at its own windows and panels. Weeks are read up to ``last_day``."""
        spec = data.inputs.spec

        def look(own: WindowIndex) -> list[Columns]:
            tasks, first_X = len(spec.tasks), np.zeros(len(own), np.int64)
            share_XTW, active_XT = np.zeros((len(own), tasks, WEEK), np.float32), np.zeros((len(own), tasks))
            came_XTH = np.zeros((len(own), tasks, spec.horizon_days), np.float32)
            for shard, rows in data.by_shard(own):
                panel = data.panels[shard]
                for day in np.unique(own.cutoff_X[rows]).tolist():
                    at = rows[own.cutoff_X[rows] == day]
                    series = own.series_X[at]
                    habit, first_X[at] = Habit.of(panel, day, series), first_weekday(panel, day)
                    share_XTW[at], active_XT[at] = habit.share_TWN.transpose(2, 0, 1), habit.active_TN.T
                    came_XTH[at] = panel.daily_NTM[series, day + 1 : day + 1 + spec.horizon_days].transpose(0, 2, 1)
            return [first_X, share_XTW, active_XT, came_XTH]

        first_X, *others = data.everywhere(look, index)
        share_TWX, active_TX, came_THX = (np.ascontiguousarray(np.moveaxis(x, 0, -1)) for x in others)
        weeks = dict[int, Floats]()
        for found in data.ranks.gather({n: _weeks(p, data.inputs.scenarios, last_day) for n, p in data.panels.items()}):
            weeks |= found
        weeks_STkW = np.zeros((len(data.inputs.scenarios) + 1, len(spec.tasks), PROFILE_WEEKS, WEEK))
        for shard in sorted(weeks):  # in one order, however many ranks there are
            weeks_STkW += weeks[shard]
        return cls(first_X, Habit(share_TWX, active_TX), came_THX, weeks_STkW)


def fit_pacing(inputs: Inputs, followed: Followed, scenario_X: Strings, group_XM: Ints, served: Distribution) -> Pacing:
    """From windows whose horizon is over, forecast as they are ``served``. Without windows every day comes alike."""
    spec, horizons = inputs.spec, len(inputs.spec.horizons_days)
    even = Pacing.even(spec)
    pooled_TW = _drawn(followed.weeks_STkW.sum(0), np.array(even.weekday_TW))
    of_scenarios = zip(inputs.scenarios, followed.weeks_STkW[:-1], strict=True)
    known = {name: _rounded(_drawn(weeks_TkW, pooled_TW)) for name, weeks_TkW in of_scenarios}
    pacing = replace(even, weekday_TW=_rounded(pooled_TW), scenarios=known)
    weighed = partial(shares, pacing, followed.habit, scenario_X, followed.first_X)
    own_T = [OWN[o] for o in _surprise(weighed, followed, served.mean_NM[:, horizons - 1 :: horizons]).argmin(0)]
    sum_THX = days_and_sums(served.mean_NM, weighed(np.array(own_T)), spec)[1]
    came_THX = np.cumsum(followed.came_THX, 1, dtype=np.float64)
    clocks, everywhere = [], np.full(len(scenario_X), "")
    for m, days, way_DX in ways(served.mean_NM, sum_THX, spec):
        learn = partial(_clock, m, way_DX, came_THX[m // horizons, days], served)
        cells = Cells.fit(everywhere, group_XM[:, m : m + 1], lambda rows, *_, learn=learn: learn(rows))
        clocks.append(cells.pooled_MK[0])
    return replace(pacing, own_T=tuple(own_T), clock_MK=tuple(clocks))


def _weeks(panel: Panel, scenarios: Sequence[str], last_day: date) -> Floats:
    """Of one panel (S + 1, T, k, W); weeks end with ``last_day``, days before the panel are empty."""
    end = min((last_day - panel.first_day).days, panel.days - 1) + 1
    begin, tasks = max(end - PROFILE_WEEKS * WEEK, 0), len(panel.spec.tasks)
    total_SDT = np.zeros((len(scenarios) + 1, PROFILE_WEEKS * WEEK, tasks))
    code_N = codes_of(panel.scenario_N, scenarios)
    for start in range(0, len(panel) if end > begin else 0, CHUNK):
        rows = slice(start, start + CHUNK)
        order_N = np.argsort(code_N[rows], kind="stable")
        codes, first = np.unique(code_N[rows][order_N], return_index=True)
        block_NDT = panel.daily_NTM[rows, begin:end][order_N]
        total_SDT[codes, begin - end :] += np.add.reduceat(block_NDT, first, 0, dtype=np.float64)
    weeks_SkWT = total_SDT.reshape(len(total_SDT), PROFILE_WEEKS, WEEK, tasks)
    return np.roll(weeks_SkWT, first_weekday(panel, end - 1), 2).transpose(0, 3, 1, 2)


def _drawn(weeks_TkW: Floats, prior_TW: Floats) -> Floats:
    """Mean shares of the weekdays, each week counting alike, drawn to ``prior_TW`` as far as weeks disagree."""
    found_TW = prior_TW.copy()
    for t, weeks_kW in enumerate(weeks_TkW):
        sum_k1 = weeks_kW.sum(1, keepdims=True)
        move_kW = (weeks_kW / np.maximum(sum_k1, 1e-30) - prior_TW[t])[sum_k1[:, 0] > 0]
        if len(move_kW) > 1:
            square_W, noise_W = move_kW.mean(0) ** 2, move_kW.var(0, ddof=1) / len(move_kW)
            found_TW[t] += move_kW.mean(0) * square_W / np.maximum(square_W + noise_W, 1e-30)
    return np.asarray(found_TW / found_TW.sum(1, keepdims=True))


def _surprise(weighed: partial[Floats], followed: Followed, mean_XT: Floats) -> Floats:
    """(O, T): how little likely the days were on which amounts came. A window weighs the square root of its mean, as in
    training."""
    weight_T1X = (np.sqrt(np.maximum(mean_XT, 0)) / np.maximum(mean_XT, 1e-9)).T[:, None]
    came_THX = followed.came_THX * weight_T1X
    week = np.arange(came_THX.shape[1]) % WEEK
    each_TWX = (weighed(np.full(len(came_THX), own)) for own in OWN)
    return np.stack([-(came_THX * np.log(np.maximum(s_TWX, LEAST_SHARE))[:, week]).sum((1, 2)) for s_TWX in each_TWX])


def _clock(m: int, way_DX: Floats, came_DX: Floats, served: Distribution, rows_X: Bools) -> Clock:
    """Of some windows and one target: on each day the power that gives as many zeros as were, and the ratios under
    which as much of what came lay as should. ``came_DX`` are sums from the first day on."""
    rows = np.flatnonzero(rows_X)
    rows = rows[evenly(len(rows), CELL_WINDOWS)]
    days = np.unique(np.linspace(0, len(way_DX) - 1, CELL_DAYS).round().astype(int))
    if not len(rows) or len(days) < 2:
        return EVEN
    way_DX, came_DX, spread = way_DX[np.ix_(days, rows)], came_DX[np.ix_(days, rows)], served[rows]
    final_X = Early.of(m, way_DX, np.ones_like(way_DX), spread).final_N
    zeros_P = np.array([(final_X**power).mean() for power in POWERS])
    power_D = np.maximum.accumulate(np.interp(-(came_DX == 0).mean(1), -zeros_P, POWERS))
    power_D[-1] = 1
    early = Early.of(m, way_DX, np.broadcast_to(power_D[:, None], way_DX.shape), spread)
    ratio_DV = np.ones((len(days), len(ABOVE)))
    for d, v in np.ndindex(ratio_DV.shape):
        x = np.flatnonzero(came_DX[d] > 0)
        said_X = early.amount(d * len(rows) + x, np.full(len(x), ABOVE[v]))
        if (said_X > 0).sum() >= CELL_AMOUNTS:
            found_X = came_DX[d, x[said_X > 0]] / said_X[said_X > 0]
            ratio_DV[d, v] = np.clip(np.quantile(found_X, ABOVE[v]), *RATIOS)
    # How much of what these few dates share is believed is for the calibration of totals to say.
    ratio_DV /= ratio_DV[-1]
    at_D = [*way_DX[:-1].mean(1), 1.0]
    power_S = np.interp(WAY, [0.0, *at_D], [0.0, *power_D])
    ratio_SV = np.stack([np.interp(WAY, at_D, ratio_D) for ratio_D in ratio_DV.T], 1)
    return Clock(_rounded(power_S[None])[0], _rounded(ratio_SV))


def _rounded(table: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(round(float(x), 6) for x in row) for row in table)
