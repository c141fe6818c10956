"""The work of `monitor`: pipelines/monitor.py says what it reads and writes, and when it fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


def monitor(run: Run, spark: SparkSession, warehouse: Warehouse) -> None:
    """Judge the forecasts that matured on ``run.ds``, each horizon when it is over: a day of forecasts is written once
    a horizon, with what was judged of it before, and for good with the longest."""
    dataset, reads, found = run.config.dataset, Reads(run.stage, warehouse), dict[date, pl.DataFrame]()
    for horizon in reversed(dataset.horizons):
        as_of = run.ds - timedelta(days=horizon + dataset.mature_days)
        rows = _judged(run, spark, reads, as_of, horizon)
        # Of forecasts for more days than have passed, what was judged before [dataset] was changed stays.
        if rows is not None and (rows.height or as_of not in warehouse.days(TABLE)):
            found[as_of] = rows
    files = [file for rows in found.values() if rows.height for file in warehouse.write_rows(TABLE, rows, run.run_id)]
    if found:
        publish(run, warehouse, reads, [Draft.uncounted(TABLE, list(found), files)])
    for as_of, rows in found.items():
        for task, days, n, nmae, coverage in _overall(rows):
            of = f"{days}-day {task}" if len(dataset.horizons) > 1 else task
            nmae_text = "undefined (nothing happened)" if nmae is None else f"{nmae:.4f}"
            run.say(
                f"{TABLE} as of {as_of}: {of}: NMAE {nmae_text}, {coverage:.1%} within 90 % intervals, {n:,} forecasts"
            )


def _overall(rows: pl.DataFrame) -> Iterator[tuple[str, int, int, float | None, float]]:
    """Of each task and horizon: forecasts, NMAE and coverage, all methods and scenarios together."""
    if rows.height:
        together = rows.filter(method="*", scenario_id="*").sort("task", "horizon_days")
        yield from together.select("task", "horizon_days", "n", "nmae", "coverage_90").iter_rows()


def _judged(run: Run, spark: SparkSession, reads: Reads, as_of: date, elapsed: int) -> pl.DataFrame | None:
    """The forecasts of a day over each of their horizons that is over, ``elapsed`` days after it: rows of ``TABLE``,
    none where all are longer; None where there is nothing to judge.

    Raises:
        DataError: a day of the horizon was never staged.
    """
    config, longest = run.config, elapsed == run.config.dataset.horizon_days
    published, performed = reads.pin("marts.forecast_daily"), reads.pin("staged.performance_daily")
    forecasts = published.files(as_of)
    if not forecasts:
        oldest, wait = min(published.days(), default=None), config.dataset.horizons[0] + config.dataset.mature_days
        first = f"; the first forecasts mature on {oldest + timedelta(days=wait)}" if oldest and oldest > as_of else ""
        if longest:
            run.say(f"no forecast was made as of {as_of}: nothing to judge{first}")
        return None
    # Their own: [dataset] horizon_days may have changed since.
    horizons = read_files(forecasts[:1], published.schema, ["horizon_days"])["horizon_days"].unique().sort().to_list()
    passed = [days for days in horizons if days <= elapsed]
    if passed != horizons and longest:
        run.say(
            f"warning: the forecasts of {as_of} are for {horizons[-1]} days, of which [dataset] horizon_days = "
            f"{elapsed} have passed: they are not judged"
        )
    if not passed:
        return pl.DataFrame() if longest else None
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
    rows = pl.from_arrow(judged.toArrow())  # one row per method x scenario x task x horizon
    assert isinstance(rows, pl.DataFrame)
    return rows.with_columns(run_id=pl.lit(run.run_id))


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
