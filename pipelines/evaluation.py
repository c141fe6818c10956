"""Forecasters judged on the same series at the same cutoffs, bucket by bucket; only sums come back."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

import polars as pl
import pyarrow as pa
from pyspark.sql import SparkSession

from m2m_model.baselines import BASELINES
from m2m_model.boosted import OBJECTIVES
from m2m_model.calibration import ResidualQuantiles
from m2m_model.inputs import Panel, fit_inputs, targets_Nm
from m2m_model.metrics import cell_sums, finish, mean_over_tasks
from m2m_model.predict import Forecaster, Forecasts, forecast_baseline, forecast_boosted
from m2m_model.train import calibrate_baselines
from pipelines import buckets
from pipelines.cli import Run
from pipelines.config import ALL_SCENARIOS
from pipelines.registry import CHALLENGER
from pipelines.sequences import SequenceFiles, held_out_cutoffs, kept_days, write_shards

_KEYS: dict[str, pl.DataType] = {
    "cutoff": pl.Date(),
    "forecaster": pl.String(),
    "scenario_id": pl.String(),
    "task": pl.String(),
}
_SUMS: dict[str, pl.DataType] = {
    "n": pl.Int64(),
    **dict.fromkeys(("sum_abs_error", "sum_actual", "sum_forecast", "smape_sum", "pinball_sum"), pl.Float64()),
    "covered_50": pl.Int64(),
    "covered_90": pl.Int64(),
    "level_50_sum": pl.Float64(),
    "level_90_sum": pl.Float64(),
}
SUMS = pl.Schema(_KEYS | _SUMS)
PAIRS_PER_BUCKET = 400  # sampled for the plot: bounded, whatever the number of advertisers


@dataclass(frozen=True)
class Contenders:
    """What is compared: model folders by name, and the baselines with their interval calibrations."""

    models: Mapping[str, Path]
    baselines: Mapping[str, ResidualQuantiles]


@cache
def load_forecaster(folder: Path) -> Forecaster:
    """The model of a folder, loaded once per Python worker."""
    return Forecaster.load(folder)


def evaluate(
    spark: SparkSession, sequences: SequenceFiles, days: int, cutoffs: Sequence[date], contenders: Contenders
) -> pl.DataFrame:
    """Additive error sums per (cutoff, forecaster, scenario, task); see ``m2m_model.metrics``."""

    def judge(bucket: int) -> pl.DataFrame:
        panel = sequences.panel(bucket, days)
        tables = []
        for cutoff in cutoffs:
            actual_NM = targets_Nm(panel, panel.index_of(cutoff))
            for name, forecasts in _forecasts(contenders, panel, cutoff):
                series = forecasts.series_N
                names = [task.name for task in sequences.spec.tasks]
                tables.append(
                    cell_sums(forecasts.distribution, actual_NM[series], forecasts.scenario_N, names, cutoff, name)
                )
        sums = pl.from_arrow(pa.concat_tables(tables))
        assert isinstance(sums, pl.DataFrame)
        return sums

    found = buckets.map_buckets(spark, sequences.buckets, judge, SUMS)
    return found.group_by(*_KEYS).agg(pl.sum(*_SUMS)).sort(*_KEYS)


def sample_pairs(spark: SparkSession, sequences: SequenceFiles, days: int, cutoff: date, folder: Path) -> pl.DataFrame:
    """A bounded sample of (task, actual, forecast) of one model at one cutoff, for a plot."""
    schema = pl.Schema({"task": pl.String(), "actual": pl.Float64(), "forecast": pl.Float64()})

    def take(bucket: int) -> pl.DataFrame:
        panel = sequences.panel(bucket, days)
        forecasts = load_forecaster(folder).predict(panel, cutoff)
        step = max(1, len(forecasts.series_N) // PAIRS_PER_BUCKET)
        actual_NM = targets_Nm(panel, panel.index_of(cutoff))[forecasts.series_N]
        parts = [
            pl.DataFrame(
                {"actual": actual_NM[::step, m], "forecast": forecasts.distribution.point_NM[::step, m]}
            ).with_columns(task=pl.lit(task.name))
            for m, task in enumerate(sequences.spec.tasks)
        ]
        return pl.concat(parts)

    return buckets.map_buckets(spark, sequences.buckets, take, schema)


def figures(sums: pl.DataFrame) -> pl.DataFrame:
    """Errors per cell, per task over all scenarios (*), per cutoff and over all cutoffs (null)."""
    table = sums.to_arrow()
    levels = [
        ("cutoff", "forecaster", "scenario_id", "task"),
        ("cutoff", "forecaster", "task"),
        ("forecaster", "scenario_id", "task"),
        ("forecaster", "task"),
    ]
    parts = []
    for by in levels:
        part = pl.from_arrow(finish(table, by))
        assert isinstance(part, pl.DataFrame)
        if "scenario_id" not in by:
            part = part.with_columns(scenario_id=pl.lit(ALL_SCENARIOS))
        if "cutoff" not in by:
            part = part.with_columns(cutoff=pl.lit(None, pl.Date))
        parts.append(
            part.select(*_KEYS, pl.exclude(*_KEYS)).cast(
                {"n": pl.Int64, "scenario_id": pl.String, "forecaster": pl.String, "task": pl.String}
            )
        )
    spread = ["pinball", "coverage_50", "coverage_90", "level_50", "level_90"]
    found = pl.concat(parts).with_columns(pl.col(pl.Float64).fill_nan(None))
    return found.with_columns(pl.when(~pl.col("forecaster").is_in(list(OBJECTIVES))).then(pl.col(spread)).name.keep())


def mean_nmae(sums: pl.DataFrame) -> dict[str, float]:
    """Mean over tasks of each forecaster's NMAE, over all cutoffs and scenarios: the number that ranks them."""
    ranked = mean_over_tasks(finish(sums.to_arrow()))
    return dict(zip(ranked["forecaster"].to_pylist(), ranked["nmae"].to_pylist(), strict=True))


