"""The work of `build_sequences`: pipelines/build_sequences.py says what it reads and writes, and when it fails."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial

import polars as pl
import pyarrow as pa
from pyspark.sql import SparkSession

from pipelines import chain
from pipelines.cli import Run
from pipelines.config import Config
from pipelines.quality.publish import Draft, Target, publish
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
from pipelines.warehouse.sequences import SERIES, TABLE, WEEK_TABLE, history_start, week_days, week_ends

_EPOCH = date(1970, 1, 1)
_WEEK = "week:"
_OF_THE_PAST = ("ds", "bucket", "advertiser_id", "registered_on")  # of a profile, what is no attribute


@dataclass(frozen=True)
class Week:
    """One part of a week of one bucket: the file that is there already, or the staged files to make it from.

    ``made_from`` is the fingerprint of all that decides its rows. It names the file, so a restated day is noticed, and
    touches the buckets whose rows changed alone.
    """

    end: date
    made_from: str
    there: DataFile | None
    inputs: dict[str, list[DataFile]]


@dataclass(frozen=True)
class Build:
    """One build, as every bucket needs it. ``profiles`` are the newest ones by bucket; ``schemas`` those of the tables
    that are read."""

    ds: date
    first: date
    weeks: dict[int, list[Week]]
    profiles: dict[int, DataFile]
    scenarios: pl.DataFrame
    metrics: tuple[str, ...]
    behaviors: tuple[str, ...]
    schemas: dict[str, pa.Schema]
    week: Target
    series: Target


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
        schemas={name: reads.pin(name).schema for name in reads.tables},
        week=Target.of(run, warehouse, WEEK_TABLE, week_rules),
        series=Target.of(run, warehouse, TABLE, rules),
    )
    found = (
        buckets.map_buckets(spark, sorted(weeks), partial(build_bucket, job)) if weeks else pl.DataFrame(schema=REPORT)
    )
    report, week_report = buckets.split(found, _WEEK)
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


def build_bucket(job: Build, bucket: int) -> pl.DataFrame:
    """Kernel of one bucket: make the parts that are not there, then list the series of all of them."""
    weeks, schemas = job.weeks[bucket], job.schemas
    known = read_files((week.there for week in weeks if week.there), schemas[WEEK_TABLE], ["ds", *SERIES, "day"])
    parts, reports = [known], []
    for week in weeks:
        if week.there:
            continue
        staged = {name: read_files(files, schemas[name]) for name, files in week.inputs.items()}
        performance, behavior = staged["staged.performance_daily"], staged.get("staged.behavior_daily")
        rows = week_of(performance, behavior, job.metrics, job.behaviors)
        rows = rows.with_columns(ds=pl.lit(week.end), bucket=pl.lit(bucket, pl.Int32))
        counted = [job.week.count(bucket, rows), job.week.write(bucket, rows, week.end, week.made_from)]
        reports += [buckets.prefixed(_WEEK, part) for part in counted]
        parts.append(rows.select(known.columns))
    profile = [job.profiles[bucket]] if bucket in job.profiles else []
    profiles = read_files(profile, schemas["staged.advertiser"]) if "staged.advertiser" in schemas else None
    if profiles is not None and profile and profile[0].ds > job.ds:
        told_later = [name for name in profiles.columns if name not in _OF_THE_PAST]
        profiles = profiles.with_columns(pl.lit(None, pl.String).alias(name) for name in told_later)
    series = series_of(pl.concat(parts), job.first, profiles, job.scenarios)
    series = series.with_columns(ds=pl.lit(job.ds), bucket=pl.lit(bucket, pl.Int32))
    reports.append(job.series.count(bucket, series))
    if series.height:
        made_from = fingerprint(
            str(job.first),
            *(week.made_from for week in weeks),
            *(file.fingerprint for file in profile),
            job.scenarios.write_json(),
            *job.series.schema.names,
        )
        reports.append(job.series.write(bucket, series, job.ds, made_from))
    return buckets.concat(reports)


def week_of(
    performance: pl.DataFrame, behavior: pl.DataFrame | None, metrics: tuple[str, ...], behaviors: tuple[str, ...]
) -> pl.DataFrame:
    """Staged rows of some days -> one row per (advertiser, scenario), in that order, with its days as parallel lists.

    Behavior without a scenario stays a row without one: which scenarios it counts in is known when the history is put
    together.
    """
    day = pl.col("ds").cast(pl.Int32)

    def listed(rows: pl.DataFrame, name: str, values: tuple[str, ...]) -> pl.DataFrame:
        rows = rows.sort(*SERIES, "ds")
        return rows.group_by(SERIES, maintain_order=True).agg(day.alias(name), *values)

    acted = pl.DataFrame(
        schema=dict.fromkeys(SERIES, pl.String)
        | {"behavior_day": pl.List(pl.Int32)}
        | dict.fromkeys(behaviors, pl.List(pl.Float64))
    )
    if behavior is not None and behavior.height:
        acted = listed(behavior, "behavior_day", behaviors)
    rows = listed(performance, "day", metrics).join(acted, on=SERIES, how="full", coalesce=True, nulls_equal=True)
    lists = pl.col("day", *metrics, "behavior_day", *behaviors)
    return rows.with_columns(lists.fill_null([])).sort(SERIES, nulls_last=True)


def series_of(days: pl.DataFrame, first: date, advertiser: pl.DataFrame | None, scenario: pl.DataFrame) -> pl.DataFrame:
    """Every series with a performance row on ``first`` or later, in key order, with its attributes.

    ``registered_on`` is the profile's date or the first row's day, whichever is earlier.

    Args:
        days: rows (ds, advertiser_id, scenario_id, day) of features.sequence_week.
    """
    start = (first - _EPOCH).days
    days = days.filter(pl.col("day").list.len() > 0)
    # Only the oldest week can reach back before the history's first day.
    oldest = pl.col("ds") < first + timedelta(days=7)
    cut = days.filter(oldest).explode("day").filter(pl.col("day") >= start)
    rest = days.filter(~oldest).with_columns(pl.col("day").list.first())
    series = pl.concat([cut, rest]).group_by(SERIES).agg(pl.col("day").min()).sort(SERIES)
    series = series.with_columns(_first_row=pl.from_epoch("day", time_unit="d").cast(pl.Date)).drop("day")
    if advertiser is None:
        series = series.with_columns(registered_on=pl.lit(None, pl.Date))
    else:
        series = series.join(advertiser.drop("ds", "bucket"), on="advertiser_id", how="left", maintain_order="left")
    series = series.join(scenario, on="scenario_id", how="left", maintain_order="left")
    return series.with_columns(registered_on=pl.min_horizontal("registered_on", "_first_row")).drop("_first_row")


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
    return ["staged.performance_daily", *(["staged.behavior_daily"] if config.staging.behavior_daily else [])]


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
