"""Stage: raw sources -> staged.performance_daily, behavior_daily, advertiser, scenario.

Reads the [[source]]s of pipeline.toml through the data set's own SQL, for one day (--date) and the [dataset]
late_days before it that were staged already, or for a range (--from/--to), in one pass. Writes those days of the
staged tables, each in one commit, after the checks; a day whose rows are the same stays as it is.
Fails (3) when a source is missing, unreadable or has lost a column; a value does not fit its type; a day is
empty or far below its usual volume; a key is null, empty, too long or double; a metric is null, negative, NaN
or infinite; a scenario is unknown. Nothing is published then. What the SQL dropped, merged or repaired is
counted in ops.validation.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import date, timedelta
from functools import partial

import polars as pl
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from pipelines import chain
from pipelines.cli import Run, day, exit_status, run_of, stage_parser
from pipelines.errors import ConfigError, DataError
from pipelines.quality import ledger
from pipelines.quality.publish import Draft, Target, publish
from pipelines.quality.rules import row_rules
from pipelines.sources.explain import days_found, explain_failure
from pipelines.sources.views import View, register_sources
from pipelines.spark import buckets, sql_files
from pipelines.spark.buckets import REPORT
from pipelines.spark.session import spark_session
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
        views = register_sources(spark, config, first, last)
        scenarios = None
        drafts = []
        if config.staging.scenario:
            drafts.append(_stage(run, spark, warehouse, "staged.scenario", config.staging.scenario, {}))
            scenarios = frozenset(
                row.scenario_id for row in spark.table("dataset_scenario").select("scenario_id").collect()
            )
        if config.staging.advertiser:
            drafts.append(_stage(run, spark, warehouse, "staged.advertiser", config.staging.advertiser, {}))
        if config.staging.behavior_daily:
            amounts = dict.fromkeys(config.behavior_names, "count")
            sql = config.staging.behavior_daily
            drafts.append(_stage(run, spark, warehouse, "staged.behavior_daily", sql, amounts, scenarios))
        amounts = {metric.name: str(metric.kind) for metric in config.performance}
        sql = config.staging.performance_daily
        performance = _stage(run, spark, warehouse, "staged.performance_daily", sql, amounts, scenarios)
        drafts.append(replace(performance, volume="critical" if daily else "warning"))
    except (PySparkException, Py4JJavaError) as error:
        reason = explain_failure(views, error)
        raise reason or error from error

    changed = {draft.table: restated(warehouse.files(draft.table, first, last), draft) for draft in drafts}
    noticed = [ledger.noticed(run, finding) for view in views for finding in view.findings]
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


def _stage(
    run: Run,
    spark: SparkSession,
    warehouse: Warehouse,
    name: str,
    sql: str,
    amounts: dict[str, str],
    scenarios: frozenset[str] | None = None,
) -> Draft:
    """Run the data set's SQL for one table, write its files by bucket and count what the checks need."""
    config = run.config
    daily = name in chain.STAGES[run.stage].daily
    short = name.removeprefix("staged.")
    own = sql_files.run_sql(spark, config.path.parent / sql, from_ds=run.first, to_ds=run.last)
    declared = warehouse.declared(name)
    made_here = {"bucket"} if daily else {"bucket", "ds"}
    missing = [column.name for column in declared.columns if column.name not in {*own.columns, *made_here}]
    if missing:
        raise ConfigError(f"{sql}: must return a column {', '.join(missing)}; it returns {', '.join(own.columns)}")
    own.createOrReplaceTempView(f"dataset_{short}")
    parameters: dict[str, int | date] = {} if short == "scenario" else {"buckets": config.dataset.buckets}
    if not daily:
        parameters["ds"] = run.last
    frame = sql_files.run_sql(spark, sql_files.SHARED / "staging" / f"{short}.sql", **parameters)
    rules = row_rules(
        config,
        declared.key,
        run.first if daily else run.last,
        run.last,
        amounts,
        scenarios,
        not_above=config.checks.not_above if short == "performance_daily" else (),
        null_scenario=short == "behavior_daily",
        attributes={"advertiser": config.attributes.advertiser, "scenario": config.attributes.scenario}.get(short, ()),
    )
    target = Target.of(run, warehouse, name, rules)
    report = buckets.map_frame(frame, config.dataset.buckets, partial(write_staged, target))
    days = days_between(run.first if daily else run.last, run.last)
    return Draft.counted(name, days, report, [rule.check for rule in rules])


def write_staged(target: Target, bucket: int, rows: pl.DataFrame) -> pl.DataFrame:
    """Kernel of one bucket: count the dirt, drop what the SQL marked, count for the checks, write a file a day.

    A bucket in which a critical rule is broken is not written: the run stops anyway.
    """
    if "dirt" not in rows.columns:
        rows = rows.with_columns(dirt=pl.lit(None, pl.String))
    if "source_rows" not in rows.columns:
        rows = rows.with_columns(source_rows=pl.lit(1))
    if "scenario_id" not in rows.columns:
        rows = rows.with_columns(scenario_id=pl.lit(None, pl.String))
    kept = rows.filter(pl.col("dirt").is_null() | ~pl.col("dirt").str.starts_with("drop:")).sort(
        *target.key, nulls_last=True
    )
    counted = target.count(bucket, kept)
    reports = [count_dirt(bucket, rows, target.key), counted]
    critical = [rule.check.counter for rule in target.rules if rule.check.severity == "critical"]
    if counted.filter(pl.col("counter").is_in(critical)).is_empty():
        for (ds,), part in kept.group_by("ds", maintain_order=True):
            reports.append(target.write(bucket, part, ds))
    return buckets.concat(reports)


def count_dirt(bucket: int, rows: pl.DataFrame, key: tuple[str, ...]) -> pl.DataFrame:
    """Source rows per day, scenario and dirt rule, as counters ``dirt:<action>:<rule>``."""
    shown = [pl.col(name).cast(pl.String).fill_null("null") for name in key if name != "ds"]
    return (
        rows.filter(pl.col("dirt").is_not_null())
        .group_by("ds", "scenario_id", "dirt")
        .agg(
            pl.sum("source_rows").cast(pl.Float64).alias("value"),
            pl.concat_str(shown, separator=", ").first().alias("example"),
        )
        .select(
            pl.lit(bucket, pl.Int32).alias("bucket"),
            "ds",
            "scenario_id",
            pl.format("dirt:{}", "dirt").alias("counter"),
            "value",
            "example",
        )
        .cast(REPORT)
    )


def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__doc__ or "")
    parser.add_argument("--from", dest="from_date", type=day, help="first day of a range (instead of --date)")
    parser.add_argument("--to", dest="to_date", type=day, help="last day of a range")
    arguments = parser.parse_args(argv)
    run = run_of("stage_sources", arguments)
    warehouse, daily = Warehouse(run.config), run.first == run.last
    if arguments.from_date is None and run.config.dataset.late_days:
        run = with_late_days(run, warehouse)
    with spark_session(run.config, run.run_id) as spark:
        stage_sources(run, spark, warehouse, daily)


if __name__ == "__main__":
    sys.exit(exit_status(main))
