"""Stage: features.advertiser_sequence -> marts.forecast_daily, a forecast for every series and task; marts.churn_risk.

Reads the sequences as of --date and the model with the alias `champion`. Writes the date's partition of
marts.forecast_daily in one commit, after the checks. Without a champion, when its files are lost, or when it forecasts
other tasks than pipeline.toml declares, the best baseline of the held-out cutoffs serves, and the column `method`
says so. Then writes marts.churn_risk from those forecasts: who may leave, and with how much; empty where no task
counts active days.
Fails (3) when there are no sequences, when the champion's files were changed, or when a forecast is missing,
negative, not a number or crosses its quantiles.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import polars as pl
from pyspark.sql import SparkSession

from m2m_model.config import ACTIVE
from m2m_model.forecasts.calibration import ResidualQuantiles
from m2m_model.forecasts.forecasts import forecast_baseline
from pipelines.cli import Run, exit_status, run_of, stage_parser, warn
from pipelines.config import Config
from pipelines.life.evaluation import active_task, fallback, load_forecaster
from pipelines.life.registry import CHAMPION, LostModelError, ModelVersion, Registry
from pipelines.quality.judge import Check
from pipelines.quality.publish import Draft, Target, publish
from pipelines.quality.rules import Rule, critical_rules, repeated
from pipelines.spark import buckets
from pipelines.spark.buckets import REPORT
from pipelines.spark.session import spark_session
from pipelines.spark.sql_files import SHARED, run_sql
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.files import DataFile, write_file
from pipelines.warehouse.pins import Reads
from pipelines.warehouse.sequences import SequenceFiles, open_sequences

TABLE, RISK_TABLE = "marts.forecast_daily", "marts.churn_risk"
_QUANTILES = ("p05", "p25", "median", "p75", "p95")


@dataclass(frozen=True)
class Scoring:
    """One scoring, as every bucket needs it: a champion, or a baseline's name with the calibrations of all."""

    sequences: SequenceFiles
    champion: ModelVersion | None
    baseline: tuple[str, dict[str, ResidualQuantiles]] | None
    run_id: str
    target: Target


def score(run: Run, spark: SparkSession, warehouse: Warehouse, registry: Registry) -> None:
    """Forecast, check and commit."""
    config, ds = run.config, run.ds
    reads = Reads(run.stage, warehouse)
    sequences = open_sequences(config, reads, ds)
    champion = usable_champion(run, registry, sequences)
    reads.model(CHAMPION, champion.version if champion else None)
    baseline = fallback(run, spark, sequences) if champion is None else None
    rules = forecast_rules(config)
    job = Scoring(sequences, champion, baseline, run.run_id, Target.of(run, warehouse, TABLE, rules))
    report = buckets.map_buckets(spark, sequences.buckets, partial(score_bucket, job))
    rows = int(report.filter(counter="rows")["value"].sum())
    expected = sequences.series * len(config.task)
    unscored = [(None, ds, None, "unscored", float(expected - rows), f"{rows} rows for {expected} series x tasks")]
    complete = Check(
        name="unscored",
        column=None,
        counter="unscored",
        max_value=0,
        severity="critical",
        expected="a forecast for every series and task",
    )
    report = buckets.concat([report, pl.DataFrame(unscored, schema=REPORT, orient="row")])
    checks = [*(rule.check for rule in rules), complete]
    forecasts = Draft.counted(TABLE, [ds], report, checks, volume="critical")
    active = active_task(sequences.spec)
    # Without such a task the day is replaced all the same: an earlier run may have had one.
    risk = churn_risk(run, spark, warehouse, forecasts.files, active) if active and forecasts.files else []
    publish(run, warehouse, reads, [forecasts, Draft.uncounted(RISK_TABLE, [ds], risk)])
    by = f"version {champion.version}" if champion else f"baseline {baseline[0]}" if baseline else ""
    run.say(f"{TABLE}: {rows:,} forecasts for {sequences.series:,} series by {by}")


def churn_risk(
    run: Run, spark: SparkSession, warehouse: Warehouse, forecasts: Sequence[DataFile], active: str
) -> list[DataFile]:
    """Files of who may leave, from those of the forecasts; ``active`` is the task whose zero means leaving."""
    spark.read.parquet(*(file.path for file in forecasts)).createOrReplaceTempView("forecast_daily")
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
    trained = load_forecaster(champion.folder).spec
    if trained != sequences.spec:
        differ = [name for name, value in trained.to_dict().items() if value != sequences.spec.to_dict()[name]]
        run.say(
            f"warning: champion {champion.version} was trained with other {', '.join(differ)}; the best baseline serves"
        )
        return None
    return champion


def score_bucket(job: Scoring, bucket: int) -> pl.DataFrame:
    """Kernel of one bucket: forecast its series, write one file, count for the checks."""
    sequences, champion = job.sequences, job.champion
    spec, ds = sequences.spec, sequences.as_of
    panel = sequences.panel(bucket, spec.lookback_days)
    if champion:
        forecasts = load_forecaster(champion.folder).predict(panel, ds, all_series=True)
    else:
        assert job.baseline is not None
        name, calibrations = job.baseline
        forecasts = forecast_baseline(name, panel, ds, calibrations, all_series=True)
    rows = pl.from_arrow(forecasts.to_table(spec))
    assert isinstance(rows, pl.DataFrame)
    rows = rows.with_columns(
        ds=pl.lit(ds),
        bucket=pl.lit(bucket, pl.Int32),
        model_version=pl.lit(champion.version if champion else None, pl.String),
        sequence_snapshot_id=pl.lit(sequences.snapshot_id),
        run_id=pl.lit(job.run_id),
    ).sort(*job.target.key)
    reports = [job.target.count(bucket, rows)]
    if rows.height:
        reports.append(job.target.write(bucket, rows, ds))
    return buckets.concat(reports)


def forecast_rules(config: Config) -> list[Rule]:
    """What must hold for every published forecast."""
    values = ["point", "mean", "p_zero", *_QUANTILES]
    pairs = itertools.pairwise(_QUANTILES)
    days = [task.name for task in config.task if task.aggregate == "days"]
    active = [task.name for task in config.task if task.metric == ACTIVE]
    idle = (pl.col("point").filter(pl.col("task").is_in(active)) == 0).any().over("advertiser_id", "scenario_id")
    broken = {
        "not_finite": (
            "finite numbers",
            ~pl.all_horizontal(pl.col(name).is_finite().fill_null(False) for name in values),
        ),
        "negative": ("at least 0", pl.any_horizontal(pl.col(name) < 0 for name in values)),
        "crossing": ("p05 <= p25 <= median <= p75 <= p95", pl.any_horizontal(pl.col(a) > pl.col(b) for a, b in pairs)),
        "above_horizon": (
            f"days <= {config.dataset.horizon_days}",
            pl.col("task").is_in(days)
            & pl.any_horizontal(pl.col(name) > config.dataset.horizon_days for name in values),
        ),
        "incoherent": ("no total without an active day", idle & (pl.col("point") > 0)),
        "duplicate_key": (
            "one row per (advertiser_id, scenario_id, task)",
            repeated(["advertiser_id", "scenario_id", "task"]),
        ),
    }
    return critical_rules(broken)


def main(argv: list[str] | None = None) -> None:
    run = run_of("score", stage_parser(__doc__ or "").parse_args(argv))
    with spark_session(run.config, run.run_id) as spark:
        score(run, spark, Warehouse(run.config), Registry(run.config))


if __name__ == "__main__":
    sys.exit(exit_status(main))
