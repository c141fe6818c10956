"""Forecasters judged on the same series at the same cutoffs, bucket by bucket: their errors and their worth; only sums
come back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
from pyspark.sql import SparkSession

from m2m_model.arrays import Floats, Ints
from m2m_model.config import ACTIVE
from m2m_model.data.activity import stratum_NM
from m2m_model.data.features import fit_inputs
from m2m_model.data.panel import Panel
from m2m_model.data.served_by import is_eligible, served_by
from m2m_model.data.spec import SequenceSpec
from m2m_model.data.targets import targets_Nm
from m2m_model.forecasts.baselines import BASELINES
from m2m_model.forecasts.calibration import Dependence, Pacing, ResidualQuantiles
from m2m_model.forecasts.forecaster import Forecaster
from m2m_model.forecasts.forecasts import Forecasts, forecast_baseline, rival_forecasts
from m2m_model.forecasts.metrics import (
    CELL_SCHEMA,
    GROUP_SCHEMA,
    KEYS,
    cell_sums,
    finish,
    group_sums,
    mean_over_tasks,
)
from m2m_model.judging.value import CHURN, VALUE_SCHEMA, churn, ranking, reliability, size_deciles, value_sums
from m2m_model.rivals import NAMES as RIVALS
from m2m_model.training.serving import calibrate_baselines
from pipelines.chain import CHALLENGER
from pipelines.cli import Run
from pipelines.config import ALL_SCENARIOS
from pipelines.life.gate import best_baseline
from pipelines.life.pairs import ACTUAL, REPLICATE, replicates
from pipelines.quality.forecasts import KEY, broken, forecast_rules, in_words
from pipelines.quality.rules import Rule, count_rows
from pipelines.spark import buckets
from pipelines.spark.shards import shards_in, write_shards
from pipelines.warehouse.sequences import SequenceFiles, held_out_cutoffs
from pipelines.warehouse.store import Folder, Packed

if TYPE_CHECKING:
    from m2m_model.rivals.artifact import Rival

# Errors, groups, value and broken rules come from one pass over the forecasts, so as one table: ``figure`` tells them
# apart, and is null in a row of errors.
_TEXT = pl.String()
_EXTRA: dict[str, pl.DataType] = {"figure": _TEXT, "bin": pl.Int32(), "example": _TEXT, "sum_error": pl.Float64()}
SUMS = pl.Schema(pl.DataFrame(CELL_SCHEMA.empty_table()).schema)
_JUDGED = pl.Schema(SUMS | _EXTRA | dict.fromkeys(REPLICATE, pl.Float64()))
_KEYS = [*KEYS, "figure", "bin", "example"]
_TARGET = ("task", "horizon_days")
_GROUP, _BROKEN, _PAIRED = "group", "broken", "paired"
_SPREAD = ("pinball", "coverage_50", "coverage_90", "level_50", "level_90")  # what points alone do not have
_GROUP_FIGURES = (
    "nmae",
    "bias",
    "zero_points",
    "zeros",
    "p_zero",
    "level_50",
    "level_90",
    "coverage_50",
    "coverage_90",
)
# What finishes value, its column of parts, and what marts.backtest_value calls its figures.
_VALUE_FIGURES: tuple[tuple[Callable[[pa.Table, Sequence[str]], pa.Table], str | None, dict[str, str]], ...] = (
    (ranking, None, {name: name for name in ("gini", "top_decile_capture", "perfect_capture")}),
    (size_deciles, "decile", {name: f"size_{name}" for name in ("nmae", "bias", "actual_share")}),
    (churn, None, {name: f"churn_{name}" for name in ("rate", "auc", "brier", "brier_base")}),
    (reliability, "bin", {name: f"churn_{name}" for name in ("predicted", "observed")}),
)
PAIRS_PER_BUCKET = 400  # sampled for the plot: bounded, whatever the number of advertisers


@dataclass(frozen=True)
class Contenders:
    """What is compared: models by name, the baselines with their interval calibrations, and, where there are some, the
    rivals."""

    models: Mapping[str, Packed]
    baselines: Mapping[str, ResidualQuantiles]
    rivals: Packed | None = None


@lru_cache(maxsize=4)
def load_forecaster(model: Packed, measured: bool = False) -> Forecaster:
    """A model, loaded once per Python worker; ``measured``: with the weights that may be judged on held-out cutoffs."""
    with model.unpacked() as folder:
        return Forecaster.load(folder, measured=measured)


def differs(model: Packed, spec: SequenceSpec) -> str:
    """What a model was trained with that pipeline.toml declares otherwise now, in words; empty if nothing."""
    trained = load_forecaster(model).spec
    names = [field.name for field in fields(spec) if field.compare]
    return ", ".join(name for name in names if getattr(trained, name) != getattr(spec, name))


@lru_cache(maxsize=4)
def load_rivals(rivals: Packed) -> Mapping[str, Rival]:
    """The rivals of a training run, loaded once per Python worker of a backtest; no other stage imports them.

    Raises:
        ValueError: a file is missing or damaged.
    """
    from m2m_model.rivals import artifact

    with rivals.unpacked() as folder:
        return artifact.load_rivals(folder)


@dataclass(frozen=True)
class Judged:
    """What came of an evaluation, each all that a few rows per cell can say: ``errors`` per (cutoff, forecaster,
    scenario, target), ``worth`` per (forecaster, scenario, target, figure, bin), ``groups`` per (forecaster, target,
    group), all additive sums; ``replicates`` of errors, for pairs; and ``broken``, of each model that broke rules of
    forecasts, which, in words."""

    errors: pl.DataFrame
    worth: pl.DataFrame
    groups: pl.DataFrame
    replicates: pl.DataFrame
    broken: dict[str, str]


def evaluate(spark: SparkSession, sequences: SequenceFiles, cutoffs: Sequence[date], contenders: Contenders) -> Judged:
    """Judge every contender on the eligible series of each cutoff, and count the rules that a model breaks: of everyone
    at the newest cutoff, silent series too, as score would publish it."""
    spec, rules = sequences.spec, forecast_rules(sequences.spec)

    def judge(bucket: int) -> pl.DataFrame:
        panel = sequences.panel(bucket)
        errors, groups, worth, reports, summed = [], [], [], [], dict[str, Floats]()

        def add(name: str, series: Ints, amount_NM: Floats) -> None:
            """For pairs, which are of a model and another."""
            if CHALLENGER in contenders.models and name not in RIVALS:
                summed.setdefault(name, np.zeros((len(panel), len(spec.targets))))[series] += amount_NM

        for cutoff in cutoffs:
            day = panel.index_of(cutoff)
            actual_NM = targets_Nm(panel, day)
            for name, forecasts in _forecasts(contenders, panel, cutoff, cutoff == max(cutoffs)):
                sound = True
                if name in contenders.models:
                    broken_rules = _rows_that_break(forecasts, spec, rules, bucket)
                    reports.append(broken_rules.with_columns(forecaster=pl.lit(name)))
                    sound = broken_rules.is_empty()
                    forecasts = forecasts[is_eligible(served_by(panel, day)[forecasts.series_N])]
                series, spread = forecasts.series_N, forecasts.distribution
                add(name, series, np.abs(actual_NM[series] - spread.point_NM))
                if name == CHALLENGER:
                    add(ACTUAL, series, actual_NM[series])
                errors.append(cell_sums(spread, actual_NM[series], forecasts.scenario_N, spec.targets, cutoff, name))
                if not sound:  # its figures are no numbers to add up
                    continue
                worth.append(valued(forecasts, panel, cutoff, name))
                if CHALLENGER in contenders.models:
                    scale_M = np.asarray(load_forecaster(contenders.models[CHALLENGER]).inputs.target_scales)
                    group_NM = stratum_NM(panel, day, series, scale_M)
                    groups.append(group_sums(spread, actual_NM[series], group_NM, spec.targets, name))
        parts = [_frame(pa.concat_tables(errors)), *reports]
        parts += [_frame(table).drop("cutoff") for table in worth]
        parts += [_frame(table).rename({"group": "bin"}).with_columns(figure=pl.lit(_GROUP)) for table in groups]
        if summed:
            parts.append(replicates(summed, panel, spec.targets).with_columns(figure=pl.lit(_PAIRED)))
        together = pl.concat([pl.DataFrame(schema=_JUDGED), *parts], how="diagonal_relaxed")
        return together.group_by(_KEYS, maintain_order=True).sum()

    found = buckets.map_buckets(spark, sequences.buckets, judge, _JUDGED, sum_by=_KEYS).sort(_KEYS)
    figure = pl.col("figure")
    counted = found.filter(figure == _BROKEN).select(
        "forecaster", counter="task", value=pl.col("n").cast(pl.Float64), bucket="bin", example="example"
    )
    words = {name: in_words(broken(counted.filter(forecaster=name), rules)) for name in counted["forecaster"].unique()}
    return Judged(
        found.filter(figure.is_null()).select(*SUMS),
        found.filter(figure.is_not_null(), ~figure.is_in([_GROUP, _BROKEN, _PAIRED])).select(VALUE_SCHEMA.names),
        found.filter(figure == _GROUP).rename({"bin": "group"}).select(GROUP_SCHEMA.names),
        found.filter(figure == _PAIRED).select("scenario_id", "forecaster", *_TARGET, *REPLICATE),
        words,
    )


def _rows_that_break(forecasts: Forecasts, spec: SequenceSpec, rules: Sequence[Rule], bucket: int) -> pl.DataFrame:
    """Count and example of each rule that some forecast breaks, as rows of ``_JUDGED``."""
    rows = _frame(forecasts.to_table(spec)).with_columns(ds=pl.lit(forecasts.cutoff)).sort("ds", *KEY)
    report = count_rows(bucket, rows, rules, KEY).filter(pl.col("counter") != "rows")
    return report.select(
        figure=pl.lit(_BROKEN),
        task="counter",
        bin="bucket",
        n=pl.col("value").cast(pl.Int64),
        example=pl.format("{} as of {}", pl.col("example").fill_null(""), "ds"),
    )


def valued(forecasts: Forecasts, panel: Panel, cutoff: date, name: str) -> pa.Table:
    """Sums of what a forecast is worth: ranking by its mean, size by the recent level, and, where a task counts active
    days, leaving by its probability of none."""
    day, series, spread = panel.index_of(cutoff), forecasts.series_N, forecasts.distribution
    actual_NM = targets_Nm(panel, day, series)
    targets, active = panel.spec.targets, active_task(panel.spec)
    leaving = [m for m, target in enumerate(targets) if target.name == active]
    return value_sums(
        spread.mean_NM,
        actual_NM,
        BASELINES["mean_28"](panel, day, series),
        spread.p_zero_NM[:, leaving] if leaving else None,
        actual_NM[:, leaving] == 0 if leaving else None,
        forecasts.scenario_N,
        targets,
        cutoff,
        name,
    )


def titled(rows: pl.DataFrame, spec: SequenceSpec) -> pl.DataFrame:
    """The same with each target's title as the task, for people: it tells several horizons apart."""
    if len(spec.horizons_days) == 1:
        return rows
    return rows.with_columns(task=pl.format("{} {}d", "task", "horizon_days"))


