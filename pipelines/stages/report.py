"""The work of `report`: pipelines/report.py says what it reads and writes, and when it fails.

Nothing that grows with advertisers is held: of their tables one bucket's columns at a time, reduced to sums and to the
first rows.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import reduce
from operator import or_

import polars as pl
import pyarrow as pa

from m2m_model.config import ACTIVE
from pipelines import chain
from pipelines.cli import Run, code_version, warn
from pipelines.config import Config
from pipelines.costs import CPU_S, METER, PEAK_MIB, WALL_S
from pipelines.life.daily import address, daily_run, log_page
from pipelines.life.registry import Registry
from pipelines.reports.checks import FOLDER as CHECKS
from pipelines.reports.checks import Kept
from pipelines.reports.daily import page
from pipelines.reports.day import Commit, Cost, Day, Measure, promoted_on, served_by
from pipelines.reports.forecasts import MOST
from pipelines.reports.page import Page, render
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.files import NO_DAY, DataFile, read_files
from pipelines.warehouse.pins import Pin, between, properties_of
from pipelines.warehouse.store import Folder
from pipelines.warehouse.tables import DECLARATIONS

FOLDER = "reports"  # below the data set's home
DAGS = ("advertiser_sequences", "advertiser_forecasts")
_WEEKS = 8  # of history beside the forecasts
_PAST_DAYS = 120  # at most so many are read
_QUALITY_DAYS = 70
_TURNOVER = "changed_ids new_advertisers freshness day_completeness attributes_known volume".split()
_TOGETHER = -1  # bucket of what is added up over buckets
_KEY = ("advertiser_id", "scenario_id")


def gather(run: Run, warehouse: Warehouse) -> Day:
    """All that the page tells, from the tables as they are now."""
    config, ds = run.config, run.ds
    units = {metric.name: metric.unit for metric in config.performance}
    measures = [
        Measure(
            task.name,
            "days" if task.aggregate == "days" else units.get(task.metric, ""),
            task.name == config.money_task,
        )
        for task in config.task
    ]
    lag = config.dataset.label_days
    day = Day(config.dataset.name, ds, str(config.path), config.dataset.horizons, measures, lag)
    pins = {name: warehouse.pin(name) for name in DECLARATIONS if chain.has(config, name)}
    commits, holes = published(config, pins, ds)
    checks = validated(pins[chain.LEDGER], ds, config.dataset.late_days)
    promotions = pins["ops.promotion"].scan().filter(pl.col("ds") <= ds)
    day = replace(
        day,
        commits=commits,
        holes=holes,
        stages=[stage.name for stage in chain.CHAIN if stage.tables and _shown(stage, commits)],
        sources=[source(pin, ds) for name, pin in pins.items() if name.startswith("staged.")],
        judged=[
            Kept(**row)
            for row in checks.filter(pl.col("run_id").str.contains(f"-{ds}-", literal=True)).iter_rows(named=True)
        ],
        turnover=turnover(checks),
        promotions=promotions,
        costs=list(costs(pins, {commit.stage: commit.run_id for commit in commits})),
    )
    pages = {result.run_id for result in day.judged if (config.home / CHECKS / f"{result.run_id}.html").is_file()}
    version = served_by(day)
    quality = pins["marts.forecast_quality"].scan(between(ds - timedelta(days=_QUALITY_DAYS + lag), ds))
    reasons = of_day(pins.get("marts.forecast_reason"), ds)
    risks = pins["marts.churn_risk"]
    at_risk, sums = leaving(risks.files(ds), risks.schema, max(day.horizons))
    return replace(
        day,
        checks_page={run_id: f"../{CHECKS}/{run_id}.html" for run_id in pages},
        totals=totals(pins["marts.forecast_total"], ds),
        past=past(config, pins["staged.performance_daily"], ds),
        movers=_longest(of_day(pins.get("marts.forecast_change"), ds), day),
        reasons=None if reasons is None else _longest(reasons.filter(pl.col("rank") <= 2), day),
        drifted=of_day(pins.get("ops.drift"), ds),
        at_risk=at_risk if risks.days(ds, ds) else None,
        at_risk_sum=sums,
        quality=quality.filter(scenario_id="*"),
        first_forecast=min(pins["marts.forecast_daily"].days(ds - timedelta(days=lag), ds), default=None),
        backtest=bars(pins["marts.backtest"], promoted_on(day, version), version),
    )


def _shown(stage: chain.Stage, commits: Iterable[Commit]) -> bool:
    """Those of every day; others only when they have run for it."""
    return stage.dag in DAGS or stage.name in {commit.stage for commit in commits}


def published(config: Config, pins: Mapping[str, Pin], ds: date) -> tuple[list[Commit], list[tuple[str, date, str]]]:
    """What the stages' newest runs wrote of the day, and the tables that have no such day though they should."""
    commits, holes = list[Commit](), list[tuple[str, date, str]]()
    for stage in chain.CHAIN:
        of_table = ds - timedelta(days=stage.lag(config))
        for table in (name for name in stage.tables if name in pins):
            pin = pins[table]
            rows = pin.days(of_table, of_table)
            writer = pin.writers().get(of_table) if rows or table.startswith("ops.") else None
            if writer is not None:
                said = {key.removeprefix("m2m."): value for key, value in properties_of(writer).items()}
                if stage.lag(config) == 0 or said.get("days", "").endswith(str(ds)):
                    at = datetime.fromtimestamp(writer.timestamp_ms / 1000, UTC)
                    size = int(said.get("added-files-size", 0))
                    found = Commit(
                        stage.name,
                        table,
                        of_table,
                        said.get("run-id", ""),
                        at,
                        writer.snapshot_id,
                        rows.get(of_table, 0),
                        size,
                        said,
                    )
                    commits.append(found)
            elif not rows and stage.dag in DAGS and table in stage.daily and _due(stage, pins, of_table):
                holes.append((table, of_table, stage.name))
    first = {hole[2]: hole for hole in reversed(holes)}
    return commits, [hole for hole in holes if first[hole[2]] is hole]  # a stage is named once


