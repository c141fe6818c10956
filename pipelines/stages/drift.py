"""The work of `drift`: pipelines/drift.py says what it reads and writes, and when it fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import date, timedelta
from functools import partial

import numpy as np
import polars as pl
from pyspark.sql import SparkSession

from pipelines.cli import Run
from pipelines.config import ALL_SCENARIOS, Drift
from pipelines.kernels.drift import JUDGED, KEYS, SUMS, Counts, Looking, look, with_all_scenarios
from pipelines.life.cells import CELL
from pipelines.quality.drift import (
    COVERAGE,
    CRITICAL,
    DRIFT,
    EXPECTED,
    EXPECTED_ERROR,
    IGNORED,
    TABLE,
    TOLD,
    USUAL,
    Judged,
    Kind,
    Signal,
    in_words,
    judge_forecasts,
    new_categories,
    of_day,
    of_task,
    task_in_words,
)
from pipelines.quality.publish import Draft, publish
from pipelines.spark import buckets
from pipelines.spark.session import spark_session
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.days import days_between
from pipelines.warehouse.files import by_bucket
from pipelines.warehouse.pins import Reads, between
from pipelines.warehouse.sequences import TABLE as SEQUENCES
from pipelines.warehouse.sequences import open_sequences

FORECASTS, QUALITY = "marts.forecast_daily", "marts.forecast_quality"


def drift(run: Run, spark: SparkSession, warehouse: Warehouse) -> None:
    """Count, judge, and commit."""
    config, ds, reads = run.config, run.ds, Reads(run.stage, warehouse)
    sequences, series, forecasts = open_sequences(config, reads, ds), reads.pin(SEQUENCES), reads.pin(FORECASTS)
    week_before = min(series.days(ds - timedelta(days=7), ds - timedelta(days=1)), default=None)
    before = by_bucket(series.files(week_before)) if week_before else {}
    job = Looking(sequences, by_bucket(forecasts.files(ds)), forecasts.schema, before)
    sums = with_all_scenarios(buckets.map_buckets(spark, sequences.buckets, partial(look, job), SUMS, KEYS))

    expected = expected_errors(sums, ds)
    label = timedelta(days=config.dataset.label_days)
    past = warehouse.scan(EXPECTED, between(ds - timedelta(days=JUDGED) - label, ds - timedelta(days=1)))
    known = pl.concat([past.drop("run_id"), expected]).filter(method="*")
    quality = reads.pin(QUALITY).scan(between(ds - timedelta(days=JUDGED) - label, ds - label)).filter(method="*")
    width, several = config.drift.limits, len(config.dataset.horizons) > 1
    found = [
        *of_day(*counts_of(sums, ds), width=width),
        *new_categories(*categories_of(sums), width=width),
        *expecting(known, ds, several, width),
        *matured(quality, known, ds - label, several, width),
    ]
    rows = rows_of(found, config.drift).with_columns(ds=pl.lit(ds), run_id=pl.lit(run.run_id))
    tables = {EXPECTED: expected.with_columns(run_id=pl.lit(run.run_id)), TABLE: rows}
    publish(
        run,
        warehouse,
        reads,
        [Draft.uncounted(name, [ds], warehouse.write_rows(name, part, run.run_id)) for name, part in tables.items()],
    )
    bad = rows.filter(pl.col("verdict").is_in([DRIFT, CRITICAL]))
    judged = rows.filter(pl.col("verdict").is_in([DRIFT, CRITICAL, USUAL])).height
    run.say(f"{TABLE}: {bad.height} of {judged} signals of {rows['scenario_id'].n_unique()} scenarios have drifted")
    for scenario, words in bad.select("scenario_id", "words").head(10).iter_rows():
        run.say(f"warning: drift in {in_words(scenario)}: {words}")
    together = expected.filter(method="*", scenario_id=ALL_SCENARIOS).sort("task", "horizon_days")
    for task, days, nmae in together.select("task", "horizon_days", "expected_nmae").iter_rows():
        text = "undefined (nothing is expected)" if nmae is None else f"{nmae:.4f}"
        run.say(f"{EXPECTED}: {task_in_words(task, days, several)}: NMAE {text} is expected of today's forecasts")


def expected_errors(sums: pl.DataFrame, ds: date) -> pl.DataFrame:
    """Rows of ``EXPECTED`` without the run."""
    ours = sums.filter(pl.col("counter").is_in(["n", "error", "mean"])).rename({"name": "method"})
    ours = pl.concat([ours, ours.with_columns(method=pl.lit("*"))])
    wide = ours.group_by("method", *CELL).agg(
        pl.col("value").filter(pl.col("counter") == name).sum().alias(name) for name in ("n", "error", "mean")
    )
    nmae = pl.when(pl.col("mean") > 0).then(pl.col("error") / pl.col("mean"))
    return wide.select(
        pl.lit(ds).alias("ds"), "method", *CELL, pl.col("n").cast(pl.Int64), expected_nmae=nmae, sum_mean="mean"
    )


def counts_of(sums: pl.DataFrame, ds: date) -> tuple[list[str], Counts]:
    """The counts of days as ``quality.drift`` judges them: (S, T) each, all scenarios together last."""
    ours = sums.filter(pl.col("task").is_null())
    scenarios = [*sorted({*ours["scenario_id"]} - {ALL_SCENARIOS}), ALL_SCENARIOS]
    first = ours["ds"].min()
    days = days_between(first, ds) if isinstance(first, date) else [ds]
    found = Counts()
    for (counter, name), part in ours.group_by("counter", "name"):
        value_ST = np.zeros((len(scenarios), len(days)))
        place = part["scenario_id"].replace_strict(scenarios, range(len(scenarios))).to_numpy()
        value_ST[place, (part["ds"] - days[0]).dt.total_days().to_numpy()] = part["value"].to_numpy()
        found[str(counter), None if name is None else str(name)] = value_ST
    nothing = np.zeros((len(scenarios), len(days)))
    always = {(name, None): nothing for name in ("rows", "new", "regular", "absent", "gone")}
    return scenarios, always | {("known", name): nothing for counter, name in found if counter == "zeros"} | found


def categories_of(sums: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What ``new_categories`` compares: a week ago, and now. An attribute of which one of them is not known is left
    out."""
    ours = sums.rename({"name": "attribute", "task": "category", "value": "rows"})
    then, now = (
        ours.filter(counter=counter).select("attribute", "scenario_id", "category", "rows")
        for counter in ("then", "now")
    )
    return then, now.join(then.select("attribute").unique(), on="attribute", how="semi")


