"""The work of `build_sequences`: pipelines/build_sequences.py says what it reads and writes, and when it fails."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import date
from functools import partial

import polars as pl
from pyspark.sql import SparkSession

from pipelines import chain
from pipelines.cli import Run
from pipelines.config import Config
from pipelines.kernels.sequences import WEEK, Build, Week, build_bucket
from pipelines.kernels.target import Target
from pipelines.quality.publish import Draft, publish
from pipelines.quality.sequences import (
    PROFILES,
    completeness,
    history_checks,
    late,
    rules_of_series,
    rules_of_week,
)
from pipelines.spark import buckets
from pipelines.spark.buckets import REPORT
from pipelines.spark.session import spark_session
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.files import DataFile, fingerprint, lost, read_files
from pipelines.warehouse.pins import Pin, Reads
from pipelines.warehouse.sequences import TABLE, WEEK_TABLE, history_start, week_days, week_ends


def build_sequences(run: Run, spark: SparkSession, warehouse: Warehouse) -> None:
    """Build, check and commit the sequences as of ``run.ds``."""
    config, ds = run.config, run.ds
    reads = Reads(run.stage, warehouse)
    first = history_start(config, ds)
    ends = week_ends(first, ds)
    stored = _there(reads.pin(WEEK_TABLE), ends)
    weeks = plan_weeks(config, reads, ends, stored)
    week_rules, rules = rules_of_week(config), rules_of_series(ds)
    job = Build(
        ds,
        first,
        weeks,
        profiles=_profiles(config, reads, ds),
        scenarios=_scenarios(config, reads, ds),
        metrics=config.metric_names,
        behaviors=config.behavior_names,
        plans=config.sequence_spec.listed_plans,
        schemas={name: reads.pin(name).schema for name in reads.tables},
        week=Target.of(run, warehouse, WEEK_TABLE, week_rules),
        series=Target.of(run, warehouse, TABLE, rules),
    )
    found = (
        buckets.map_buckets(spark, sorted(weeks), partial(build_bucket, job)) if weeks else pl.DataFrame(schema=REPORT)
    )
    report, week_report = buckets.split(found, WEEK)
    planned = reads.pin("staged.performance_daily").days(week_days(ends[0])[0], ds)
    staged = {day: rows for day, rows in planned.items() if day >= first}
    series = int(report.filter(counter="rows")["value"].sum())
    newest = {name: _newest(config, reads, name, ds) for name in PROFILES if name in reads.tables}
    told = {name: files[0].ds if files else None for name, files in newest.items()}
    report = buckets.concat([report, completeness(config, staged, first, ds), late(config, told, ds, series)])
    checks = [*(rule.check for rule in rules), *history_checks(config)]
    sequences = Draft.counted(TABLE, [ds], report, checks, volume="critical")
    parts = Draft.counted(WEEK_TABLE, _changed(ends, weeks, stored), week_report, [rule.check for rule in week_rules])
    there = [week.there for of_bucket in weeks.values() for week in of_bucket if week.there and week.end in parts.days]
    drafts = [replace(parts, files=[*there, *parts.files]), sequences] if parts.days else [sequences]
    publish(run, warehouse, reads, drafts)
    run.say(f"{TABLE}: {sequences.rows:,} series from {first}..{ds} ({sum(staged.values()):,} rows)")
    count = sum(map(len, weeks.values()))
    run.say(f"{WEEK_TABLE}: {len(parts.files):,} of {count:,} parts made (week x bucket), the others were there")


def plan_weeks(config: Config, reads: Reads, ends: list[date], stored: list[DataFile]) -> dict[int, list[Week]]:
    """The parts that make up the history, by bucket, oldest first; a part without a staged row does not exist. Those
    that are ``stored`` already are not made again."""
    end_of = {day: end for end in ends for day in week_days(end)}
    inputs: dict[tuple[int, date], dict[str, list[DataFile]]] = defaultdict(lambda: defaultdict(list))
    for name in _daily(config):
        for file in reads.pin(name).files(min(end_of), ends[-1]):
            inputs[file.bucket, end_of[file.ds]][name].append(file)
    columns = reads.pin(WEEK_TABLE).schema.names
    there = {file.identity: file for file in stored}
    weeks: dict[int, list[Week]] = defaultdict(list)
    for (bucket, end), files in sorted(inputs.items(), key=lambda item: item[0]):
        of_files = (f"{name} {file.ds} {file.fingerprint}" for name in files for file in files[name])
        made_from = fingerprint(*columns, *of_files)
        # A bucket may have acted in a week in which nothing was achieved.
        of_table = {name: files.get(name, []) for name in _daily(config)}
        weeks[bucket].append(Week(end, made_from, there.get((end, bucket, made_from)), of_table))
    return dict(weeks)


def _there(weeks: Pin, ends: list[date]) -> list[DataFile]:
    """The files of the parts; one that is lost is made again."""
    files = weeks.files(ends[0], ends[-1])
    gone = lost(files)
    return [file for file in files if file.path not in gone]


def _changed(ends: list[date], weeks: dict[int, list[Week]], stored: list[DataFile]) -> list[date]:
    """Partitions of features.sequence_week that are not yet what the staged rows make them."""
    wanted, found = defaultdict(set), defaultdict(set)
    for bucket, parts in weeks.items():
        for week in parts:
            wanted[week.end].add((week.end, bucket, week.made_from))
    for file in stored:
        found[file.ds].add(file.identity)
    return [end for end in ends if wanted[end] != found[end]]


def _daily(config: Config) -> list[str]:
    """The staged tables whose days make up the history."""
    further = ("staged.behavior_daily", "staged.known_future")
    return ["staged.performance_daily", *(name for name in further if chain.has(config, name))]


def _profiles(config: Config, reads: Reads, ds: date) -> dict[int, DataFile]:
    """The newest profiles up to the date: a file a bucket, if the data set has any. See ``late``."""
    return {file.bucket: file for file in _newest(config, reads, "staged.advertiser", ds)}


def _scenarios(config: Config, reads: Reads, ds: date) -> pl.DataFrame:
    """Scenario attributes as known on the date, a row per scenario; where none are known there is nothing to join."""
    columns = ["scenario_id", *config.attributes.scenario]
    newest = _newest(config, reads, "staged.scenario", ds)
    if not newest or newest[0].ds > ds:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    return read_files(newest, reads.pin("staged.scenario").schema, columns)


def _newest(config: Config, reads: Reads, name: str, ds: date) -> list[DataFile]:
    """Files of the day of a table that counts for ``ds``, which is mostly itself: others are planned only when it is
    not."""
    if name not in reads.tables:
        return []
    pin = reads.pin(name)
    files = pin.files(ds) or pin.files(config.dataset.first_day, ds) or pin.files()
    days = chain.NEWEST.of(config, ds, {file.ds for file in files})
    return [file for file in files if file.ds in days]


def work(run: Run) -> None:
    warehouse = Warehouse.existing(run.config, run.ds)
    with spark_session(run.config, run.run_id, run.stage) as spark:
        build_sequences(run, spark, warehouse)
