"""Why a forecast is what it is: one cause after the other is taken away, and the forecast is made once more.

A cause is what a person would name: a metric's last days, its weeks before, a behavior, an attribute, the scenario, a
plan. It is replaced by something neutral, and what the mean then is less is its effect. Effects are of one cause at a
time: they do not add up, and where two causes say the same, each alone may look weak (docs/model.md).

N series, X copies of them, T days, P metrics, F behaviors, C plans, M targets; W weeks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from m2m_model.arrays import Bools, Floats
from m2m_model.causes.changes import Means
from m2m_model.data.grid import NOTHING, from_grid
from m2m_model.data.panel import DayRows, Panel, days_of, lead, listed_rows
from m2m_model.data.spec import SequenceSpec, Target

RECENT_DAYS = 7  # a metric's last days; more where it was 0 for longer
WEEKS_BEFORE = 4  # what is usual of it: each of so many weeks takes the last days' place once
KEPT = 4  # reasons a forecast, the strongest
WORTH = 0.03  # of the forecast, with or without the cause: less is not worth saying
CHUNK = 64  # series at a time
NO_SCENARIO = ""  # no scenario can be called that


@dataclass(frozen=True)
class Amounts:
    """What panels hold in points of a grid, as it came: NaN where there is no row."""

    performance_NTP: Floats
    behavior_NTF: Floats
    future_NTC: Floats

    @classmethod
    def of(cls, table: pa.Table, panel: Panel) -> Amounts:
        """From the sequence rows that the panel was made from; holidays have no other amounts than the panel's."""
        spec, first = panel.spec, days_of(panel.first_day)

        def dense(rows: DayRows, columns: int) -> Floats:
            block_NTc = np.full((len(panel), panel.days, columns), np.nan)
            rows = rows.on((rows.day_R >= 0) & (rows.day_R < panel.days))
            for c, column_R in enumerate(rows.columns):
                block_NTc[rows.series_R, rows.day_R, c] = column_R
            return block_NTc

        performance_NTP = dense(listed_rows(table, "day", spec.metrics, first), len(spec.metrics))
        acted = listed_rows(table, "behavior_day", spec.behaviors, first)
        future_NTC = np.where(panel.future_NTC == NOTHING, np.nan, from_grid(panel.future_NTC)).astype(np.float64)
        if spec.plan_columns:
            planned = dense(listed_rows(table, "plan_day", spec.plan_columns, first), len(spec.plan_columns))
            listed = [c for c, plan in enumerate(spec.plans) if not plan.covariate.is_holidays]
            future_NTC[:, :, listed] = planned
        return cls(performance_NTP, dense(acted, len(spec.behaviors)), future_NTC)


@dataclass
class Series:
    """One series as it is forecast: its days, its profile. What a cause takes away of it."""

    performance_TP: Floats
    behavior_TF: Floats
    future_TC: Floats
    profile: dict[str, str | None]
    begun: int  # its first registered day within T

    def copy(self) -> Series:
        days = self.performance_TP.copy(), self.behavior_TF.copy(), self.future_TC.copy()
        return Series(*days, dict(self.profile), self.begun)


@dataclass(frozen=True)
class Cause:
    """A short name; what it is in words with figures; copies of the series without it."""

    name: str
    words: str
    without: Sequence[Series]


@dataclass(frozen=True)
class Reason:
    """One cause of one forecast; ``effect`` is the forecast less the one without it."""

    cause: str
    words: str
    effect: float


def reasons(
    panel: Panel,
    amounts: Amounts,
    asked: Sequence[tuple[int, int]],
    means: Means,
    published: Sequence[float] | None = None,
    rule: str | None = None,
) -> list[list[Reason]]:
    """Of each forecast (a series of the panel, a target), as of the panel's last day: its reasons, the strongest first.

    Args:
        amounts: of the panel's series.
        means: what serves.
        published: the means that were, where a rule serves: effects are in proportion to them.
        rule: its name, which reads performance alone.
    """
    effects, found = dict[int, tuple[list[Cause], Floats, Floats]](), list[list[Reason]]()
    series = list(dict.fromkeys(n for n, _ in asked))
    for start in range(0, len(series), CHUNK):
        chunk = series[start : start + CHUNK]
        causes = [causes_of(series_of(panel, amounts, n), panel, rule is None) for n in chunk]
        copies = [
            (n, copy)
            for n, of_n in zip(chunk, causes, strict=True)
            for copy in (series_of(panel, amounts, n), *(copy for cause in of_n for copy in cause.without))
        ]
        mean_XM = np.nan_to_num(means(panel_of(panel, copies), panel.last_day))
        at = 0
        for n, of_n in zip(chunk, causes, strict=True):
            whole_M, at = mean_XM[at], at + 1
            without = list[Floats]()
            for cause in of_n:
                without.append(mean_XM[at : at + len(cause.without)].mean(0))
                at += len(cause.without)
            effects[n] = of_n, whole_M, np.array(without).reshape(len(of_n), len(whole_M))
    for place, (n, m) in enumerate(asked):
        of_n, whole_M, without_KM = effects[n]
        ratio = published[place] / whole_M[m] if published and whole_M[m] > 0 else 1.0
        effect_K = ratio * (whole_M[m] - without_KM[:, m])
        least_K = WORTH * ratio * np.maximum(whole_M[m], without_KM[:, m])
        order = [k for k in np.argsort(-np.abs(effect_K), kind="stable") if abs(effect_K[k]) > max(least_K[k], 1e-9)]
        target = panel.spec.targets[m]
        found.append(
            [
                Reason(of_n[k].name, f"{of_n[k].words}: {moved(panel.spec, target, effect_K[k], rule)}", effect_K[k])
                for k in order[:KEPT]
            ]
        )
    return found