def expecting(known: pl.DataFrame, ds: date, several: bool, width: float) -> Iterator[tuple[str, Judged]]:
    """The error that the day's forecasts expect, against what those of the weeks before expected."""
    level = pl.when(pl.col("expected_nmae") > 0).then(pl.col("expected_nmae").log())
    for cell, signal in _by_cell(known.with_columns(value=level), ds, EXPECTED_ERROR, "level", several):
        yield cell, judge_forecasts(signal, width)


def matured(
    quality: pl.DataFrame, known: pl.DataFrame, as_of: date, several: bool, width: float
) -> Iterator[tuple[str, Judged]]:
    """Of the forecasts that matured last: how many actuals lay within their intervals, against the weeks before; and
    their error over the one that they expected."""
    if as_of not in {*quality["ds"]}:
        return
    for cell, signal in _by_cell(quality.with_columns(value="coverage_90"), as_of, COVERAGE, "share", several):
        yield cell, judge_forecasts(signal, width)
    both = quality.filter(ds=as_of).join(known, on=["ds", *CELL]).filter(pl.col("expected_nmae") > 0)
    for scenario, task, days, nmae, expected in both.sort(CELL).select(*CELL, "nmae", "expected_nmae").iter_rows():
        if nmae is not None:
            name = of_task("error over expected", task, days, several)
            words = f"{name}: NMAE {nmae:.3f}, expected were {expected:.3f}"
            yield scenario, Judged(name, TOLD, words, nmae / expected, 1.0)


def _by_cell(rows: pl.DataFrame, last: date, name: str, kind: Kind, several: bool) -> Iterator[tuple[str, Signal]]:
    """A signal up to a day of each scenario, task and horizon that has a figure on it."""
    days = days_between(last - timedelta(days=JUDGED - 1), last)
    for (scenario, task, horizon), part in rows.sort(*CELL, "ds").group_by(CELL, maintain_order=True):
        of = {ds: (value, n) for ds, value, n in part.select("ds", "value", "n").iter_rows() if value is not None}
        if last in of:
            value_T, weight_T = np.array([of.get(day, (np.nan, 0.0)) for day in days], np.float64).T
            yield str(scenario), Signal(of_task(name, task, horizon, several), kind, value_T, weight_T)


def rows_of(found: Sequence[tuple[str, Judged]], rules: Drift) -> pl.DataFrame:
    """Rows of ``TABLE`` without day and run."""
    kept = []
    for scenario, judged in found:
        if judged.signal.startswith(rules.ignore or ("\0",)):
            judged = replace(judged, verdict=IGNORED)
        kept.append({"scenario_id": scenario, **asdict(judged)})
    figures = dict.fromkeys(("found", "usual", "low", "high"), pl.Float64)
    return pl.DataFrame(
        kept,
        schema={"scenario_id": pl.String, "signal": pl.String, "verdict": pl.String, "words": pl.String, **figures},
    )


def work(run: Run) -> None:
    warehouse = Warehouse.existing(run.config, run.ds)
    with spark_session(run.config, run.run_id, run.stage) as spark:
        drift(run, spark, warehouse)
