"""Stage: staged tables -> features.sequence_week, features.advertiser_sequence as of --date.

Reads the last [history] keep_days of staged.performance_daily and behavior_daily, the newest profiles and
scenarios up to the date. Writes the parts of weeks whose staged rows are new or were restated, and the list of all
series of that history with their attributes; each table in one commit, after the checks.
Fails (3) when a day of that history was never staged, when the date itself is missing, or when the number of
series falls far below the last days'. Nothing is published then.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial

import polars as pl
import pyarrow as pa
from pyspark.sql import SparkSession

from pipelines.cli import Run, exit_status, run_of, stage_parser
from pipelines.config import Config
from pipelines.quality import ledger
from pipelines.quality.judge import Check
from pipelines.quality.rules import Rule, count_rows, critical_rules, day_counters, day_rules, repeated
from pipelines.spark import buckets
from pipelines.spark.buckets import REPORT
from pipelines.spark.session import spark_session
from pipelines.warehouse.commits import Warehouse, on_day
from pipelines.warehouse.days import days_between
from pipelines.warehouse.files import DataFile, fingerprint, read_files, write_file
from pipelines.warehouse.sequences import SERIES, TABLE, WEEK_TABLE, history_start, week_days, week_ends

_EPOCH = date(1970, 1, 1)
_WEEK = "week:"


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


def build_sequences(run: Run, spark: SparkSession, warehouse: Warehouse) -> None:
    """Build, check and commit the sequences as of ``run.ds``."""
    config, ds = run.config, run.ds
    first = history_start(config, ds)
    ends = week_ends(first, ds)
    weeks = plan_weeks(config, warehouse, ends)
    profiles = _profiles(config, warehouse, ds)
    week_rules, rules = rules_of_week(config), rules_of_series(ds)
    kernel = partial(
        build_bucket,
        ds=ds,
        first=first,
        weeks=weeks,
        profiles=profiles,
        scenarios=_scenarios(config, warehouse, ds),
        names=(config.metric_names, config.behavior_names),
        schemas={name: warehouse.arrow_schema(name) for name in (*_daily(config), *profiles, WEEK_TABLE, TABLE)},
        folders={name: warehouse.folder(name, run.run_id) for name in (WEEK_TABLE, TABLE)},
        rules=(week_rules, rules),
        keys=(warehouse.declared(WEEK_TABLE).key, warehouse.declared(TABLE).key),
    )
    found = buckets.map_buckets(spark, sorted(weeks), kernel) if weeks else pl.DataFrame(schema=REPORT)
    report, week_report = buckets.split(found, _WEEK)
    series = int(report.filter(counter="rows")["value"].sum())
    earlier = warehouse.days(TABLE, ds - timedelta(days=28), ds - timedelta(days=1))
    planned = warehouse.days("staged.performance_daily", week_days(ends[0])[0], ds)
    staged = {day: rows for day, rows in planned.items() if day >= first}
    report = buckets.concat(
        [report, _completeness(config, staged, first, ds), day_counters(earlier | {ds: series}, [ds])]
    )
    checks = [*(rule.check for rule in rules), *_history_checks(config), *day_rules(config, daily=True)]
    judged = {WEEK_TABLE: (week_report, [rule.check for rule in week_rules]), TABLE: (report, checks)}
    ledger.check(run, warehouse, judged)

    inputs: dict[str, int | str | None] = {name: warehouse.snapshot_id(name) for name in (*_daily(config), *profiles)}
    made = buckets.files_in(week_report)
    changed = _changed(warehouse, ends, weeks)
    if changed:
        there = [week.there for parts in weeks.values() for week in parts if week.there and week.end in changed]
        inputs[WEEK_TABLE] = warehouse.commit(WEEK_TABLE, changed, [*there, *made], run.lineage(**inputs))
    else:
        inputs[WEEK_TABLE] = warehouse.snapshot_id(WEEK_TABLE)
    warehouse.commit(TABLE, [ds], buckets.files_in(report), run.lineage(**inputs))
    parts = sum(map(len, weeks.values()))
    run.say(f"{TABLE}: {series:,} series from {first}..{ds} ({sum(staged.values()):,} rows)")
    run.say(f"{WEEK_TABLE}: {len(made):,} of {parts:,} parts made (week x bucket), the others were there")


def build_bucket(
    bucket: int,
    ds: date,
    first: date,
    weeks: dict[int, list[Week]],
    profiles: dict[str, dict[int, DataFile]],
    scenarios: pl.DataFrame,
    names: tuple[tuple[str, ...], tuple[str, ...]],
    schemas: dict[str, pa.Schema],
    folders: dict[str, str],
    rules: tuple[list[Rule], list[Rule]],
    keys: tuple[tuple[str, ...], tuple[str, ...]],
) -> pl.DataFrame:
    """Kernel of one bucket: make the parts that are not there, then list the series of all of them."""
    metrics, behaviors = names
    known = read_files(
        (week.there for week in weeks[bucket] if week.there), schemas[WEEK_TABLE], ["ds", *SERIES, "day"]
    )
    parts, reports = [known], []
    for week in weeks[bucket]:
        if week.there:
            continue
        staged = {name: read_files(files, schemas[name]) for name, files in week.inputs.items()}
        rows = week_of(staged["staged.performance_daily"], staged.get("staged.behavior_daily"), metrics, behaviors)
        rows = rows.with_columns(ds=pl.lit(week.end), bucket=pl.lit(bucket, pl.Int32))
        written = write_file(rows, schemas[WEEK_TABLE], folders[WEEK_TABLE], week.end, bucket, week.made_from)
        counted = [count_rows(bucket, rows, rules[0], keys[0]), buckets.file_row(written)]
        reports += [buckets.prefixed(_WEEK, part) for part in counted]
        parts.append(rows.select(known.columns))
    profile = {
        name: read_files([files[bucket]] if bucket in files else [], schemas[name]) for name, files in profiles.items()
    }
    series = series_of(pl.concat(parts), first, profile.get("staged.advertiser"), scenarios)
    series = series.with_columns(ds=pl.lit(ds), bucket=pl.lit(bucket, pl.Int32))
    reports.append(count_rows(bucket, series, rules[1], keys[1]))
    if series.height:
        made_from = fingerprint(
            str(first),
            *(week.made_from for week in weeks[bucket]),
            *(files[bucket].fingerprint for files in profiles.values() if bucket in files),
            scenarios.write_json(),
            *schemas[TABLE].names,
        )
        reports.append(buckets.file_row(write_file(series, schemas[TABLE], folders[TABLE], ds, bucket, made_from)))
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
    series = series.with_columns(first_row=pl.from_epoch("day", time_unit="d").cast(pl.Date)).drop("day")
    if advertiser is None:
        series = series.with_columns(registered_on=pl.lit(None, pl.Date))
    else:
        series = series.join(advertiser.drop("ds", "bucket"), on="advertiser_id", how="left", maintain_order="left")
    series = series.join(scenario, on="scenario_id", how="left", maintain_order="left")
    return series.with_columns(registered_on=pl.min_horizontal("registered_on", "first_row")).drop("first_row")


def plan_weeks(config: Config, warehouse: Warehouse, ends: list[date]) -> dict[int, list[Week]]:
    """The parts that make up the history, by bucket, oldest first; a part without a staged row does not exist."""
    end_of = {day: end for end in ends for day in week_days(end)}
    inputs: dict[tuple[int, date], dict[str, list[DataFile]]] = defaultdict(lambda: defaultdict(list))
    for name in _daily(config):
        for file in warehouse.files(name, min(end_of), ends[-1]):
            inputs[file.bucket, end_of[file.ds]][name].append(file)
    there = {file.identity: file for file in warehouse.files(WEEK_TABLE, ends[0], ends[-1])}
    columns = [column.name for column in warehouse.declared(WEEK_TABLE).columns]
    weeks: dict[int, list[Week]] = defaultdict(list)
    for (bucket, end), files in sorted(inputs.items(), key=lambda item: item[0]):
        of_files = (f"{name} {file.ds} {file.fingerprint}" for name in files for file in files[name])
        made_from = fingerprint(*columns, *of_files)
        # A bucket may have acted in a week in which nothing was achieved.
        of_table = {name: files.get(name, []) for name in _daily(config)}
        weeks[bucket].append(Week(end, made_from, there.get((end, bucket, made_from)), of_table))
    return dict(weeks)


def _changed(warehouse: Warehouse, ends: list[date], weeks: dict[int, list[Week]]) -> list[date]:
    """Partitions of features.sequence_week that are not yet what the staged rows make them."""
    wanted, stored = defaultdict(set), defaultdict(set)
    for bucket, parts in weeks.items():
        for week in parts:
            wanted[week.end].add((week.end, bucket, week.made_from))
    for file in warehouse.files(WEEK_TABLE, ends[0], ends[-1]):
        stored[file.ds].add(file.identity)
    return [end for end in ends if wanted[end] != stored[end]]


def rules_of_week(config: Config) -> list[Rule]:
    """What must hold for every part of a week, whatever it was built from."""
    days, last = pl.col("day"), pl.col("ds").cast(pl.Int32)
    monday = last - (last + 3) % 7  # 1970-01-01 was a Thursday
    # Day by day: differences of whole lists take six times as long.
    pairs = [(days.list.get(n, null_on_oob=True), days.list.get(n + 1, null_on_oob=True)) for n in range(6)]
    not_ascending = (days.list.len() > 7) | pl.any_horizontal(after <= before for before, after in pairs)
    broken = {
        "other_day": ("every day lies in its week", (days.list.max() > last) | (days.list.min() < monday)),
        "not_ascending": ("days ascend", not_ascending),
        "unequal_length": (
            "one value a day",
            pl.any_horizontal(pl.col(name).list.len() != days.list.len() for name in config.metric_names)
            | pl.any_horizontal(
                pl.lit(False),
                *(pl.col(name).list.len() != pl.col("behavior_day").list.len() for name in config.behavior_names),
            ),
        ),
        "duplicate_key": ("one row per (advertiser_id, scenario_id)", repeated(SERIES)),
    }
    return critical_rules(broken)


def rules_of_series(ds: date) -> list[Rule]:
    """What must hold for every series."""
    return critical_rules(
        {
            "registered_late": (f"registered_on not after {ds}", pl.col("registered_on") > ds),
            "duplicate_key": ("one row per (advertiser_id, scenario_id)", repeated(SERIES)),
        }
    )


def _history_checks(config: Config) -> list[Check]:
    severity = config.checks.severity
    return [
        Check(
            name="freshness",
            column=None,
            counter="days_late",
            max_value=0,
            severity=severity.get("freshness", "critical"),
            expected="performance_daily is staged up to the as-of date",
        ),
        Check(
            name="day_completeness",
            column=None,
            counter="missing_days",
            max_value=0,
            severity=severity.get("day_completeness", "critical"),
            expected="every day of the history was staged",
        ),
    ]


def _completeness(config: Config, staged: dict[date, int], first: date, ds: date) -> pl.DataFrame:
    """Counters of the history as a whole: days never staged, and how old the newest is."""
    missing = [day for day in days_between(first, ds) if day not in staged]
    late = (ds - max(staged, default=first - timedelta(days=1))).days
    mend = f"python -m pipelines.stage_sources --config {config.path} --from {{}} --to {{}}"
    example = f"{missing[0]}; stage it with: {mend.format(missing[0], missing[-1])}" if missing else None
    rows = [
        (None, ds, None, "missing_days", float(len(missing)), example),
        (None, ds, None, "days_late", float(late), f"newest staged day: {max(staged, default=None)}"),
    ]
    return pl.DataFrame(rows, schema=REPORT, orient="row")


def _daily(config: Config) -> list[str]:
    """The staged tables whose days make up the history."""
    return ["staged.performance_daily", *(["staged.behavior_daily"] if config.staging.behavior_daily else [])]


def _profiles(config: Config, warehouse: Warehouse, ds: date) -> dict[str, dict[int, DataFile]]:
    """The newest profiles up to the date: a file a bucket, if the data set has any."""
    if not config.staging.advertiser:
        return {}
    newest = _newest(warehouse, "staged.advertiser", ds)
    return {"staged.advertiser": {file.bucket: file for file in newest}}


def _scenarios(config: Config, warehouse: Warehouse, ds: date) -> pl.DataFrame:
    """Scenario attributes, a row per scenario; without scenario.sql there is none and nothing to join."""
    columns = ["scenario_id", *config.attributes.scenario]
    newest = _newest(warehouse, "staged.scenario", ds) if config.staging.scenario else []
    if not newest:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    return warehouse.scan("staged.scenario", on_day(newest[0].ds), tuple(columns))


def _newest(warehouse: Warehouse, name: str, ds: date) -> list[DataFile]:
    """Files of the newest day up to ``ds``, which is mostly itself: all days are planned only when it is not."""
    files = warehouse.files(name, ds) or warehouse.files(name, warehouse.config.dataset.first_day, ds)
    return [file for file in files if file.ds == files[-1].ds]


def main(argv: list[str] | None = None) -> None:
    run = run_of("build_sequences", stage_parser(__doc__ or "").parse_args(argv))
    warehouse = Warehouse(run.config)
    with spark_session(run.config, run.run_id) as spark:
        build_sequences(run, spark, warehouse)


if __name__ == "__main__":
    sys.exit(exit_status(main))