def causes_of(series: Series, panel: Panel, by_network: bool = True) -> list[Cause]:
    """All causes of a series' forecast; where no network serves, those of its performance."""
    spec = panel.spec
    found = _of_performance(series, spec.metrics)
    if not by_network:
        return found
    found += _of_behavior(series, spec.behaviors)
    for name in spec.advertiser_attributes:
        if (value := series.profile[name]) is not None:
            found.append(Cause(f"attribute:{name}", f"{_title(name)} is {value}", [_unknown(series, [name])]))
    scenario = series.profile["scenario_id"]
    unknown = _unknown(series, spec.scenario_attributes)
    unknown.profile["scenario_id"] = NO_SCENARIO
    found.append(Cause("scenario", f"It is in scenario {scenario}", [unknown]))
    return found + _of_plans(series, spec)


def panel_of(panel: Panel, copies: Sequence[tuple[int, Series]]) -> Panel:
    """Copies of series of a panel, each as if it alone were another: what its advertiser does elsewhere stays."""
    spec, place_X = panel.spec, np.array([n for n, _ in copies])
    performance_XTP = np.stack([copy.performance_TP for _, copy in copies])
    behavior_XTF = np.stack([copy.behavior_TF for _, copy in copies])
    future_XTC = np.stack([copy.future_TC for _, copy in copies])
    keys = pa.table(
        {name: pa.array([copy.profile[name] for _, copy in copies], pa.string()) for name in panel.keys.column_names}
    )
    own = (performance_XTP, behavior_XTF, panel.registered_N[place_X], keys, future_XTC)
    made = Panel.of_values(spec, panel.last_day, *own)
    tasks, first = len(spec.tasks), lead(spec)
    of_advertiser_ATM = panel.advertiser_total_YM[first:].reshape(-1, panel.days, tasks)
    elsewhere_XTM = of_advertiser_ATM[panel.advertiser_index_N[place_X]] - panel.daily_NTM[place_X].astype(np.float64)
    total_YM = np.zeros((first + len(copies) * panel.days, tasks), np.float32)
    total_YM[first:] = np.maximum(elsewhere_XTM, 0).reshape(-1, tasks) + made.daily_XM[first:]
    # Else the copies would be one advertiser's many series.
    vars(made).update(
        advertiser_index_N=np.arange(len(copies)), advertiser_total_YM=total_YM, begun_N=panel.begun_N[place_X]
    )
    return made


def series_of(panel: Panel, amounts: Amounts, n: int) -> Series:
    """One of the panel's series."""
    profile = {name: panel.keys[name][n].as_py() for name in panel.keys.column_names}
    blocks = (amounts.performance_NTP[n], amounts.behavior_NTF[n], amounts.future_NTC[n])
    return Series(*blocks, profile, max(0, int(panel.registered_N[n])))


