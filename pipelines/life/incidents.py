"""The work of `incidents`: pipelines/incidents.py says what it reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from statistics import median

import polars as pl

from pipelines import chain
from pipelines.cli import Run
from pipelines.config import ALL_SCENARIOS, Alerts
from pipelines.life.cells import CELL, newest
from pipelines.life.cells import TABLE as CELLS
from pipelines.life.cells import lines as why
from pipelines.life.champions import RegistryAwayError, looked_at, outside, to_mend
from pipelines.quality.drift import CRITICAL, DRIFT, in_words
from pipelines.reading.terminal import plural
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.pins import Pin, between, on_day, properties_of

SERVES, LEDGER, QUALITY, GATE = "marts.forecast_daily", chain.LEDGER, "marts.forecast_quality", "ops.promotion"
DATA = "ops.drift"
RECENT, BEFORE, LEAST = (
    7,
    28,
    14,
)  # matured days that are compared, with how many before them, and with how many at least
LOOK_BACK = timedelta(days=RECENT + BEFORE)


@dataclass(frozen=True)
class Incident:
    """One thing that somebody should know. ``cause`` tells two of them apart, whatever their day; one that is not
    ``lasting`` is over when it has happened. ``page`` of the console shows it."""

    cause: str
    title: str
    since: date
    command: str
    section: str
    page: str
    lines: list[str] = field(default_factory=list)
    lasting: bool = True


def found(run: Run, warehouse: Warehouse, dag: str | None = None) -> list[Incident]:
    """Everything as of the run's date, of the stages of one DAG or of all."""
    alerts, ds, ledger = run.config.alerts, run.ds, warehouse.pin(LEDGER)
    incidents = list[Incident]()
    if not newest_runs(ledger, ledger.scan(on_day(ds))).filter(severity="warning", passed=False).is_empty():
        past = ledger.scan(between(ds - LOOK_BACK, ds))  # many small files
        incidents += warnings(newest_runs(ledger, past), ds, dag)
    writers = {chain.writer(table): table for table in (SERVES, QUALITY, DATA, GATE)}
    ours = {table for stage, table in writers.items() if dag in (None, chain.STAGES[stage].dag)}
    decisions = warehouse.scan(GATE) if ours & {SERVES, GATE} else pl.DataFrame()
    if SERVES in ours:
        lineage = warehouse.lineage(SERVES)
        versions = {day: told.get(f"{chain.INPUT}{chain.MODEL}{chain.CHAMPION}") for day, told in lineage.items()}
        incidents += champion(versions, ds, decisions)
        incidents += moved_outside(run, warehouse)
        if (version := versions.get(ds)) and version != "None":
            incidents += fallen(newest(warehouse.pin(CELLS), version, before=ds + timedelta(days=1)))
    if QUALITY in ours:
        label = timedelta(days=run.config.dataset.label_days)
        rows = warehouse.scan(QUALITY, between(ds - label - LOOK_BACK, ds))
        incidents += drift(rows.filter(method="*", scenario_id=ALL_SCENARIOS), ds, alerts)
    if DATA in ours:
        incidents += drifted(warehouse.scan(DATA, between(ds - LOOK_BACK, ds)), ds)
    if GATE in ours:
        incidents += refusals(decisions, ds, alerts)
    return incidents


def first_of(lines: list[str], where: str) -> list[str]:
    """Some lines, and how many more there are, where."""
    return lines[:5] + ([f"... and {len(lines) - 5} more {where}"] if len(lines) > 5 else [])


def newest_runs(pin: Pin, results: pl.DataFrame) -> pl.DataFrame:
    """Of each day and stage the results of the run that committed last: a day that was run again is as it is now."""
    commits = ["", *(properties_of(snapshot).get("m2m.run-id", "") for snapshot in pin.snapshots())]
    order = {run_id: number for number, run_id in enumerate(commits)}  # its commit may have expired: then it is old
    ranked = results.with_columns(
        pl.col("run_id").replace_strict(order, default=-1, return_dtype=pl.Int64).alias("nth")
    )
    return ranked.filter(pl.col("nth") == pl.col("nth").max().over("ds", "stage")).drop("nth")


