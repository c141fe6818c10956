"""Rules of drift: each signal of a scenario's last days against the same scenario's eight weeks before them.

A signal is one figure a day. What is usual on a day is what it was on that weekday, shifted by how the last four weeks
were. How far it may be off is what it was off before, at least what chance alone does with so few rows, and at least an
effect that matters. One day says it alone where it is far off; else three together do. docs/drift.md has what was
measured of these rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Literal

import numpy as np
import polars as pl

from m2m_model.arrays import Bools, Floats
from pipelines.config import ALL_SCENARIOS

TABLE, EXPECTED = "ops.drift", "marts.forecast_expected"
Kind = Literal["share", "level", "count"]
Counts = Mapping[tuple[str, str | None], Floats]  # of pipelines.kernels.drift: (S, T) each

WEEKS, TOGETHER = 8, 3
BEFORE = 7 * WEEKS
LEAST_DAYS = 20  # with a figure, of the weeks before
EFFECT = {"share": 0.08, "level": 0.22, "count": 0.25}  # a count's beside itself, on the scale of its root
LEAST_ROWS = {"share": 20.0, "level": 5.0, "count": 1.0}  # a day, of the weeks before
FAR, OFF = 5.0, 3.2  # times the spread: a day alone, three together
CHANCE = 0.01  # of a scenario's silence: a day says it of one that had rows on every day before, else some running
MISSING = 0.1  # the same of all scenarios together: a day that is not there is told, a holiday too
# Times as wide: coverage and expected error move slowly, for the days that they are of overlap.
FORECASTS = {"share": 1.4, "level": 2.8, "count": 1.0}
UNITS = 4.0  # a level so many times what it was is in other units
NEW_SHARE, NEW_ROWS = 0.025, 3  # of the rows of three days, in a category that was not there a week before
BESIDE = " beside other metrics"
COVERAGE, EXPECTED_ERROR = "coverage", "expected error"  # signals of forecasts, one for each task
USUAL, DRIFT, CRITICAL, TOLD, IGNORED = "usual", "drift", "critical", "told", "ignored"
EARLY, FEW, NO_DAY = "too early", "too few rows", "no rows"


@dataclass(frozen=True)
class Signal:
    """One figure of a scenario for each day, NaN: none. ``value_T`` is a share, a mean log ratio or a count,
    ``weight_T`` how many rows it is of; ``days`` how many days a figure is of."""

    name: str
    kind: Kind
    value_T: Floats
    weight_T: Floats
    days: int = 1


@dataclass(frozen=True)
class Judged:
    """What a rule found, in figures as people read them: shares, ratios to what is usual, counts a day."""

    signal: str
    verdict: str
    words: str
    found: float | None = None
    usual: float | None = None
    low: float | None = None
    high: float | None = None


def of_day(scenarios: Sequence[str], counted: Counts, width: float = 1.0) -> Iterator[tuple[str, Judged]]:
    """The last day of each scenario, the last of which is all together; ``width`` times as wide as measured."""
    all_T = counted["rows", None][-1]
    if all_T[-1] == 0:
        yield ALL_SCENARIOS, silent(all_T, open_days(all_T), MISSING)
        return
    for scenario, name in enumerate(map(str, scenarios)):
        rows_T = counted["rows", None][scenario]
        yield name, silent(rows_T, all_T > 0)
        if rows_T[-1] > 0:
            judged = {signal.name: judge(signal, width) for signal in signals(counted, scenario)}
            for signal, found in judged.items():
                yield name, _its_own(found, judged.get(signal.removesuffix(BESIDE)))


def _its_own(found: Judged, level: Judged | None) -> Judged:
    """A metric that only stayed where it was while the others moved has not drifted itself."""
    if level is None or level is found or not found.found or not level.found:
        return found
    own = np.log(level.found) / np.log(found.found) if found.found != 1 else 1.0
    return found if own > 1 / 3 else replace(found, verdict=USUAL)


def signals(counted: Counts, scenario: int) -> Iterator[Signal]:
    """What is judged of a scenario."""
    of = {key: value_ST[scenario] for key, value_ST in counted.items()}
    rows_T = of["rows", None]
    here_T = np.where(rows_T > 0, 1.0, np.nan)

    def ratio(name: str, part_T: Floats, whole_T: Floats, kind: Kind = "share") -> Signal:
        value_T = np.divide(part_T, whole_T, out=np.full(len(part_T), np.nan), where=whole_T > 0)
        return Signal(name, kind, value_T * here_T, whole_T)

    levels = {
        name: ratio(f"level of {name}", value_T, of["known", name], "level")
        for (counter, name), value_T in of.items()
        if counter == "level" and (of["known", name] > 0).mean() > 0.5
    }
    yield ratio("absent advertisers", of["absent", None], of["regular", None])
    gone = ratio("gone advertisers", of["gone", None], of["regular", None])
    yield replace(gone, days=TOGETHER)
    new_T = np.convolve(of["new", None], np.ones(TOGETHER))[: len(rows_T)]
    yield Signal("new advertisers", "count", new_T * here_T, rows_T, TOGETHER)
    for (counter, name), value_T in of.items():
        if counter == "zeros":
            yield ratio(f"zeros of {name}", value_T, rows_T)
        elif counter == "level" and name in levels:
            own = levels[name]
            yield own
            if others := [level.value_T for metric, level in levels.items() if metric != name]:
                # A day that is good or bad for all of them says nothing of one.
                yield replace(own, name=f"{own.name}{BESIDE}", value_T=own.value_T - np.median(others, 0))
        elif counter == "acts":
            yield Signal(f"acts of {name}", "count", value_T * here_T, rows_T)


def silent(rows_T: Floats, open_T: Bools, most: float = CHANCE) -> Judged:
    """Nothing on the last days, where there should have been something.

    ``open_T``: days on which rows are to be expected, but for chance. How often a scenario has none by chance is what
    its weeks before say, and days without are none where that many running would be rarer than ``most``.
    """
    last = int(np.flatnonzero(rows_T)[-1]) + 1 if rows_T.any() else 0
    running, before_T = int(open_T[last:].sum()), open_T[:last]
    usual = float(np.median(rows_T[:last][before_T])) if before_T.any() else 0.0
    missed = float((rows_T[:last][before_T] == 0).sum())
    chance, found = (missed + 0.5) / (before_T.sum() + 1), float(rows_T[-1])
    figures = found, usual, 1.0
    if before_T.sum() < LEAST_DAYS:
        return Judged("rows", EARLY, "", *figures)
    if missed and chance**TOGETHER >= most:
        return Judged("rows", FEW, "", *figures)
    if found or not open_T[-1] or (missed and chance**running >= most):
        return Judged("rows", USUAL, f"rows: {found:,.0f}; usual are {usual:,.0f}", *figures)
    days = "today" if running == 1 else f"for {running} days"
    return Judged("rows", CRITICAL, f"rows: none {days}; usual are {usual:,.0f}", *figures)


def open_days(rows_T: Floats) -> Bools:
    """Days of those weekdays that mostly have rows."""
    found_T = np.zeros(len(rows_T), bool)
    for weekday in range(min(7, len(rows_T))):
        found_T[weekday::7] = (rows_T[weekday::7] > 0).mean() > 0.5
    return found_T


def judge(signal: Signal, width: float = 1.0) -> Judged:
    """The last day of a signal against the days before it."""
    kind, effect = signal.kind, EFFECT[signal.kind] * width
    value_T = _to_scale(kind, signal.value_T[-BEFORE - TOGETHER :])
    weight_T = signal.weight_T[-len(value_T) :]
    last = max(0, len(value_T) - TOGETHER)
    known_T = np.isfinite(value_T[:last])
    recent = np.flatnonzero(np.isfinite(value_T[last:])) + last
    if not len(recent) or recent[-1] != len(value_T) - 1:
        return Judged(signal.name, NO_DAY, "")
    if known_T.sum() < LEAST_DAYS:
        return Judged(signal.name, EARLY, "")
    of_T = signal.value_T[-len(value_T) :] if kind == "count" else weight_T
    if (np.mean if kind == "count" else np.median)(of_T[:last][known_T]) < LEAST_ROWS[kind]:
        return Judged(signal.name, FEW, "")
    usual_T = _weekdays(value_T, last)
    usual_T = usual_T + np.nanmedian((value_T - usual_T)[max(0, last - 28) : last])
    off_T, today = value_T - usual_T, len(value_T) - 1
    fewer = float(np.sqrt(max(1.0, np.median(weight_T[:last][known_T]) / max(weight_T[today], 1.0))))
    chance = _chance(kind, usual_T[today], weight_T[today])
    effect *= max(float(usual_T[today]), 1.0) if kind == "count" else 1.0
    far, least = (FAR, 1.6 * effect) if signal.days == 1 else (OFF, effect)
    limit = max(least, far * width * max(fewer * _spread(off_T[:last]), chance))
    if signal.days > 1 or abs(off_T[today]) > limit:
        return _said(signal, value_T[today], usual_T[today], limit, signal.days, abs(off_T[today]) > limit)
    limit = max(effect, OFF * width * max(fewer * _spread(_middles(off_T)[:last]), chance / np.sqrt(len(recent))))
    off, usual = float(np.median(off_T[recent])), float(np.median(usual_T[recent]))
    return _said(signal, usual + off, usual, limit, len(recent), len(recent) > 1 and abs(off) > limit)


def judge_forecasts(signal: Signal, width: float = 1.0) -> Judged:
    """The same of forecasts; a coverage that rises, or an expected error that falls, is no drift."""
    found = judge(signal, FORECASTS[signal.kind] * width)
    better = found.found is not None and (found.found > (found.usual or 0)) == (signal.kind == "share")
    return replace(found, verdict=USUAL) if better else found


def new_categories(then: pl.DataFrame, now: pl.DataFrame, width: float = 1.0) -> Iterator[tuple[str, Judged]]:
    """Of each attribute, how many of the rows of the last days are of values that no series had a week ago. ``then``,
    ``now``: attribute, scenario_id, category, rows."""
    new = now.join(then.select("attribute", "category").unique(), on=["attribute", "category"], how="anti")
    for attribute, name in now.select("attribute", "scenario_id").unique().sort(pl.all()).iter_rows():
        of = pl.col("attribute") == attribute, pl.col("scenario_id") == name
        rows, fresh = (
            float(now.filter(*of)["rows"].sum()),
            new.filter(*of).sort("rows", "category", descending=[True, False]),
        )
        count, limit = float(fresh["rows"].sum()), NEW_SHARE * width
        first = f', the first "{fresh["category"][0]}"' if fresh.height else ""
        words = f"new categories of {attribute}: {fresh.height}, {count / rows:.1%} of the rows{first}"
        verdict = DRIFT if count >= NEW_ROWS and count / rows > limit else USUAL
        yield name, Judged(f"new categories of {attribute}", verdict, words, count / rows, 0.0, 0.0, limit)


def in_doubt(rows: pl.DataFrame, ds: date) -> str:
    """Why the last days up to one are no ground for a decision, of rows of ``TABLE``; empty if they are one."""
    recent = rows.filter(pl.col("ds").is_between(ds - timedelta(days=TOGETHER - 1), ds), verdict=CRITICAL)
    if recent.is_empty():
        return ""
    last = recent.sort("ds", "scenario_id", "signal").row(-1, named=True)
    return f"the last days of {in_words(last['scenario_id'])} are in doubt: {last['words']} on {last['ds']}"


def doubted(rows: pl.DataFrame, of: pl.DataFrame, several: bool) -> pl.DataFrame:
    """Cells whose forecasts drifted on the last days, of rows of ``TABLE``: scenario_id, task, horizon_days, and
    ``doubt``, the newest of what was found, in words. ``of``: task and horizon_days."""
    tasks = of.select("task", "horizon_days").unique().rows()
    names = pl.DataFrame(
        [
            (of_task(kind, task, days, several), task, days)
            for task, days in tasks
            for kind in (COVERAGE, EXPECTED_ERROR)
        ],
        {"signal": pl.String, "task": pl.String, "horizon_days": pl.Int32},
        orient="row",
    )
    bad = rows.filter(pl.col("verdict").is_in([DRIFT, CRITICAL])).join(names, on="signal")
    cell = ["scenario_id", "task", "horizon_days"]
    newest = bad.sort("ds", "signal").unique(cell, keep="last", maintain_order=True)
    return newest.select(*cell, doubt=pl.format("{} on {}", "words", "ds"))


def of_task(signal: str, task: object, days: object, several: bool) -> str:
    """The name of a task's signal; ``several`` horizons are told apart."""
    return f"{signal} of {task_in_words(task, days, several)}"


