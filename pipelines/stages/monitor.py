"""The work of `monitor`: pipelines/monitor.py says what it reads and writes, and when it fails."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from functools import reduce

import polars as pl
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from m2m_model.config import ACTIVE
from pipelines.cli import Run
from pipelines.errors import DataError
from pipelines.quality.publish import Draft, publish
from pipelines.spark.buckets import frame_of
from pipelines.spark.session import spark_session
from pipelines.spark.sql_files import SHARED, run_sql
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.days import days_between
from pipelines.warehouse.files import read_files
from pipelines.warehouse.pins import Reads

TABLE = "marts.forecast_quality"
_ACTIVE = "_active"  # beside metrics of any name


def monitor(run: Run, spark: SparkSession, warehouse: Warehouse) -> pl.DataFrame:
    """Judge the forecasts that matured on ``run.ds``; returns the rows written (none if nothing matured)."""
    config, wait = run.config, run.config.dataset.label_days
    as_of = run.ds - timedelta(days=wait)
    reads = Reads(run.stage, warehouse)
    published, performed = reads.pin("marts.forecast_daily"), reads.pin("staged.performance_daily")
    forecasts = published.files(as_of)
    if not forecasts:
        oldest = min(published.days(), default=None)
        first = f"; the first forecasts mature on {oldest + timedelta(days=wait)}" if oldest and oldest > as_of else ""
        run.say(f"no forecast was made as of {as_of}: nothing to judge{first}")
        return pl.DataFrame()
    # Their own: [dataset] horizon_days may have changed since.
    horizons = read_files(forecasts[:1], published.schema, ["horizon_days"])["horizon_days"].unique().sort().to_list()
    passed = [days for days in horizons if days <= config.dataset.horizon_days]
    if passed != horizons:
        run.say(
            f"warning: the forecasts of {as_of} are for {horizons[-1]} days, of which [dataset] horizon_days = "
            f"{config.dataset.horizon_days} have passed: they are not judged"
        )
    if not passed:
        if as_of not in warehouse.days(TABLE):  # what was judged before the change stays
            publish(run, warehouse, reads, [Draft.uncounted(TABLE, [as_of], [])])
        return pl.DataFrame()
    horizon = passed[-1]
    days = days_between(as_of + timedelta(days=1), as_of + timedelta(days=horizon))
    staged = performed.days(days[0], days[-1])
    if missing := [day for day in days if day not in staged]:
        raise DataError(
            f"staged.performance_daily: {len(missing)} of the {horizon} days after {as_of} were never staged; "
            f"expected 0. First: {missing[0]}. Stage them with: python -m pipelines.stage_sources "
            f"--config {config.path} --from {missing[0]} --to {missing[-1]}"
        )
    frame_of(spark, forecasts, published.schema).createOrReplaceTempView("forecast_daily")
    performance = frame_of(spark, performed.files(days[0], days[-1]), performed.schema)
    metrics = [F.col(name) for name in config.metric_names]
    active = F.greatest(*metrics) if len(metrics) > 1 else metrics[0]
    performance.withColumn(_ACTIVE, active).createOrReplaceTempView("performance_daily")
    _actual_total(run, spark, as_of, passed).createOrReplaceTempView("actual_total")
    judged = run_sql(spark, SHARED / "marts" / "forecast_quality.sql", as_of=as_of, horizon_days=horizon)
    rows = pl.from_arrow(judged.toArrow())  # one row per method x scenario x task
    assert isinstance(rows, pl.DataFrame)
    rows = rows.with_columns(run_id=pl.lit(run.run_id))
    files = warehouse.write_rows(TABLE, rows, run.run_id)
    publish(run, warehouse, reads, [Draft.uncounted(TABLE, [as_of], files)])
    together = rows.filter(method="*", scenario_id="*").sort("task", "horizon_days")
    for task, days_ahead, n, nmae, coverage in together.select(
        "task", "horizon_days", "n", "nmae", "coverage_90"
    ).iter_rows():
        of = f"{task} over {days_ahead} days" if len(passed) > 1 else task
        nmae_text = "undefined (nothing happened)" if nmae is None else f"{nmae:.4f}"
        run.say(f"{TABLE} as of {as_of}: {of}: NMAE {nmae_text}, {coverage:.1%} within 90 % intervals, {n:,} forecasts")
    return rows


def _actual_total(run: Run, spark: SparkSession, as_of: date, horizons: Sequence[int]) -> DataFrame:
    """Totals of every task over the days after ``as_of``, so many for each horizon, from sql/intermediate."""
    parts = [
        run_sql(
            spark,
            SHARED / "intermediate" / f"actual_{task.aggregate}.sql",
            task=task.name,
            metric=_ACTIVE if task.metric == ACTIVE else task.metric,
            as_of=as_of,
            horizon_days=horizon,
        )
        for task in run.config.task
        for horizon in horizons
    ]
    return reduce(DataFrame.unionByName, parts)


def work(run: Run) -> None:
    warehouse = Warehouse.existing(run.config, run.ds)
    with spark_session(run.config, run.run_id, run.stage) as spark:
        monitor(run, spark, warehouse)