def _due(stage: chain.Stage, pins: Mapping[str, Pin], of_table: date) -> bool:
    """Whether the stage had something to do: what is judged later must have been forecast. A home of before has no
    table of explain's."""
    if stage.name in ("explain", "drift"):
        return any(pins[table].snapshot_id for table in stage.daily)
    return stage.name != "monitor" or bool(pins["marts.forecast_daily"].days(of_table, of_table))


def source(pin: Pin, ds: date) -> tuple[str, date | None, datetime | None]:
    """A staged table's newest day up to the date, and when it was published."""
    newest = max(pin.days(ds - timedelta(days=60), ds), default=None)
    writer = pin.writers().get(newest) if newest else None
    return pin.name, newest, datetime.fromtimestamp(writer.timestamp_ms / 1000, UTC) if writer else None


def validated(pin: Pin, ds: date, late_days: int) -> pl.DataFrame:
    """Verdicts on the last weeks; of rows without a day, those of the day's runs."""
    recent = pin.scan(between(ds - timedelta(days=max(7 * _WEEKS, late_days)), ds))
    lost = read_files([file for file in pin.files() if file.ds == NO_DAY], pin.schema)
    return pl.concat([recent, lost])


def turnover(checks: pl.DataFrame) -> pl.DataFrame:
    """What was found by the checks that compare a day with those before it: the last word of each day."""
    of_days = checks.filter(pl.col("check").is_in(_TURNOVER), pl.col("scenario").is_null(), pl.col("ds").is_not_null())
    return of_days.unique(["ds", "check", "column"], keep="last", maintain_order=True)


def totals(pin: Pin, ds: date) -> pl.DataFrame | None:
    """Of the platform and of scenarios."""
    files = [file for file in pin.files(ds) if file.bucket == _TOGETHER]
    return read_files(files, pin.schema).filter(pl.col("level").is_in(["platform", "scenario"])) if files else None


def past(config: Config, pin: Pin, ds: date) -> pl.DataFrame:
    """Of every task and scenario, each day's sum over advertisers, of the last weeks and one horizon before them."""
    days = min(7 * _WEEKS + config.dataset.horizon_days, _PAST_DAYS)
    names = list(config.metric_names)
    active = reduce(or_, [pl.col(name) > 0 for name in names])
    measured = []
    for task in config.task:
        above = active if task.metric == ACTIVE else pl.col(task.metric) > 0
        measured.append(
            (above.sum() if task.aggregate == "days" else pl.sum(task.metric)).cast(pl.Float64).alias(task.name)
        )
    used = sorted({*names} if any(t.metric == ACTIVE for t in config.task) else {t.metric for t in config.task})
    parts = [
        read_files([file], pin.schema, ["ds", "scenario_id", *used]).group_by("ds", "scenario_id").agg(measured)
        for file in pin.files(ds - timedelta(days=days - 1), ds)
    ]
    if not parts:
        return pl.DataFrame()
    return pl.concat(parts).group_by("ds", "scenario_id").agg(pl.sum(*(task.name for task in config.task)))


def of_day(pin: Pin | None, ds: date) -> pl.DataFrame | None:
    """A table of a few rows: movers, reasons."""
    return read_files(pin.files(ds), pin.schema) if pin is not None and ds in pin.days(ds, ds) else None


def _longest(rows: pl.DataFrame | None, day: Day) -> pl.DataFrame | None:
    return None if rows is None else rows.filter(horizon_days=max(day.horizons))


def leaving(
    files: Iterable[DataFile], schema: pa.Schema, horizon: int
) -> tuple[pl.DataFrame, tuple[int, float, float | None]]:
    """Those with most at risk; how many series there are, how many leave, and with how much."""
    columns = [*_KEY, "probability", "value_at_risk", "horizon_days"]
    first, series, leave, value, valued = read_files([], schema, columns), 0, 0.0, 0.0, False
    for file in files:
        rows = read_files([file], schema, columns).filter(pl.col("horizon_days").fill_null(horizon) == horizon)
        series, leave, value = (
            series + rows.height,
            leave + float(rows["probability"].sum()),
            value + float(rows["value_at_risk"].sum()),
        )
        valued = valued or rows["value_at_risk"].null_count() < rows.height
        order = [pl.col("value_at_risk").fill_null(0), pl.col("probability")]
        rows = rows.filter(pl.coalesce("value_at_risk", "probability") > 0)
        first = pl.concat([first, rows]).sort([*order, *_KEY], descending=[True, True, False, False]).head(MOST)
    return first, (series, leave, value if valued else None)