def task_in_words(task: object, days: object, several: bool) -> str:
    """A task, with its horizon where there are several."""
    return f"{days}-day {task}" if several else str(task)


def in_words(scenario: str) -> str:
    """A scenario, or all of them."""
    return "all scenarios" if scenario == ALL_SCENARIOS else f"scenario {scenario}"


def _said(signal: Signal, found: float, usual: float, limit: float, days: int, is_drift: bool) -> Judged:
    kind = signal.kind
    if kind == "level":  # beside what is usual: to fall slowly is usual too
        found, usual = found - usual, 0.0
    figures = [float(_from_scale(kind, x)) for x in (found, usual, usual - limit, usual + limit)]
    text = {"share": "{:.1%}", "level": "{:.2f}", "count": "{:,.1f}"}[kind]
    unit = {"share": "", "level": " times what is usual", "count": " a day"}[kind]
    said, _, low, high = (text.format(figure) for figure in figures)
    over = "" if days == 1 else f" over {days} days"
    verdict = CRITICAL if kind == "level" and not 1 / UNITS < figures[0] < UNITS else DRIFT
    words = f"{signal.name}: {said}{unit}{over}; expected {low} .. {high}"
    return Judged(signal.name, verdict if is_drift else USUAL, words, *figures)


def _to_scale(kind: Kind, value_T: Floats) -> Floats:
    """Counts on a scale on which chance does the same at any size."""
    return 2 * np.sqrt(value_T + 3 / 8) if kind == "count" else np.array(value_T, np.float64)


