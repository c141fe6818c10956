"""Stage: staged tables -> features.advertiser_sequence, one row per advertiser and scenario as of --date.

Reads the last [history] keep_days of staged.performance_daily and behavior_daily, the newest profiles and
scenarios up to the date. Writes the date's partition of features.advertiser_sequence in one commit, after the
checks.
Fails (3) when a day of that history was never staged, when the date itself is missing, or when the number of
series falls far below the last days'. Nothing is published then.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from datetime import date, timedelta
from functools import partial

import polars as pl
import pyarrow as pa
from pyspark.sql import SparkSession

from pipelines import buckets, validation
from pipelines.buckets import REPORT
from pipelines.checks import Rule, count_rows, day_counters, day_rules
from pipelines.cli import Run, exit_status, run_of, stage_parser
from pipelines.config import Config
from pipelines.expectations import Check
from pipelines.session import spark_session
from pipelines.warehouse import DataFile, Warehouse, days_between, on_day, read_files, write_file

TABLE = "features.advertiser_sequence"
_SERIES = ["advertiser_id", "scenario_id"]
_EPOCH = date(1970, 1, 1)


def build_sequences(run: Run, spark: SparkSession, warehouse: Warehouse) -> None:
    """Build, check and commit the sequences as of ``run.ds``."""
    config, ds = run.config, run.ds
    first = max(config.dataset.first_day, ds - timedelta(days=config.history.keep_days - 1))
    inputs = _plan(config, warehouse, first, ds)
    declared = warehouse.declared(TABLE)
    rules = sequence_rules(config, ds)
    kernel = partial(
        build_bucket,
        ds=ds,
        metrics=config.metric_names,
        behaviors=config.behavior_names,
        inputs=inputs,
        scenarios=_scenarios(config, warehouse, ds),
        schemas={name: warehouse.arrow_schema(name) for name in inputs},
        schema=warehouse.arrow_schema(TABLE),
        folder=warehouse.folder(TABLE, run.run_id),
        rules=rules,
        key=declared.key,
    )
    used = sorted({bucket for files in inputs.values() for bucket in files})
    report = buckets.map_buckets(spark, used, kernel) if used else pl.DataFrame(schema=REPORT)
    series = int(report.filter(counter="rows")["value"].sum())
    earlier = warehouse.days(TABLE, ds - timedelta(days=28), ds - timedelta(days=1))
    staged = warehouse.days("staged.performance_daily", first, ds)
    report = buckets.concat(
        [report, _completeness(config, staged, first, ds), day_counters(earlier | {ds: series}, [ds])]
    )
    checks = [*(rule.check for rule in rules), *_history_checks(config), *day_rules(config, daily=True)]
    validation.record(run, warehouse, validation.judge(run, TABLE, report, checks))
    lineage = run.lineage(**{name: warehouse.snapshot_id(name) for name in inputs})
    warehouse.commit(TABLE, ds, ds, buckets.files_in(report), lineage)
    run.say(f"{TABLE}: {series:,} series from {first}..{ds} ({sum(staged.values()):,} rows)")


def build_bucket(
    bucket: int,
    ds: date,
    metrics: tuple[str, ...],
    behaviors: tuple[str, ...],
    inputs: dict[str, dict[int, list[DataFile]]],
    scenarios: pl.DataFrame,
    schemas: dict[str, pa.Schema],
    schema: pa.Schema,
    folder: str,
    rules: list[Rule],
    key: tuple[str, ...],
) -> pl.DataFrame:
    """Kernel of one bucket: read its days, build its sequences, write one file."""
    frames = {name: read_files(files.get(bucket, []), schemas[name]) for name, files in inputs.items()}
    sequences = sequences_of(
        frames["staged.performance_daily"],
        frames.get("staged.behavior_daily"),
        frames.get("staged.advertiser"),
        scenarios,
        metrics,
        behaviors,
    ).with_columns(ds=pl.lit(ds), bucket=pl.lit(bucket, pl.Int32))
    reports = [count_rows(bucket, sequences, rules, key)]
    if sequences.height:
        reports.append(buckets.file_row(write_file(sequences, schema, folder, ds, bucket)))
    return buckets.concat(reports)


def sequences_of(
    performance: pl.DataFrame,
    behavior: pl.DataFrame | None,
    advertiser: pl.DataFrame | None,
    scenario: pl.DataFrame,
    metrics: tuple[str, ...],
    behaviors: tuple[str, ...],
) -> pl.DataFrame:
    """One row per (advertiser, scenario), in that order, with its history as parallel lists (no Spark, no date filter).

    A behavior row without a scenario counts for every scenario of its advertiser. ``registered_on`` is the profile's
    date or the first row's day, whichever is earlier.
    """
    day = pl.col("ds").cast(pl.Int32)
    series = (
        performance.sort(*_SERIES, "ds")
        .group_by(_SERIES, maintain_order=True)
        .agg(pl.col("ds").min().alias("first_row"), day.alias("day"), *metrics)
    )
    if behavior is not None and behavior.height:
        own = behavior.filter(pl.col("scenario_id").is_not_null())
        shared = behavior.filter(pl.col("scenario_id").is_null()).drop("scenario_id")
        everywhere = shared.join(series.select(_SERIES), on="advertiser_id").select(own.columns)
        lists = (
            pl.concat([own, everywhere])
            .group_by(*_SERIES, "ds")
            .agg(pl.sum(*behaviors))
            .sort(*_SERIES, "ds")
            .group_by(_SERIES, maintain_order=True)
            .agg(day.alias("behavior_day"), *behaviors)
        )
        series = series.join(lists, on=_SERIES, how="left", maintain_order="left")
    else:
        series = series.with_columns(
            pl.lit(None, pl.List(pl.Int32)).alias("behavior_day"),
            *(pl.lit(None, pl.List(pl.Float64)).alias(name) for name in behaviors),
        )
    series = series.with_columns(pl.col("behavior_day", *behaviors).fill_null([]))
    if advertiser is None:
        series = series.with_columns(registered_on=pl.lit(None, pl.Date))
    else:
        series = series.join(advertiser.drop("ds", "bucket"), on="advertiser_id", how="left", maintain_order="left")
    series = series.join(scenario, on="scenario_id", how="left", maintain_order="left")
    return series.with_columns(registered_on=pl.min_horizontal("registered_on", "first_row")).drop("first_row")


def sequence_rules(config: Config, ds: date) -> list[Rule]:
    """What must hold for every sequence, whatever it was built from."""
    days, last = pl.col("day"), (ds - _EPOCH).days
    broken = {
        "future_day": (f"no day after {ds}", days.list.max() > last),
        "not_ascending": ("days ascend", days.list.diff(null_behavior="drop").list.min() <= 0),
        "unequal_length": (
            "one value a day",
            pl.any_horizontal(pl.col(name).list.len() != days.list.len() for name in config.metric_names)
            | pl.any_horizontal(
                pl.lit(False),
                *(pl.col(name).list.len() != pl.col("behavior_day").list.len() for name in config.behavior_names),
            ),
        ),
        "registered_late": (
            "registered_on not after the first row",
            pl.col("registered_on").cast(pl.Int32) > days.list.min(),
        ),
        "duplicate_key": ("one row per (advertiser_id, scenario_id)", ~pl.struct(*_SERIES).is_first_distinct()),
    }
    return [
        Rule(
            Check(name=name, column=None, counter=name, max_value=0, severity="critical", expected=expected),
            mask.fill_null(False),
        )
        for name, (expected, mask) in broken.items()
    ]


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


def _plan(config: Config, warehouse: Warehouse, first: date, ds: date) -> dict[str, dict[int, list[DataFile]]]:
    """Files of every input table by bucket."""
    inputs = {"staged.performance_daily": warehouse.files("staged.performance_daily", first, ds)}
    if config.staging.behavior_daily:
        inputs["staged.behavior_daily"] = warehouse.files("staged.behavior_daily", first, ds)
    if config.staging.advertiser:
        inputs["staged.advertiser"] = _newest(warehouse.files("staged.advertiser", config.dataset.first_day, ds))
    planned: dict[str, dict[int, list[DataFile]]] = {name: defaultdict(list) for name in inputs}
    for name, files in inputs.items():
        for file in files:
            planned[name][file.bucket].append(file)
    return planned


def _scenarios(config: Config, warehouse: Warehouse, ds: date) -> pl.DataFrame:
    """Scenario attributes, a row per scenario; without scenario.sql there is none and nothing to join."""
    columns = ["scenario_id", *config.attributes.scenario]
    newest = (
        _newest(warehouse.files("staged.scenario", config.dataset.first_day, ds)) if config.staging.scenario else []
    )
    if not newest:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    return warehouse.scan("staged.scenario", on_day(newest[0].ds), tuple(columns))


def _newest(files: list[DataFile]) -> list[DataFile]:
    return [file for file in files if file.ds == files[-1].ds]


def main(argv: list[str] | None = None) -> None:
    run = run_of("build_sequences", stage_parser(__doc__ or "").parse_args(argv))
    warehouse = Warehouse(run.config)
    with spark_session(run.config, run.run_id) as spark:
        build_sequences(run, spark, warehouse)


if __name__ == "__main__":
    sys.exit(exit_status(main))
