"""Of a day's report: what is forecast, what moved, who may leave, how good it was, what drifts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta

import polars as pl

from pipelines.reading.terminal import plural
from pipelines.reports import svg
from pipelines.reports.day import Day, Measure
from pipelines.reports.page import Block, Flag, Folded, Note, Picture, Table, number, share

MOST = 20  # rows of a list
_MOST_SCENARIOS = 12
_RATIOS = (
    "changed_ids",
    "new_advertisers",
    "volume",
)  # of the checks that compare a day with those before; others count
CAUSES = {
    "by_restated": "restated history",
    "by_new_days": "new days",
    "by_model": "another model",
    "by_calibration": "calibration",
}


def platform(day: Day, measure: Measure, horizon: int) -> dict[str, float] | None:
    if day.totals is None:
        return None
    rows = day.totals.filter(level="platform", task=measure.name, horizon_days=horizon)
    return rows.row(0, named=True) if rows.height else None


def last_total(day: Day, measure: Measure, horizon: int, scenario: str | None = None) -> float | None:
    """What the last ``horizon`` days came to; None where one of them was never staged."""
    rows = rolled(day, measure, horizon, scenario)
    return rows[-1][1] if rows and rows[-1][0] == day.ds else None


def rolled(day: Day, measure: Measure, horizon: int, scenario: str | None = None) -> list[tuple[date, float]]:
    """Of each past day, the total of the ``horizon`` days up to it, where all of them were staged."""
    if day.past is None or measure.name not in day.past.columns:
        return []
    staged = set(day.past["ds"])
    rows = day.past if scenario is None else day.past.filter(scenario_id=scenario)
    by_day: dict[date, float] = dict(rows.group_by("ds").agg(pl.sum(measure.name)).iter_rows())
    found = []
    for end in sorted(staged):
        days = [end - timedelta(days=n) for n in range(horizon)]
        if staged.issuperset(days):
            found.append((end, sum(by_day.get(one, 0.0) for one in days)))
    return found


def totals(day: Day) -> list[Block]:
    if day.totals is None or day.totals.is_empty():
        return [Note("No totals of this day.", "warn", day.command("score"))]
    blocks: list[Block] = []
    main, longest = day.main, max(day.horizons)
    row = platform(day, main, longest)
    if row:
        levels = {name: row[name] for name in ("p05", "p25", "mean", "p75", "p95")}
        words = f"{main.name} of {longest} days, the platform: {main.words(row['mean'])} expected"
        drawn = svg.fan(rolled(day, main, longest), day.ds, longest, levels, words)
        told = (
            f"{main.name} of {plural(longest, 'day')} up to each day; of the next ones the mean, 50 % and 90 % of cases"
        )
        blocks.append(Picture(drawn, f"{told}{f', in {main.unit}' if main.unit else ''}"))
    head = ("Platform", "Days", "Expected", "90 % interval", "50 % interval", "The last as many", "Change")
    rows = []
    for measure in day.measures:
        for horizon in day.horizons:
            found = platform(day, measure, horizon)
            if found:
                before = last_total(day, measure, horizon)
                rows.append(
                    (
                        measure.name,
                        horizon,
                        measure.words(found["mean"]),
                        _between(found, "p05", "p95"),
                        _between(found, "p25", "p75"),
                        measure.words(before),
                        _change(found["mean"], before),
                    )
                )
    blocks.append(Table(head, rows))
    scenarios = day.totals.filter(level="scenario", task=main.name, horizon_days=longest).sort("mean", descending=True)
    shown = scenarios.head(_MOST_SCENARIOS)
    largest = float(shown["p95"].max() or 0) if shown.height else 0.0  # type: ignore[arg-type]
    of_scenarios: list[tuple[object, ...]] = []
    for one in shown.iter_rows(named=True):
        before = last_total(day, main, longest, one["value"])
        of_scenarios.append(
            (
                one["value"],
                one["series"],
                one["mean"],
                _between(one, "p05", "p95"),
                svg.span(one["p05"], one["mean"], one["p95"], largest),
                before,
                _change(one["mean"], before),
            )
        )
    rest = f"{scenarios.height - _MOST_SCENARIOS:,} smaller ones: m2m show marts.forecast_total --date {day.ds}"
    head = (
        f"Scenario, {main.name} of {longest} days",
        "Series",
        "Expected",
        "90 % interval",
        "",
        "The last as many",
        "Change",
    )
    return [*blocks, Table(head, of_scenarios, rest if scenarios.height > _MOST_SCENARIOS else "")]


def _between(row: Mapping[str, float], low: str, high: str) -> str:
    return f"{number(row[low])} to {number(row[high])}"


def _change(now: float, before: float | None) -> str | None:
    return share(now / before - 1, signed=True) if before else None


def _reason(day: Day, kind: str, row: Mapping[str, object]) -> str | None:
    """The words of the strongest causes."""
    if day.reasons is None:
        return None
    keys = {name: row[name] for name in ("advertiser_id", "scenario_id") if row.get(name) is not None}
    found = day.reasons.filter(kind=kind, **keys).sort("rank")
    if "task" in row:
        found = found.filter(task=row["task"])
    return "\n".join(found["words"].head(2)) or None


def movers(day: Day) -> list[Block]:
    if "explain" not in day.stages:
        return [Note("Not made by this version: it has no stage explain.")]
    if day.movers is None:
        return [Note(f"No explain run for {day.ds}.", "warn", day.command("explain"))]
    if day.movers.is_empty():
        return [Note("No forecast moved, or there is no earlier day to compare with.")]
    blocks: list[Block] = []
    for task in sorted(day.movers["task"].unique(), key=lambda task: (task != day.main.name, task)):
        rows = day.movers.filter(task=task).sort("rank")
        sums = rows.select(pl.sum(*CAUSES)).row(0, named=True)
        change = rows.select((pl.col("after") - pl.col("before")).sum()).item()
        words = ", ".join(f"{CAUSES[name]} {number(value)}" for name, value in sums.items() if value)
        against = rows["compared_with"][0]
        told = f"{task}, against the forecast of {against}: {plural(rows.height, 'mover')}, together {number(change)}"
        shown = [
            (
                row["advertiser_id"],
                row["scenario_id"],
                row["before"],
                row["after"],
                row["after"] - row["before"],
                _cause(row),
                _reason(day, "mover", row) or row.get("note"),
            )
            for row in rows.head(MOST // 2 if task != day.main.name else MOST).iter_rows(named=True)
        ]
        left = rows.height - len(shown)
        rest = f"{left:,} more: m2m show marts.forecast_change --date {day.ds}" if left else ""
        table = Table(("Advertiser", "Scenario", "Before", "Now", "Change", "Most by", "Why"), shown, rest)
        told = f"{told}: {words}."
        blocks += [Note(told), table] if task == day.main.name else [Folded(told, [table])]
    return blocks


def _cause(row: Mapping[str, float]) -> str:
    name = max(CAUSES, key=lambda cause: abs(row[cause] or 0))
    return f"{CAUSES[name]} ({number(row[name])})" if row[name] else "–"


def leaving(day: Day) -> list[Block]:
    if day.at_risk is None:
        return [Note("Nothing of this day.", "warn", day.command("score"))]
    series, leave, value = day.at_risk_sum
    if not series:
        return [Note("No task of this data set counts active days, so none tells who leaves.")]
    unit = f" {day.main.unit}".rstrip()
    words = f"Of {plural(series, 'series', 'series')} {number(round(leave))} are expected to have no active day in the "
    words += f"next {max(day.horizons)} days" + (
        f"; {number(value)}{unit} are at risk with them." if value is not None else "."
    )
    rows: list[tuple[object, ...]] = [
        (
            row["advertiser_id"],
            row["scenario_id"],
            share(row["probability"]),
            row["value_at_risk"],
            row["value_at_risk"] / row["probability"] if row["value_at_risk"] and row["probability"] else None,
            _reason(day, "at_risk", row),
        )
        for row in day.at_risk.iter_rows(named=True)
    ]
    head: tuple[str, ...] = (
        "Advertiser",
        "Scenario",
        "May leave",
        f"At risk,{unit}" if unit else "At risk",
        f"Expected {day.main.name}",
        "Why",
    )
    if day.reasons is None:
        head, rows = head[:-1], [row[:-1] for row in rows]
    rest = f"{series - len(rows):,} more: m2m show marts.churn_risk --date {day.ds}" if series > len(rows) else ""
    blocks: list[Block] = [Note(words), Table(head, rows, rest)]
    if day.reasons is None:
        hint = "Why: not made by this version." if "explain" not in day.stages else f"Why: no explain run for {day.ds}."
        blocks.append(Note(hint, "", day.command("explain") if "explain" in day.stages else ""))
    return blocks


def accuracy(day: Day) -> list[Block]:
    first = day.first_forecast
    if day.quality is None or day.quality.is_empty():
        when = f" The first forecasts, of {first}, mature on {first + timedelta(days=day.lag_days)}." if first else ""
        return [Note(f"No forecast has matured yet.{when}")]
    newest = max(day.quality["ds"])
    rows = []
    whole = day.quality.filter(ds=newest, scenario_id="*").sort("task", "horizon_days", "method")
    for row in whole.filter(method="*").iter_rows(named=True):
        horizon = row["horizon_days"] or max(day.horizons)
        own, baseline, name = _promised(day, row["task"], row["horizon_days"])
        off = row["coverage_90"] is not None and abs(row["coverage_90"] - 0.9) > 0.05
        cover = Flag(share(row["coverage_90"]), "warn" if off else "good")
        rows.append(
            (
                row["task"],
                horizon,
                row["n"],
                row["nmae"],
                own,
                baseline,
                name,
                share(row["bias"], signed=True),
                share(row["coverage_50"]),
                cover,
            )
        )
    head = (
        "Task",
        "Days",
        "Forecasts",
        "NMAE",
        "Its backtest",
        "Best baseline's",
        "which is",
        "Bias",
        "In 50 %",
        "In 90 %",
    )
    blocks: list[Block] = [
        Note(
            f"Forecasts as of {newest}, against what came. The backtest's figures are of the champion and of the best "
            "baseline, which would have served otherwise, at held-out cutoffs before its training."
        ),
        Table(head, rows),
    ]
    by_method = [
        (r["task"], r["horizon_days"] or max(day.horizons), r["method"], r["n"], r["nmae"], share(r["coverage_90"]))
        for r in whole.filter(pl.col("method") != "*").iter_rows(named=True)
    ]
    fold = Table(("Task", "Days", "Method", "Forecasts", "NMAE", "In 90 %"), by_method)
    return [*blocks, Folded("By method", [fold])]


def _promised(day: Day, task: str, horizon: int | None) -> tuple[float | None, float | None, str | None]:
    """NMAE in the champion's backtest: its own, the best baseline's, and who that is."""
    if day.backtest is None or day.backtest.is_empty():
        return None, None, None
    rows = day.backtest.filter(pl.col("task") == task, pl.col("horizon_days").eq_missing(pl.lit(horizon, pl.Int32)))
    own = rows.filter(pl.col("model_version").is_not_null()).head(1)["nmae"].to_list()
    others = rows.filter(pl.col("model_version").is_null()).drop_nulls("nmae").sort("nmae").head(1)
    return (own or [None])[0], *(others.select("nmae", "forecaster").row(0) if others.height else (None, None))


def drift(day: Day) -> list[Block]:
    blocks: list[Block] = [
        Note("The day beside the weeks before it, who is new, and how matured forecasts did over the last weeks.")
    ]
    if day.drifted is not None:
        bad = day.drifted.filter(pl.col("verdict").is_in(["critical", "drift"])).sort(
            "verdict", "scenario_id", "signal"
        )
        usual = day.drifted.filter(verdict="usual").height
        told = (
            f"{bad.height:,} of {bad.height + usual:,} signals have drifted; what to do: docs/operations.md#data-drift"
        )
        command = f"m2m show ops.drift --config {day.config} --date {day.ds}"
        blocks.append(Note(told, "warn", command) if bad.height else Note(f"None of {usual:,} signals has drifted."))
        rows = bad.select(pl.col("scenario_id").replace("*", "all"), "verdict", "words").head(MOST)
        if bad.height:
            left_out = f"{bad.height - MOST} more" if bad.height > MOST else ""
            blocks.append(Table(("Scenario", "How bad", "What"), list(rows.iter_rows()), left_out))
    if day.turnover is not None and day.turnover.height:
        for (check, column), rows in day.turnover.sort("ds").group_by("check", "column", maintain_order=True):
            points = [(ds, found) for ds, found in rows.select("ds", "found").iter_rows() if ds is not None]
            if len(points) > 1 and len({found for _, found in points}) > 1:
                words = f"{' '.join(filter(None, [check, column]))}: found each day; expected {rows['expected'][-1]}"
                drawn = svg.line(points[-56:], words, percent=check in _RATIOS)
                blocks.append(Picture(drawn, words, small=True))
    before = len(blocks)
    if day.quality is not None and day.quality.height:
        longest = day.quality.filter(method="*", scenario_id="*").sort("ds")
        for (task, horizon), rows in longest.group_by("task", "horizon_days", maintain_order=True):
            for figure, words, target in (
                ("nmae", "NMAE of matured forecasts", None),
                ("coverage_90", "share of what came within 90 % intervals", 0.9),
            ):
                points = [(ds, found) for ds, found in rows.drop_nulls(figure).select("ds", figure).iter_rows()]
                if len(points) > 1:
                    days = f" over {horizon} days" if horizon else ""
                    told = f"{task}{days}: {words}, by as-of date"
                    blocks.append(Picture(svg.line(points, told, target, percent=target is not None), told, small=True))
    if len(blocks) == 1:
        blocks.append(Note("There is one day of it, or none: nothing to draw yet."))
    elif len(blocks) == before:
        blocks.append(Note("No two days of forecasts have matured yet."))
    return blocks
