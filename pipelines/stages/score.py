"""The work of `score`: pipelines/score.py says what it reads and writes, and when it fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import polars as pl
from pyspark.sql import SparkSession

from pipelines.chain import CHAMPION
from pipelines.cli import Run, warn
from pipelines.errors import DataError, ForecastError
from pipelines.kernels.scored import Scoring, score_bucket
from pipelines.kernels.target import Target
from pipelines.life.evaluation import active_task, differs, fallback
from pipelines.life.registry import LostModelError, ModelVersion, Registry
from pipelines.quality.forecasts import TABLE, broken, forecast_rules
from pipelines.quality.judge import CheckResult
from pipelines.quality.publish import Draft, publish
from pipelines.quality.rules import Check, Rule
from pipelines.spark import buckets
from pipelines.spark.buckets import REPORT
from pipelines.spark.session import spark_session
from pipelines.spark.sql_files import SHARED, run_sql
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.files import DataFile, write_file
from pipelines.warehouse.pins import Reads
from pipelines.warehouse.sequences import SequenceFiles, open_sequences

RISK_TABLE = "marts.churn_risk"
_COMPLETE = Rule(
    Check("unscored", None, "unscored", "a forecast for every series and task", max_value=0), pl.lit(False)
)


def score(run: Run, spark: SparkSession, warehouse: Warehouse, registry: Registry) -> None:
    """Forecast, check and commit."""
    config, ds = run.config, run.ds
    reads = Reads(run.stage, warehouse)
    sequences = open_sequences(config, reads, ds)
    rules = [*forecast_rules(sequences.spec), _COMPLETE]
    target = Target.of(run, warehouse, TABLE, rules[:-1])
    champion, noticed = usable_champion(run, registry, sequences), []
    if champion:
        job = Scoring(sequences, (champion.version, champion.packed), None, run.run_id, target)
        report = forecast(spark, job)
        if faults := broken(report, rules):
            noticed = [_fault(run, champion, *fault) for fault in faults]
            champion = None
    if champion is None:
        job = Scoring(sequences, None, fallback(run, spark, sequences, warehouse.scratch), run.run_id, target)
        report = forecast(spark, job)
    reads.model(CHAMPION, champion.version if champion else None)
    forecasts = Draft.counted(TABLE, [ds], report, [rule.check for rule in rules], volume="critical")
    active = active_task(sequences.spec)
    # Without such a task the day is replaced all the same: an earlier run may have had one.
    written = [replace(file, store=target.folder.store) for file in forecasts.files]
    risk = churn_risk(run, spark, warehouse, written, active) if active and written else []
    try:
        publish(run, warehouse, reads, [forecasts, Draft.uncounted(RISK_TABLE, [ds], risk)], noticed)
    except DataError as error:
        if broken(report, rules):
            raise ForecastError(error.lines) from error
        raise
    by = f"version {champion.version}" if champion else f"baseline {job.baseline[0]}" if job.baseline else ""
    run.say(f"{TABLE}: {forecasts.rows:,} forecasts for {sequences.series:,} series by {by}")


def forecast(spark: SparkSession, job: Scoring) -> pl.DataFrame:
    """Every bucket's files, and what counts for the checks."""
    sequences = job.sequences
    report = buckets.map_buckets(spark, sequences.buckets, partial(score_bucket, job))
    rows = int(report.filter(counter="rows")["value"].sum())
    expected = sequences.series * len(sequences.spec.tasks)
    words = f"{rows} rows for {expected} series x tasks"
    unscored = [(None, sequences.as_of, None, _COMPLETE.check.counter, float(expected - rows), words)]
    return buckets.concat([report, pl.DataFrame(unscored, schema=REPORT, orient="row")])


def _fault(run: Run, champion: ModelVersion, rule: Rule, count: int, example: str) -> CheckResult:
    """What is kept and said of a rule that the champion broke: it stops the champion, not the day."""
    expected = f"{rule.check.expected}. A fault of champion {champion.version}, not of the data: nothing of it is "
    expected += "published, the best baseline serves"
    where = (run.run_id, run.stage, TABLE, run.ds, rule.check.name, None, None)
    return CheckResult(*where, "warning", expected, float(count), example, False)


def churn_risk(
    run: Run, spark: SparkSession, warehouse: Warehouse, forecasts: Sequence[DataFile], active: str
) -> list[DataFile]:
    """Files of who may leave, from those of the forecasts; ``active`` is the task whose zero means leaving."""
    buckets.frame_of(spark, forecasts, warehouse.arrow_schema(TABLE)).createOrReplaceTempView("forecast_daily")
    path = SHARED / "marts" / "churn_risk.sql"
    found = run_sql(spark, path, as_of=run.ds, active_task=active, money_task=run.config.money_task)
    key, schema = warehouse.declared(RISK_TABLE).key, warehouse.arrow_schema(RISK_TABLE)
    ds, run_id, folder = run.ds, run.run_id, warehouse.folder(RISK_TABLE, run.run_id)

    def write(bucket: int, rows: pl.DataFrame) -> pl.DataFrame:
        rows = rows.with_columns(run_id=pl.lit(run_id)).sort(*key)
        return buckets.file_row(write_file(rows, schema, folder, ds, bucket))

    return buckets.files_in(buckets.map_frame(found, run.config.dataset.buckets, write))


def usable_champion(run: Run, registry: Registry, sequences: SequenceFiles) -> ModelVersion | None:
    """The champion, if its files are there and it forecasts what pipeline.toml declares now; else a warning.

    Raises:
        DataError: its files are not those that were registered.
    """
    try:
        champion = registry.get(CHAMPION)
    except LostModelError as error:
        warn(f"{error.lines[0]}. Until then the best baseline serves")
        return None
    if champion is None:
        run.say(f"no champion in {registry.name}: the best baseline serves")
        return None
    if other := differs(champion.packed, sequences.spec):
        run.say(f"warning: champion {champion.version} was trained with other {other}; the best baseline serves")
        return None
    return champion


def work(run: Run) -> None:
    warehouse = Warehouse.existing(run.config, run.ds)
    with spark_session(run.config, run.run_id, run.stage) as spark:
        score(run, spark, warehouse, Registry(run.config))