def warnings(results: pl.DataFrame, ds: date, dag: str | None) -> Iterator[Incident]:
    """Warnings of the day, one incident a rule, however many scenarios break it."""
    from pipelines.quality.judge import CheckResult, format_failure  # with pandas and pyspark, where there are some

    stages = [stage.name for stage in chain.CHAIN if stage.dag and dag in (None, stage.dag)]
    broken = results.filter(pl.col("stage").is_in(stages), severity="warning", passed=False).drop_nulls("ds")
    rule = ["stage", "table", "check", "column"]
    for (stage, table, check, column), of_rule in broken.sort(*rule, "scenario").group_by(rule, maintain_order=True):
        today = of_rule.filter(ds=ds)
        if today.is_empty():
            continue
        days = {*of_rule["ds"]}
        judged = sorted({*results.filter(stage=stage, table=table)["ds"].drop_nulls()}, reverse=True)
        passed = next((day for day in judged if day not in days), None)
        since = min(day for day in days if passed is None or day > passed)
        name = f"{check} {column}" if column else str(check)
        lines = [format_failure(CheckResult(**row)) for row in today.select(*CheckResult.__annotations__).to_dicts()]
        yield Incident(
            cause=f"{stage}: {table}: {name}",
            title=f"warning of {stage}: {table}: {name}",
            since=since,
            command=f"show {LEDGER}",
            section="exit-3-data",
            page="checks",
            lines=first_of(lines, f"like it in {LEDGER}"),
        )


def champion(versions: Mapping[date, str | None], ds: date, decisions: pl.DataFrame) -> Iterator[Incident]:
    """The baseline serves although there was a champion, or an older champion serves than the day before. ``versions``:
    of each day of forecasts, by its lineage."""
    known = {day: None if version == "None" else version for day, version in versions.items() if day <= ds}
    served = {day: version for day, version in known.items() if version and day < ds}
    until = max(served, default=None)
    if ds not in known:
        return
    if known[ds] is None:
        promoted = decisions.filter(pl.col("ds") <= ds, promoted=True).sort("decided_at")["challenger"]
        if until:
            said = f"version {served[until]} served until {until}"
        elif len(promoted):
            said = f"version {promoted[-1]} was promoted, and no forecast that is kept is by it"
        else:
            return
        yield Incident(
            cause="champion lost",
            title="the baseline serves, although there was a champion",
            since=min(day for day in known if until is None or day > until),
            command=f"show {GATE}",
            section="a-model-version-is-lost",
            page="models",
            lines=[f"{said}; the log of score says why"],
        )
    elif until and _number(known[ds]) < _number(served[until]):
        yield Incident(
            cause=f"rolled back to {known[ds]}",
            title=f"rolled back: champion {known[ds]} serves instead of {served[until]}",
            since=ds,
            command=f"show {GATE}",
            section="roll-back",
            page="models",
            lines=[f"forecasts of {until} are by version {served[until]}, those of {ds} by version {known[ds]}"],
            lasting=False,
        )


def moved_outside(run: Run, warehouse: Warehouse) -> Iterator[Incident]:
    """An alias names another version than the ledger tells."""
    try:
        ledger, named = looked_at(run.config, warehouse)
    except RegistryAwayError:  # whoever needs it has failed
        return
    if lines := outside(ledger, named):
        yield Incident(
            cause="alias moved outside the ledger",
            title="an alias of the model was moved outside the ledger",
            since=run.ds,
            command="status",
            section="roll-back",
            page="models",
            lines=[*lines, *(f"one of: {command}" for command in to_mend(run.config, ledger, named))],
        )


def fallen(serving: pl.DataFrame) -> Iterator[Incident]:
    """A baseline serves cells in the place of the champion. ``serving``: who serves each, of that version."""
    cells = serving.filter("falls_back").sort("since", *CELL)
    if cells.is_empty():
        return
    yield Incident(
        cause="cells fell back",
        title=f"a baseline serves {cells.height} of the champion's {plural(serving.height, 'cell')}",
        since=cells["since"][0],
        command=f"show {CELLS} --where falls_back",
        section="cells-that-a-baseline-serves",
        page="models",
        lines=first_of(why(cells), f"in {CELLS}"),
    )


def _number(version: str | None) -> int:
    return int(version) if version and version.isdecimal() else 0