def active_task(spec: SequenceSpec) -> str | None:
    """The task whose zero means that an advertiser left, if there is one."""
    return next((task.name for task in spec.tasks if task.metric == ACTIVE), None)


def sample_pairs(spark: SparkSession, sequences: SequenceFiles, cutoff: date, model: Packed) -> pl.DataFrame:
    """A bounded sample of (target's title as task, actual, forecast) of one model at one cutoff, for a plot."""
    schema = pl.Schema({"task": pl.String(), "actual": pl.Float64(), "forecast": pl.Float64()})

    def take(bucket: int) -> pl.DataFrame:
        panel = sequences.panel(bucket)
        forecasts = load_forecaster(model, measured=True).predict(panel, cutoff)
        step = max(1, len(forecasts.series_N) // PAIRS_PER_BUCKET)
        actual_NM = targets_Nm(panel, panel.index_of(cutoff))[forecasts.series_N]
        parts = [
            pl.DataFrame(
                {"actual": actual_NM[::step, m], "forecast": forecasts.distribution.point_NM[::step, m]}
            ).with_columns(task=pl.lit(title))
            for m, title in enumerate(sequences.spec.titles)
        ]
        return pl.concat(parts)

    return buckets.map_buckets(spark, sequences.buckets, take, schema)


def figures(sums: pl.DataFrame) -> pl.DataFrame:
    """Errors per cell, per target over all scenarios (*), per cutoff and over all cutoffs (null)."""
    table = sums.to_arrow()
    of_all = ("forecaster", *_TARGET)
    levels = [("cutoff", "scenario_id", *of_all), ("cutoff", *of_all), ("scenario_id", *of_all), of_all]
    parts = []
    for by in levels:
        part = _frame(finish(table, by))
        if "scenario_id" not in by:
            part = part.with_columns(scenario_id=pl.lit(ALL_SCENARIOS))
        if "cutoff" not in by:
            part = part.with_columns(cutoff=pl.lit(None, pl.Date))
        parts.append(
            part.select(*KEYS, pl.exclude(*KEYS)).cast(
                {"n": pl.Int64, "scenario_id": pl.String, "forecaster": pl.String, "task": pl.String}
            )
        )
    found = pl.concat(parts).with_columns(pl.col(pl.Float64).fill_nan(None))
    found = found.drop("p_zero", "zeros", "zero_points", "mean_bias")
    return found.with_columns(pl.when(~pl.col("forecaster").is_in(list(RIVALS))).then(pl.col(_SPREAD)).name.keep())


def group_figures(groups: pl.DataFrame) -> pl.DataFrame:
    """Is a forecaster as honest with the steady as with the rare, with the small as with the large? One figure a row,
    as ``value_figures`` gives them; ``part`` is ``data.activity``'s code of m2m_model."""
    found = _frame(finish(groups.to_arrow(), ("forecaster", *_TARGET, "group"))).rename({"group": "part"})
    points_alone = pl.col("forecaster").is_in(list(RIVALS))
    found = found.with_columns(pl.when(~points_alone).then(pl.col("p_zero", *_SPREAD[1:])).name.keep())
    found = found.select("forecaster", *_TARGET, "part", pl.col("n").cast(pl.Float64), *_GROUP_FIGURES)
    found = found.rename({name: f"group_{name}" for name in _GROUP_FIGURES})
    index = ["forecaster", "scenario_id", *_TARGET, "part", "n"]
    found = found.with_columns(scenario_id=pl.lit(ALL_SCENARIOS)).unpivot(index=index, variable_name="figure")
    return found.with_columns(pl.col("value").fill_nan(None))


def value_figures(worth: pl.DataFrame, active: str | None) -> pl.DataFrame:
    """What forecasts are worth, one figure a row, per scenario and over all (*): ``marts.backtest_value`` without its
    lineage. ``active`` is the task whose zero means leaving."""
    leaving, no_probability = pl.col("figure") == CHURN, pl.col("forecaster").is_in(list(RIVALS))
    kept = worth.filter(~(leaving & no_probability))
    sums = kept.with_columns(task=pl.when(leaving).then(pl.lit(active, pl.String)).otherwise("task")).to_arrow()
    parts = []
    for finish_value, part, names in _VALUE_FIGURES:
        for by in (("forecaster", *_TARGET), ("forecaster", "scenario_id", *_TARGET)):
            found = _frame(finish_value(sums, by)).rename(names).cast({"n": pl.Float64})
            if "scenario_id" not in by:
                found = found.with_columns(scenario_id=pl.lit(ALL_SCENARIOS))
            found = found.with_columns(part=pl.col(part) if part else pl.lit(None, pl.Int32))
            index = ["forecaster", "scenario_id", *_TARGET, "part", "n"]
            parts.append(found.unpivot(list(names.values()), index=index, variable_name="figure"))
    return pl.concat(parts, how="vertical_relaxed").with_columns(pl.col("value").fill_nan(None))


def mean_nmae(sums: pl.DataFrame) -> dict[str, float]:
    """Mean over targets of each forecaster's NMAE, over all cutoffs and scenarios: the number that ranks them."""
    ranked = mean_over_tasks(finish(sums.to_arrow(), ("forecaster", *_TARGET)))
    return dict(zip(ranked["forecaster"].to_pylist(), ranked["nmae"].to_pylist(), strict=True))


@dataclass(frozen=True)
class Fallback:
    """What serves when there is no champion: the best baseline by its name, every baseline's interval calibration, what
    the series of the best one share, how its totals come, and the values of attributes that have totals."""

    name: str
    calibrations: Mapping[str, ResidualQuantiles]
    shared: Dependence
    pacing: Pacing
    attributes: Mapping[str, Sequence[str]]


def fallback(run: Run, spark: SparkSession, sequences: SequenceFiles, scratch: Folder) -> Fallback:
    """The best baseline at the held-out cutoffs, and what was learned on cutoffs before the held-out ones."""
    config = run.config
    cutoffs = held_out_cutoffs(config, run.ds)
    folder = scratch / "runs" / run.run_id
    try:
        inputs = fit_inputs(write_shards(spark, sequences, folder, cutoffs[-1]), config.model.bins)
        with folder.at_hand() as place:
            calibrations, shared, pacings = calibrate_baselines(
                shards_in(place), inputs, cutoffs[-1], config.training.validation_cutoffs
            )
    finally:
        folder.remove()
    judged = evaluate(spark, sequences, cutoffs, Contenders({}, calibrations))
    best = best_baseline(mean_nmae(judged.errors))
    return Fallback(best, calibrations, shared[best], pacings[best], inputs.attributes)


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _forecasts(contenders: Contenders, panel: Panel, cutoff: date, all_series: bool) -> list[tuple[str, Forecasts]]:
    models = [
        (name, load_forecaster(model, measured=True).predict(panel, cutoff, all_series=all_series))
        for name, model in contenders.models.items()
    ]
    baselines = [(name, forecast_baseline(name, panel, cutoff, contenders.baselines)) for name in BASELINES]
    if not contenders.rivals:
        return models + baselines
    rivals = load_rivals(contenders.rivals).items()
    return models + baselines + [(n, rival_forecasts(n, r, panel, cutoff, contenders.baselines)) for n, r in rivals]