def bars(pin: Pin, as_of: date | None, version: str | None) -> pl.DataFrame | None:
    """The backtest by which the version that served became champion: its own rows and those of baselines."""
    if as_of is None or version is None:
        return None
    rows = pin.scan(between(as_of, as_of)).filter(pl.col("cutoff").is_null(), scenario_id="*")
    return rows.filter(pl.col("model_version").is_null() | (pl.col("model_version") == version))


def costs(pins: Mapping[str, Pin], runs: Mapping[str, str]) -> Iterator[Cost]:
    """Of each stage's run, what its commits say; beside it what such runs usually take."""
    for stage in (stage for stage in chain.CHAIN if stage.name in runs):
        own, written, others = dict[str, float](), 0, dict[str, float]()
        mine = next(said for said in _said(pins, stage) if said.get("m2m.run-id") == runs[stage.name])
        for said in _said(pins, stage):
            if said.get("m2m.run-id") == runs[stage.name]:
                written += int(said.get("added-files-size", 0))
                for name in (WALL_S, CPU_S, PEAK_MIB):
                    if f"m2m.{name}" in said:
                        own[name] = max(own.get(name, 0.0), float(said[f"m2m.{name}"]))
            elif f"m2m.{WALL_S}" in said and _length(said) == _length(mine):
                run_id = said.get("m2m.run-id", "")
                others[run_id] = max(others.get(run_id, 0.0), float(said[f"m2m.{WALL_S}"]))
        usual = statistics.median(others.values()) if len(others) > 2 else None
        yield Cost(stage.name, runs[stage.name], own.get(WALL_S), own.get(CPU_S), own.get(PEAK_MIB), written, usual)


def _said(pins: Mapping[str, Pin], stage: chain.Stage) -> Iterator[dict[str, str]]:
    """What all commits of a stage that are kept say of themselves."""
    for table in (name for name in stage.tables if name in pins):
        yield from (properties_of(snapshot) for snapshot in pins[table].snapshots())


def _length(said: Mapping[str, str]) -> int:
    first, _, last = said.get("m2m.days", "").partition("..")
    return (date.fromisoformat(last) - date.fromisoformat(first)).days if last else 0


def figures(day: Day) -> dict[tuple[str, ...], float]:
    """What MLflow draws over the days' runs."""
    found: dict[tuple[str, ...], float] = {
        ("forecasts",): sum(commit.rows for commit in day.commits if commit.table == "marts.forecast_daily"),
        ("warnings",): sum(not result.passed and result.severity == "warning" for result in day.judged),
        ("failed_checks",): sum(not result.passed and result.severity == "critical" for result in day.judged),
    }
    if day.totals is not None:
        for task, horizon, mean in (
            day.totals.filter(level="platform").select("task", "horizon_days", "mean").iter_rows()
        ):
            found["total", task, f"{horizon}d"] = mean
    for cost in day.costs:
        for name, value in (("wall_s", cost.wall_s), ("cpu_s", cost.cpu_s), ("peak_mib", cost.peak_mib)):
            if value is not None:
                found[name, cost.stage] = value
        found["written_bytes", cost.stage] = cost.written_bytes
    return found


def report(run: Run, warehouse: Warehouse) -> Page:
    """Gather, write, and keep the page in MLflow as well."""
    day, name = gather(run, warehouse), f"{run.ds}.html"
    folder = Folder(str(run.config.home / FOLDER))
    spent = METER.so_far()
    memory = f", {float(spent[PEAK_MIB]):,.0f} MiB" if PEAK_MIB in spent else ""
    foot = f"Made by {run.run_id} at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC in {float(spent[WALL_S]):.1f} s{memory}, "
    foot += f"code {code_version()}. Again: {day.command('report')}"
    made = page(replace(day, foot=foot))
    folder.write(name, render(made).encode())  # before MLflow is asked: it may not answer
    path = run.config.home / FOLDER / name
    try:
        registry = Registry(run.config)
        run_id = daily_run(registry, run.ds)
        made = replace(made, address=address(run.config, registry, run_id, name))
        folder.write(name, render(made).encode())
        log_page(registry, run_id, path, figures(day), int(datetime.now(UTC).timestamp() * 1000))
    except Exception as error:  # noqa: BLE001 - the page is there; MLflow keeps a copy
        warn(f"{path} was not logged to MLflow: {type(error).__name__}: {error}")
    run.say(made.verdict)
    run.say(f"report: {path}" + (f"; in MLflow: {made.address}" if made.address else ""))
    return made


def work(run: Run) -> None:
    report(run, Warehouse.existing(run.config, run.ds))