def _of_performance(series: Series, metrics: Sequence[str]) -> list[Cause]:
    """The last days and the weeks before them: of every metric by itself; where nothing was achieved, of all."""
    block_TP, days, found = series.performance_TP, len(series.performance_TP), list[Cause]()
    above_TP = block_TP > 0
    idle = _idle(np.asarray(above_TP.any(1)))
    if idle >= RECENT_DAYS and (weeks := _weeks_before(days - idle, series.begun)):
        usual = block_TP[weeks[-1] : days - idle]
        amounts = ", ".join(f"{_named(name)} {amount(rate(usual[:, p]))}" for p, name in enumerate(metrics[:3]))
        words = f"Nothing in the last {idle} days ({amounts} a day in {_of_weeks(len(weeks))} before)"
        found.append(Cause("silence", words, [as_before(series, idle, week, slice(None)) for week in weeks]))
    for p, name in enumerate(metrics):
        recent = max(_idle(above_TP[:, p]), RECENT_DAYS)
        start = days - recent
        if not above_TP[:, p].any() or not (weeks := _weeks_before(start, series.begun)):
            continue
        now, then = (rate(part) for part in (block_TP[start:, p], block_TP[weeks[-1] : start, p]))
        before = f"{amount(then)} a day in {_of_weeks(len(weeks))} before"
        if idle < RECENT_DAYS:
            said = f"{_title(name)} {amount(now)} a day" if now else f"No {_named(name)}"
            copies = [as_before(series, recent, week, slice(p, p + 1)) for week in weeks]
            found.append(Cause(f"last_days:{name}", f"{said} in the last {recent} days ({before})", copies))
        words = f"{_title(name)} {before} the last {recent} days ({amount(now)} a day in these)"
        copy = series.copy()
        day_B = np.arange(series.begun, start)
        # Each day before as its weekday is now.
        copy.performance_TP[day_B, p] = block_TP[days - 7 + (day_B - days) % 7, p]
        found.append(Cause(f"weeks_before:{name}", words, [copy]))
    return found


def _of_behavior(series: Series, behaviors: Sequence[str]) -> list[Cause]:
    """Each behavior as if it had never been done. A day on which nothing else was done has a row only where such days
    have one."""
    found, done_TF = [], np.nan_to_num(series.behavior_TF)
    idle_rows = (~np.isnan(series.behavior_TF).all(1) & ~(done_TF > 0).any(1)).any()
    for f, name in enumerate(behaviors):
        done_T = done_TF[:, f]
        if not (done_T > 0).any():
            continue
        copy = series.copy()
        copy.behavior_TF[done_T > 0, f] = 0
        if not idle_rows:
            copy.behavior_TF[~(np.nan_to_num(copy.behavior_TF) > 0).any(1)] = np.nan
        recent, before = float(done_T[-7:].sum()), float(done_T[-35:-7].sum()) / 4
        words = f"{_title(name)} {amount(recent)} in the last 7 days ({amount(before)} a week in the 4 weeks before)"
        found.append(Cause(f"behavior:{name}", words, [copy]))
    return found


def _of_plans(series: Series, spec: SequenceSpec) -> list[Cause]:
    """Each plan as if none were known."""
    found = []
    for covariate in spec.known_future:
        columns = [c for c, plan in enumerate(spec.plans) if plan.covariate == covariate]
        if np.isnan(series.future_TC[-1, columns]).all():
            continue
        days, last = spec.plans[columns[-1]].days, columns[-1]
        copy = series.copy()
        copy.future_TC[-1, columns] = np.nan
        past = series.future_TC[-1 - days, last] if len(series.future_TC) > days else np.nan
        before = "" if np.isnan(past) else f" ({amount(past)} for the {days} before)"
        words = f"{_title(covariate.name)} {amount(series.future_TC[-1, last])} planned for the next {days} days"
        found.append(Cause(f"plan:{covariate.name}", words + before, [copy]))
    return found


def _unknown(series: Series, names: Sequence[str]) -> Series:
    copy = series.copy()
    copy.profile.update(dict.fromkeys(names))
    return copy


def _idle(above_T: Bools) -> int:
    """Days since the last one above 0; all of them where there is none."""
    return len(above_T) if not above_T.any() else int(above_T[::-1].argmax())


def _weeks_before(start: int, begun: int) -> list[int]:
    """The first days of the weeks before ``start`` that the series was there for, the newest first."""
    return [day for week in range(1, WEEKS_BEFORE + 1) if (day := start - 7 * week) >= begun]


def as_before(series: Series, recent: int, week: int, metrics: slice) -> Series:
    """The last days as a week before them was, weekday for weekday."""
    copy, start = series.copy(), len(series.performance_TP) - recent
    day_R = week + np.arange(recent) % 7
    copy.performance_TP[start:, metrics] = series.performance_TP[day_R, metrics]
    return copy


def rate(amount_T: Floats) -> float:
    """A day's mean; a day without a row is 0."""
    return float(np.nansum(amount_T)) / len(amount_T)


def moved(spec: SequenceSpec, target: Target, effect: float, rule: str | None = None) -> str:
    """An effect in words."""
    over = f" over {target.horizon_days} days" if len(spec.horizons_days) > 1 else ""
    by = f", by the rule {rule}" if rule else ""
    return f"{_named(target.name)}{over} {amount(abs(effect))} {'higher' if effect > 0 else 'lower'}{by}"


def amount(value: float) -> str:
    """A figure that a person reads: two or three digits that count."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.{3 if size >= 10 else 2}g}"


def _named(name: str) -> str:
    return name.replace("_", " ")


def _title(name: str) -> str:
    return _named(name)[:1].upper() + _named(name)[1:]


def _of_weeks(count: int) -> str:
    return "the week" if count == 1 else f"the {count} weeks"