def drift(quality: pl.DataFrame, ds: date, alerts: Alerts) -> Iterator[Incident]:
    """Matured forecasts of the last days are much worse than those of the weeks before, or their intervals too narrow.
    ``quality``: rows of all methods and scenarios together."""
    for (task, horizon), rows in quality.sort("task", "horizon_days", "ds").group_by(
        "task", "horizon_days", maintain_order=True
    ):
        past = rows.filter(pl.col("matured_on") <= ds)
        recent, before = past.tail(RECENT), past.head(-RECENT).tail(BEFORE)
        if recent.height < RECENT:
            continue
        error, usual = (median(part["nmae"].drop_nulls().to_list() or [0.0]) for part in (recent, before))
        covered = recent["coverage_90"].drop_nulls().to_list()
        said, of = [], f"{task} over {horizon} days"
        if before.height >= LEAST and usual and error > alerts.drift_ratio * usual:
            said.append(
                f"{of}: NMAE {error:.3f}, which is {error / usual:.2f} of the {usual:.3f} of the {before.height} days "
                f"before; expected at most {alerts.drift_ratio:g}"
            )
        if covered and median(covered) < alerts.min_coverage:
            least = f"expected at least {alerts.min_coverage:.0%}"
            said.append(f"{of}: {median(covered):.1%} of the actuals within their 90 % intervals; {least}")
        if said:
            yield Incident(
                cause=f"drift: {of}",
                title=f"drift: {of}, forecasts of {recent['ds'][0]}..{recent['ds'][-1]}",
                since=recent["ds"][0],
                command=f"show {QUALITY}",
                section="drift",
                page="accuracy",
                lines=said,
            )


def drifted(rows: pl.DataFrame, ds: date) -> Iterator[Incident]:
    """What drifted on the day by ``pipelines.quality.drift``, one incident a scenario, however many of its signals."""
    bad = rows.filter(pl.col("verdict").is_in([DRIFT, CRITICAL]))
    judged = sorted({*rows["ds"]}, reverse=True)
    today = bad.filter(ds=ds).sort("verdict", "signal")  # what is critical first
    for (name,), signals in today.group_by("scenario_id", maintain_order=True):
        days = {*bad.filter(scenario_id=name)["ds"]}
        quiet = next((day for day in judged if day not in days), None)
        words = signals["words"].to_list()
        yield Incident(
            cause=f"drift of data: {name}",
            title=f"drift in {in_words(str(name))}: {plural(len(words), 'signal')}",
            since=min(day for day in days if quiet is None or day > quiet),
            command=f"show {DATA} --date {ds}",
            section="data-drift",
            page="operations",
            lines=first_of(words, f"in {DATA}"),
        )


def refusals(decisions: pl.DataFrame, ds: date, alerts: Alerts) -> Iterator[Incident]:
    """The gate refused on the last so many days that it decided on."""
    by_gate_or_hand = pl.col("baseline").is_not_null() | pl.col("promoted")
    own = decisions.filter(pl.col("ds") <= ds, by_gate_or_hand, dry_run=False)
    last = own.sort("decided_at").unique("ds", keep="last", maintain_order=True).sort("ds")
    since_promotion = last.filter(pl.col("promoted").cast(int).cum_max(reverse=True) == 0)
    if since_promotion.height >= alerts.refusal_days:
        newest = since_promotion.row(-1, named=True)
        yield Incident(
            cause="gate refusals",
            title=f"the gate has refused {since_promotion.height} days running",
            since=since_promotion["ds"][0],
            command=f"show {GATE}",
            section="the-gate-refuses",
            page="models",
            lines=[f"version {newest['challenger']}: {newest['reason']}"],
        )


def work(run: Run, dag: str | None, layout: str) -> None:
    """Print them."""
    incidents = found(run, Warehouse.existing(run.config, run.ds), dag)
    where = f"--config {run.config.path}"
    if layout == "json":
        for incident in incidents:
            whole = asdict(incident) | {"command": f"python -m pipelines.{incident.command} {where}"}
            print(json.dumps(whole, default=str))
        return
    said = f"{len(incidents)} that somebody should know" if incidents else "nothing that somebody should know"
    print(f"{run.config.dataset.name} {run.ds}: {said}")
    for incident in incidents:
        print(f"\n{incident.title}; since {incident.since}")
        print(*(f"  | {line}" for line in incident.lines), sep="\n")
        print(f"  by hand: python -m pipelines.{incident.command} {where}")
        print(f"  what to do: docs/operations.md#{incident.section}")
