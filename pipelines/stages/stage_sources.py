"""The work of `stage_sources`: pipelines/stage_sources.py says what it reads and writes, and when it fails."""

from __future__ import annotations

import difflib
from dataclasses import asdict, replace
from datetime import date, timedelta
from functools import partial

import polars as pl
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from pipelines import chain
from pipelines.cli import Run
from pipelines.config import Config
from pipelines.errors import ConfigError, DataError
from pipelines.kernels.staged import MAX_RULES, MAX_SOURCE_ROWS, MISUSE, write_staged
from pipelines.kernels.target import Target
from pipelines.quality import ledger
from pipelines.quality.publish import Draft, publish
from pipelines.quality.rules import row_rules
from pipelines.quality.turnover import NEW_DAYS, Turnover, turnover_counters, turnover_rules
from pipelines.sources import origins
from pipelines.sources.explain import days_found, explain_failure
from pipelines.sources.files import Finding
from pipelines.sources.views import View, register_sources
from pipelines.spark import buckets
from pipelines.spark.returned import as_declared
from pipelines.spark.session import spark_session
from pipelines.spark.sql_files import SHARED, Query, read_query, run_sql
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.days import days_between, in_words
from pipelines.warehouse.files import DataFile
from pipelines.warehouse.pins import Reads


def stage_sources(run: Run, spark: SparkSession, warehouse: Warehouse, daily: bool) -> None:
    """Stage the days of ``run``; every table is checked before the first is committed. Nobody can wait for the rest of
    a day long past: its volume stops a ``daily`` run alone."""
    config, first, last = run.config, run.first, run.last
    reads = Reads(run.stage, warehouse)
    views: list[View] = []
    try:
        queries = own_queries(spark, config)
        views = register_sources(spark, config, first, last)
        returned = register_own_rows(run, spark, warehouse, queries)
        scenarios = None
        drafts = []
        if query := queries.get("staged.scenario"):
            drafts.append(_stage(run, spark, warehouse, "staged.scenario", query, views, {}))
            scenarios = known_scenarios(spark, query)
        if query := queries.get("staged.advertiser"):
            drafts.append(_stage(run, spark, warehouse, "staged.advertiser", query, views, {}))
        if query := queries.get("staged.behavior_daily"):
            amounts = dict.fromkeys(config.behavior_names, "count")
            drafts.append(_stage(run, spark, warehouse, "staged.behavior_daily", query, views, amounts, scenarios))
        if query := queries.get("staged.known_future"):
            amounts = {covariate.name: str(covariate.kind) for covariate in config.planned}
            drafts.append(_stage(run, spark, warehouse, "staged.known_future", query, views, amounts, scenarios))
        amounts = {metric.name: str(metric.kind) for metric in config.performance}
        query = queries["staged.performance_daily"]
        performance = _stage(run, spark, warehouse, "staged.performance_daily", query, views, amounts, scenarios)
        checks = [*performance.checks, *turnover_rules(config, daily)]
        drafts.append(replace(performance, checks=checks, volume="critical" if daily else "warning"))
    except (PySparkException, Py4JJavaError) as error:
        reason = explain_failure(views, error)
        raise reason or error from error

    changed = {draft.table: restated(warehouse.files(draft.table, first, last), draft) for draft in drafts}
    findings = [*returned, *(finding for view in views for finding in view.findings)]
    noticed = [ledger.noticed(run, finding) for finding in findings]
    try:
        publish(run, warehouse, reads, drafts, noticed)
    except DataError as error:
        empty = any("empty_day" in line for line in error.lines)
        raise DataError([*error.lines, *(days_found(views) if empty else ())]) from None
    for draft in drafts:
        counted = ", ".join(f"{rule} {count:,}" for rule, count in dirt(draft.report).items())
        run.say(f"{draft.table}: {draft.rows:,} rows of {first}..{last}" + (f"; dirt: {counted}" if counted else ""))
        if changed[draft.table]:
            run.say(f"{draft.table}: restated since: {changed[draft.table]}")


