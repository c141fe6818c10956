"""The work of `explain`: pipelines/explain.py says what it reads and writes, and when it fails."""

from __future__ import annotations

from datetime import date, timedelta
from functools import partial

import polars as pl
from pyspark.sql import SparkSession

from pipelines.chain import CHAMPION
from pipelines.cli import Run, warn
from pipelines.errors import ConfigError, DataError
from pipelines.kernels.explained import (
    ASKED,
    AT_RISK,
    BY,
    CHANGE,
    FOUND,
    MOVER,
    TARGET,
    Candidates,
    Explaining,
    Served,
    candidates,
    explain,
    most,
)
from pipelines.life.evaluation import active_task, differs
from pipelines.life.registry import Registry
from pipelines.quality.explanations import change_rules, reason_rules
from pipelines.quality.publish import Draft, publish
from pipelines.quality.rules import Rule, count_rows
from pipelines.spark import buckets
from pipelines.spark.session import spark_session
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.files import DataFile, read_files, write_file
from pipelines.warehouse.pins import Pin, Reads
from pipelines.warehouse.published import Published
from pipelines.warehouse.sequences import SERIES, SequenceFiles, open_sequences
from pipelines.warehouse.sequences import TABLE as SEQUENCES

FORECASTS, RISK = "marts.forecast_daily", "marts.churn_risk"
CHANGES, REASONS = "marts.forecast_change", "marts.forecast_reason"
OLDEST_DAYS = 31  # how far back a forecast may be that is compared with


def explain_day(run: Run, spark: SparkSession, warehouse: Warehouse, registry: Registry) -> None:
    """Choose, explain, check and commit."""
    config, ds = run.config, run.ds
    reads = Reads(run.stage, warehouse)
    forecasts, risk = reads.pin(FORECASTS), reads.pin(RISK)
    if ds not in (days := forecasts.days()):
        raise DataError(
            f"{FORECASTS} ds={ds}: nothing was forecast, so there is nothing to explain. Forecast it with: "
            f"python -m pipelines.score --config {config.path} --date {ds}"
        )
    sequences = open_sequences(config, reads, ds)
    day_before = max((day for day in days if ds - timedelta(days=OLDEST_DAYS) <= day < ds and days[day]), default=None)
    files = {day: forecasts.files(day) for day in (ds, day_before) if day}
    served = dict[date | None, Served]()
    for day in filter(files.get, files):  # the day itself first
        version, baseline = _server(files[day], forecasts)
        known = next((other for other in served.values() if version and other.version == version), None)
        served[day] = known or _opened(registry, day, version, baseline)
    reads.model(CHAMPION, served[ds].version if ds in served else None)

    def published(pin: Pin, of: list[DataFile]) -> Published:
        return Published.of(pin, of, config.dataset.horizon_days)

    asked, found = pl.DataFrame(schema=ASKED), pl.DataFrame(schema=FOUND)
    today = published(forecasts, files[ds])
    before = published(forecasts, files[day_before]) if day_before else None
    if top := config.explain.top:
        look = Candidates(today, before, published(risk, risk.files(ds)), active_task(sequences.spec), top)
        asked = most(buckets.map_buckets(spark, sequences.buckets, partial(candidates, look), ASKED), top)
    if asked.height:
        profiles = reads.pin(SEQUENCES)
        of_then = published(profiles, profiles.files(day_before) if day_before else [])
        job = Explaining(sequences, of_then, day_before, asked, served[ds], served.get(day_before))
        # Many buckets at once: a forecast of a few series costs what it costs to begin one.
        whole = asked["bucket"].unique().sort().to_list()
        count = buckets.tasks(spark, len(whole))
        parts = [whole[n::count] for n in range(count)]
        found = buckets.map_buckets(spark, range(count), lambda n: explain(job, parts[n]), FOUND)

    def note(by: dict[str, str | None]) -> str | None:
        before = served.get(day_before)
        now, then = served[ds].in_cell(by["by"]), before and before.in_cell(by["by_before"])
        return _note(now, then, day_before, sequences)

    size = (pl.col("after") - pl.col("before")).abs()
    changes = found.filter(kind=CHANGE).sort(*TARGET, -size, *SERIES)
    changes = changes.with_columns(
        ds=pl.lit(ds),
        compared_with=pl.lit(day_before, pl.Date),
        rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over(TARGET),
        note=pl.struct(BY).map_elements(note, pl.String),
        run_id=pl.lit(run.run_id),
    )
    why = found.filter(pl.col("kind").is_in([MOVER, AT_RISK])).with_columns(ds=pl.lit(ds), run_id=pl.lit(run.run_id))
    if (lost := asked.filter(kind=MOVER).height - changes.height) > 0:
        warn(f"{FORECASTS} ds={ds}: {lost} of the forecasts that moved most have no sequence any more; expected 0")
    drafts = [
        _draft(run, warehouse, CHANGES, changes, change_rules()),
        _draft(run, warehouse, REASONS, why, reason_rules()),
    ]
    publish(run, warehouse, reads, drafts)
    since = (
        f"since {day_before} of {changes.height:,} forecasts that moved most"
        if day_before
        else "no day before to compare with"
    )
    at_risk = asked.filter(kind=AT_RISK).height
    run.say(f"{CHANGES}: {since}; {REASONS}: {why.height:,} reasons, {at_risk:,} forecasts at risk looked at")