def best_baseline(mean: Mapping[str, float]) -> str:
    """The baseline with the lowest mean NMAE; a NaN never wins, the first name does in a tie."""
    return min((name for name in BASELINES if name in mean), key=lambda name: (not mean[name] >= 0, mean[name]))


def fallback(run: Run, spark: SparkSession, sequences: SequenceFiles) -> tuple[str, dict[str, ResidualQuantiles]]:
    """What serves when there is no champion: the best baseline at the held-out cutoffs, and every baseline's interval
    calibration, learned on cutoffs before the held-out ones."""
    config, days = run.config, kept_days(run.config, run.ds)
    cutoffs = held_out_cutoffs(config, run.ds)
    folder = config.home / "runs" / run.run_id
    try:
        shards, statistics = write_shards(spark, sequences, folder, days, cutoffs[-1])
        inputs = fit_inputs(statistics, config.model.bins)
        calibrations = calibrate_baselines(shards, inputs, cutoffs[-1], config.training.validation_cutoffs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sums = evaluate(spark, sequences, days, cutoffs, Contenders({}, calibrations))
    return best_baseline(mean_nmae(sums)), calibrations


def _forecasts(contenders: Contenders, panel: Panel, cutoff: date) -> list[tuple[str, Forecasts]]:
    models = [(name, load_forecaster(folder).predict(panel, cutoff)) for name, folder in contenders.models.items()]
    baselines = [(name, forecast_baseline(name, panel, cutoff, contenders.baselines)) for name in BASELINES]
    boosted = load_forecaster(contenders.models[CHALLENGER]).boosted if CHALLENGER in contenders.models else {}
    strongest = [
        (name, forecast_boosted(model, panel, cutoff, contenders.baselines)) for name, model in boosted.items()
    ]
    return models + baselines + strongest