def dirt(report: pl.DataFrame) -> dict[str, int]:
    """Source rows per dirt rule, most first."""
    found = report.filter(pl.col("counter").str.starts_with("dirt:"))
    counts = found.group_by("counter").agg(pl.sum("value")).sort("value", descending=True)
    return {counter.removeprefix("dirt:"): int(value) for counter, value in counts.iter_rows()}


def restated(before: list[DataFile], draft: Draft) -> str:
    """Days of a daily table that were there with other rows, for people; empty if there is none."""
    if draft.table not in chain.STAGES["stage_sources"].daily:
        return ""
    there = {file.ds for file in before}
    old, new = ({(file.ds, file.bucket): file.fingerprint for file in files} for files in (before, draft.files))
    keys = {key for key in old.keys() | new.keys() if key[0] in there and old.get(key) != new.get(key)}
    if not keys:
        return ""
    days = {ds for ds, _ in keys}
    return f"{len(days)} of {len(there)} days: {in_words(days, 5)} ({len(keys)} of {len(old)} files)"


def with_late_days(run: Run, warehouse: Warehouse) -> Run:
    """A daily run, and the days just before it that were staged already: their rows may have come late."""
    oldest, first = run.first - timedelta(days=run.config.dataset.late_days), run.first
    staged = warehouse.days("staged.performance_daily", oldest, run.first)
    while first > oldest and first - timedelta(days=1) in staged:
        first -= timedelta(days=1)
    return replace(run, first=first)


def own_queries(spark: SparkSession, config: Config) -> dict[str, Query]:
    """The data set's own query of each staged table: parsed, and none of them run."""
    files = {f"staged.{name}": sql for name, sql in asdict(config.staging).items() if sql}
    return {name: read_query(spark, config.path.parent / sql, sql) for name, sql in files.items()}


def register_own_rows(run: Run, spark: SparkSession, warehouse: Warehouse, queries: dict[str, Query]) -> list[Finding]:
    """Register what each query returns as the view ``dataset_<table>``, its columns as the table declares them.

    Returns:
        Columns that a query returns and nobody declared.

    Raises:
        ConfigError: a query cannot be analysed, or returns other columns or types; nothing has been run then.
    """
    findings = []
    for name, query in queries.items():
        columns = {column.name: column.type for column in warehouse.declared(name).columns}
        made_here = ("bucket",) if name in chain.STAGES[run.stage].daily else ("bucket", "ds")
        declared = {column: kind for column, kind in columns.items() if column not in made_here}
        views = [source.name for source in run.config.source]
        frame = query.frame(spark, views, from_ds=run.first, to_ds=run.last)
        rows, others = as_declared(frame, query.name, declared, made_here)
        rows.createOrReplaceTempView(f"dataset_{name.removeprefix('staged.')}")
        findings += [
            Finding(
                query.name,
                "new_column",
                "only declared columns; it is ignored",
                1.0,
                f"{other} {frame.schema[other].dataType.simpleString()}",
                other,
            )
            for other in others
        ]
    return findings


def known_scenarios(spark: SparkSession, query: Query) -> frozenset[str]:
    """The scenarios that exist, where the data set lists them.

    Raises:
        ConfigError: one of them is null.
    """
    rows = spark.table("dataset_scenario")
    kept = rows.filter("dirt is null or dirt not like 'drop:%'") if "dirt" in rows.columns else rows
    listed = [row.scenario_id for row in kept.select("scenario_id").collect()]
    if nulls := listed.count(None):
        raise ConfigError(f"{query.name}: {nulls} of {len(listed)} rows have no scenario_id; leave them out")
    return frozenset(listed)