def _server(files: list[DataFile], forecasts: Pin) -> tuple[str | None, str]:
    """Version of the champion that served a day; and, where none did, the baseline's name."""
    for file in files:
        rows = read_files([file], forecasts.schema, ["model_version", "method"])
        if (version := rows["model_version"].drop_nulls().first()) is not None:
            return str(version), ""
        rule = rows["method"].filter(rows["method"].str.starts_with("baseline:")).first()
        if rule is not None:
            return None, str(rule).removeprefix("baseline:")
    return None, "mean_28"  # all are served by rules of their own


def _opened(registry: Registry, day: date, version: str | None, baseline: str) -> Served:
    if version is None:
        return Served(None, baseline)
    try:
        return Served(version, "", registry.version(version).packed)
    except (ConfigError, DataError) as error:  # deleted; lost or damaged
        warn(f"{FORECASTS} ds={day}: {error.lines[0] if isinstance(error, DataError) else error}")
        return Served(version, "")


def _note(served: Served, before: Served | None, day: date | None, sequences: SequenceFiles) -> str | None:
    """What could not be told apart in the changes since ``day``."""
    if before is None:
        return None
    if served.same_as(before):
        gone = f"version {served.version}, which serves, cannot be opened any more: by_new_days has by_restated's part"
        return gone if served.version and served.model is None else None
    names = [f"version {s.version}" if s.version else f"baseline {s.baseline}" for s in (before, served)]
    if before.version and (before.model is None or (other := differs(before.model, sequences.spec))):
        why = "cannot be opened any more" if before.model is None else f"reads other {other}"
        return f"{names[0]}, which served on {day}, {why}: new days by {names[1]}, the rest is by_model"
    if before.version is None or served.version is None or served.model is None:
        return f"{names[1]} serves where {names[0]} served on {day}: its calibration is in by_model"
    return None


def _draft(run: Run, warehouse: Warehouse, table: str, rows: pl.DataFrame, rules: list[Rule]) -> Draft:
    key = warehouse.declared(table).key
    rows = rows.sort(*key)
    report = count_rows(0, rows, rules, key)
    folder, schema = warehouse.folder(table, run.run_id), warehouse.arrow_schema(table)
    of_buckets = rows.partition_by("bucket", as_dict=True)
    files = [write_file(of_buckets[key], schema, folder, run.ds, key[0]) for key in sorted(of_buckets)]
    return Draft(table, [run.ds], files, report, [rule.check for rule in rules])


def work(run: Run) -> None:
    warehouse = Warehouse.existing(run.config, run.ds)
    with spark_session(run.config, run.run_id, run.stage) as spark:
        explain_day(run, spark, warehouse, Registry(run.config))