def _from_scale(kind: Kind, value: float) -> float:
    if kind == "level":
        return float(np.exp(value))
    return max(0.0, (max(value, 0.0) / 2) ** 2 - 3 / 8) if kind == "count" else min(max(value, 0.0), 1.0)


def _weekdays(value_T: Floats, last: int) -> Floats:
    """What is usual on each day: the median of all days before, and of its weekday's distance to it, less the fewer."""
    middle, usual_T = np.nanmedian(value_T[:last]), np.empty_like(value_T)
    for weekday in range(7):
        own = value_T[weekday:last:7]
        own = own[np.isfinite(own)]
        apart = np.median(own) - middle if len(own) else 0.0
        usual_T[weekday::7] = middle + apart * len(own) / (len(own) + 1)
    return usual_T


def _chance(kind: Kind, usual: float, rows: float) -> float:
    """How far chance alone takes a figure of so many rows, at least; of levels the past alone tells."""
    share = min(max(usual, 0.02), 0.98)
    return {"count": 1.0, "level": 0.0, "share": float(np.sqrt(share * (1 - share) / max(rows, 1)))}[kind]


def _spread(off_T: Floats) -> float:
    """A standard deviation, by the median of distances."""
    known = off_T[np.isfinite(off_T)]
    return 1.4826 * float(np.median(np.abs(known))) if len(known) else 0.0


def _middles(off_T: Floats) -> Floats:
    """The median of each day and the two before it, as far as there are figures."""
    padded_T = np.concatenate([np.full(TOGETHER - 1, np.nan), off_T])
    window_TK = np.sort(np.lib.stride_tricks.sliding_window_view(padded_T, TOGETHER), axis=1)  # NaN come last
    known_T = np.isfinite(window_TK).sum(1)
    rows = np.arange(len(off_T))
    low_T, high_T = np.maximum(known_T - 1, 0) // 2, np.maximum(known_T // 2, 0)
    return np.asarray((window_TK[rows, low_T] + window_TK[rows, np.minimum(high_T, TOGETHER - 1)]) / 2)