def _stage(
    run: Run,
    spark: SparkSession,
    warehouse: Warehouse,
    name: str,
    query: Query,
    views: list[View],
    amounts: dict[str, str],
    scenarios: frozenset[str] | None = None,
) -> Draft:
    """Run the data set's SQL for one table, write its files by bucket and count what the checks need."""
    config = run.config
    daily = name in chain.STAGES[run.stage].daily
    short = name.removeprefix("staged.")
    declared = warehouse.declared(name)
    parameters: dict[str, int | date] = {} if short == "scenario" else {"buckets": config.dataset.buckets}
    if not daily:
        parameters["ds"] = run.last
    frame = run_sql(spark, SHARED / "staging" / f"{short}.sql", **parameters)
    rules = row_rules(
        config,
        declared.key,
        run.first if daily else run.last,
        run.last,
        amounts,
        scenarios,
        not_above=config.checks.not_above if short == "performance_daily" else (),
        null_scenario=short in ("behavior_daily", "known_future"),
        attributes={"advertiser": config.attributes.advertiser, "scenario": config.attributes.scenario}.get(short, ()),
    )
    target = Target.of(run, warehouse, name, rules)
    turnover = turnover_of(run, warehouse) if short == "performance_daily" else None
    try:
        report = buckets.map_frame(frame, config.dataset.buckets, partial(write_staged, target, turnover=turnover))
    except (PySparkException, Py4JJavaError) as error:
        # Raw values first: the SQL only met them.
        raise explain_failure(views, error) or query.explain(spark, error) or error from None
    refuse_misuse(query, report)
    if turnover:
        report = with_turnover(run, spark, warehouse, turnover, report)
    days = days_between(run.first if daily else run.last, run.last)
    said = origins.kept(target.folder, origins.named(query.text, views))
    return replace(Draft.counted(name, days, report, [rule.check for rule in rules]), said=said)


def turnover_of(run: Run, warehouse: Warehouse) -> Turnover:
    """What is counted of who is new and who is gone, beside the days before the run's."""
    name = "staged.performance_daily"
    files = warehouse.files(name, run.first - timedelta(days=NEW_DAYS), run.first - timedelta(days=1))
    return Turnover.of(run.config, files, warehouse.arrow_schema(name), run.first, run.last)


def with_turnover(
    run: Run, spark: SparkSession, warehouse: Warehouse, turnover: Turnover, report: pl.DataFrame
) -> pl.DataFrame:
    """The report with the shares of new and gone advertisers; a bucket that got no row has lost all of its own."""
    silent = sorted(turnover.before.keys() - set(report["bucket"]))
    if silent:
        report = buckets.concat([report, buckets.map_buckets(spark, silent, turnover.count)])
    before = {file.ds for files in turnover.before.values() for file in files}
    written = set(report.filter(counter="rows")["ds"].drop_nulls())
    return turnover_counters(report, before | written, turnover.value, run.config.checks.new_max_ratio)


def refuse_misuse(query: Query, report: pl.DataFrame) -> None:
    """Stop where ``count_misuse`` found something.

    Raises:
        ConfigError: with the count, the first such row, and what the query should return.
    """
    expected = {
        "dirt": f"null, drop:<rule>, repair:<rule>, merge:<rule> (at most {MAX_RULES} rules)",
        "source_rows": f"a number, 0 or more (at most {MAX_SOURCE_ROWS:,})",
    }
    for column, wanted in expected.items():
        found = report.filter(counter=f"{MISUSE}{column}").sort("bucket")
        if found.height:
            value, _, row = found["example"][0].rpartition("\n")
            action, _, rule = value.partition(":")
            close = difflib.get_close_matches(action.strip().lower(), ("drop", "repair", "merge"), n=1)
            meant = f"{close[0]}:{rule.strip() or '<rule>'}" if close and column == "dirt" else value
            hint = f'; did you mean "{meant}"?' if meant != value else ""
            raise ConfigError(
                f"{query.name}: {column} of {found['value'].sum():.0f} rows is none of what it may be: {wanted}. "
                f'First: "{value}" of {row}{hint}'
            )


def work(run: Run, late: bool) -> None:
    """``late``: with the days before it that may have come late."""
    warehouse, daily = Warehouse(run.config), run.first == run.last
    if late and run.config.dataset.late_days:
        run = with_late_days(run, warehouse)
    with spark_session(run.config, run.run_id, run.stage) as spark:
        stage_sources(run, spark, warehouse, daily)
