"""The work of `backtest`: pipelines/backtest.py says what it reads and writes, and when it fails."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
from pyspark.sql import SparkSession

from m2m_model.forecasts.forecaster import Forecaster
from m2m_model.forecasts.methods import without_weight
from pipelines.chain import CHALLENGER, CHAMPION
from pipelines.cli import Run, warn
from pipelines.config import ALL_SCENARIOS
from pipelines.errors import DataError
from pipelines.life import plots
from pipelines.life.evaluation import (
    Contenders,
    active_task,
    differs,
    evaluate,
    figures,
    group_figures,
    load_forecaster,
    load_rivals,
    mean_nmae,
    sample_pairs,
    titled,
    value_figures,
)
from pipelines.life.gate import best_baseline
from pipelines.life.pairs import compared
from pipelines.life.registry import LostModelError, ModelVersion, Registry
from pipelines.quality.publish import Draft, publish
from pipelines.spark.session import spark_session
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.pins import Reads
from pipelines.warehouse.sequences import held_out_cutoffs, open_sequences
from pipelines.warehouse.store import Packed

TABLE, VALUE_TABLE, PAIR_TABLE = "marts.backtest", "marts.backtest_value", "marts.backtest_pair"
_LOGGED_VALUE = ("gini", "churn_auc", "churn_brier")


def backtest(run: Run, spark: SparkSession, warehouse: Warehouse) -> None:
    """Judge, write and log."""
    config, ds = run.config, run.ds
    registry = Registry(config)
    challenger = registry.get(CHALLENGER)
    if challenger is None:
        raise DataError(f"model {registry.name}: no version has the alias challenger; train one for {ds} first")
    champion = usable_champion(registry)
    reads = Reads(run.stage, warehouse)
    # Both aliases as they were found: the gate decides only while they still are.
    reads.model(CHALLENGER, challenger.version)
    reads.model(CHAMPION, registry.version_of(CHAMPION))
    sequences = open_sequences(config, reads, ds)
    if other := differs(challenger.packed, sequences.spec):
        raise DataError(
            f"{TABLE} ds={ds}: challenger {challenger.version} was trained with other {other} than pipeline.toml has "
            f"now; train for {ds} first: python -m pipelines.train --config {config.path} --date {ds}"
        )
    versions: dict[str, ModelVersion] = {CHALLENGER: challenger}
    if champion is not None and champion.version != challenger.version:
        if other := differs(champion.packed, sequences.spec):
            run.say(f"warning: champion {champion.version} was trained with other {other}; it is not compared")
        else:
            versions[CHAMPION] = champion
    models = {name: version.packed for name, version in versions.items()}
    cutoffs = held_out_cutoffs(config, ds)
    for name, version in versions.items():
        refuse_seen_cutoffs(f"{name} {version.version}", load_forecaster(version.packed), cutoffs, ds)
    calibrations = load_forecaster(challenger.packed).calibrations
    contenders = Contenders(models, calibrations, usable_rivals(run, registry, challenger))
    judged = evaluate(spark, sequences, cutoffs, contenders)
    if judged.errors.is_empty():
        raise DataError(
            f"{TABLE} ds={ds}: no series had a row in the {config.dataset.eligible_days} days before a cutoff"
        )

    numbers = pl.DataFrame(
        {"forecaster": list(versions), "model_version": [version.version for version in versions.values()]}
    )
    active = active_task(sequences.spec)
    found = with_methods(figures(judged.errors), {name: load_forecaster(model) for name, model in models.items()})
    everywhere = pl.col("cutoff").is_null() & (pl.col("scenario_id") == ALL_SCENARIOS)
    of_model = pl.col("forecaster").replace_strict(judged.broken, default=None, return_dtype=pl.String)
    found = found.with_columns(broken=pl.when(everywhere).then(of_model))
    value = pl.concat([value_figures(judged.worth, active), group_figures(judged.groups)], how="diagonal_relaxed")
    drafts = []
    for table, part in ((VALUE_TABLE, value), (TABLE, found)):
        rows = part.join(numbers, on="forecaster", how="left").with_columns(ds=pl.lit(ds), run_id=pl.lit(run.run_id))
        drafts.append(Draft.uncounted(table, [ds], warehouse.write_rows(table, rows, run.run_id)))
    mean, spec = mean_nmae(judged.errors), sequences.spec
    counted = (
        judged.errors.filter(forecaster=CHALLENGER).group_by("scenario_id", "task", "horizon_days").agg(pl.sum("n"))
    )
    others = [name for name in (CHAMPION, best_baseline(mean)) if name in mean]
    pairs = compared(judged.replicates, counted, spec, others, list(models))
    pairs = pairs.with_columns(ds=pl.lit(ds), run_id=pl.lit(run.run_id))
    drafts.insert(1, Draft.uncounted(PAIR_TABLE, [ds], warehouse.write_rows(PAIR_TABLE, pairs, run.run_id)))
    publish(run, warehouse, reads, drafts)

    overall = titled(found.filter(pl.col("cutoff").is_null()), spec)
    metrics: dict[tuple[str, ...], float] = {("backtest_nmae", name): value for name, value in mean.items()}
    for forecaster, scenario, task, nmae, coverage in overall.select(
        "forecaster", "scenario_id", "task", "nmae", "coverage_90"
    ).iter_rows():
        metrics["backtest_nmae", forecaster, scenario, task] = nmae if nmae is not None else float("nan")
        if coverage is not None:
            metrics["backtest_coverage_90", forecaster, scenario, task] = coverage
    for days in spec.horizons_days if len(spec.horizons_days) > 1 else ():
        of_horizon = mean_nmae(judged.errors.filter(horizon_days=days))
        metrics |= {("backtest_nmae", name, f"{days}d"): nmae for name, nmae in of_horizon.items()}
    value = titled(value, spec)
    logged = value.filter(pl.col("figure").is_in(_LOGGED_VALUE)).drop_nulls("value")
    for figure, *parts, number in logged.select("figure", "forecaster", "scenario_id", "task", "value").iter_rows():
        metrics[f"backtest_{figure}", *parts] = number
    registry.log_metrics(challenger.run_id, metrics)
    if CHAMPION in judged.broken:
        run.say(f"warning: champion {versions[CHAMPION].version} is no bar to pass: {judged.broken[CHAMPION]}")
    if CHALLENGER in judged.broken:
        run.say(f"warning: challenger {challenger.version} will not be promoted: {judged.broken[CHALLENGER]}")
        return  # nothing of it can be drawn
    sample = sample_pairs(spark, sequences, cutoffs[0], challenger.packed)
    with TemporaryDirectory(prefix="m2m-") as folder:
        together = value.filter(scenario_id=ALL_SCENARIOS)
        for picture in _pictures(together, spec.horizon_days, sample, bool(active), Path(folder)):
            registry.client.log_artifact(challenger.run_id, str(picture), "plots")
    best = best_baseline(mean)
    words = ", ".join(f"{name} {value:.4f}" for name, value in sorted(mean.items(), key=lambda item: item[1]))
    run.say(f"mean NMAE over {len(cutoffs)} cutoffs {cutoffs[-1]}..{cutoffs[0]}: {words}; best baseline {best}")
    shown = ("figure", "task", "value")
    mine = logged.filter(scenario_id=ALL_SCENARIOS, forecaster=CHALLENGER).sort("figure", "task")
    words = ", ".join(f"{figure} {task} {number:.3f}" for figure, task, number in mine.select(*shown).iter_rows())
    run.say(f"{VALUE_TABLE}, challenger: {words or 'nothing happened'}")


def _pictures(
    together: pl.DataFrame, horizon_days: int, pairs: pl.DataFrame, leaving: bool, folder: Path
) -> list[Path]:
    """Of the challenger: forecasts against what happened, errors by size, and of who leaves over the longest horizon
    what was told."""
    pictures = [
        plots.forecast_plot(pairs, folder),
        plots.decile_plot(together.filter(figure="size_nmae"), CHALLENGER, folder),
    ]
    if leaving:
        told = pl.col("figure").is_in(["churn_predicted", "churn_observed"])
        sides = together.filter(told, forecaster=CHALLENGER, horizon_days=horizon_days)
        bins = sides.pivot("figure", index=["part", "n"], values="value")
        pictures.append(plots.reliability_plot(bins, folder))
    return pictures


def usable_champion(registry: Registry) -> ModelVersion | None:
    """The champion to compare with; None, with a warning, if its files are lost: then it serves nobody."""
    try:
        return registry.get(CHAMPION)
    except LostModelError as error:
        warn(f"{error.lines[0]}. It is not compared")
        return None


def refuse_seen_cutoffs(name: str, forecaster: Forecaster, cutoffs: list[date], ds: date) -> None:
    """Nobody is judged on days that he was trained or calibrated on.

    Raises:
        DataError: a cutoff lies before the day from which on the model has seen nothing.
    """
    try:
        unseen_from = date.fromisoformat(forecaster.metadata["held_out_from"])
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{TABLE} ds={ds}: {name} does not say up to which day it has seen the data (held_out_from in its "
            f"config.json), so no cutoff is known to be a test of it. Train for {ds}"
        ) from None
    if seen := [cutoff for cutoff in cutoffs if cutoff < unseen_from]:
        raise DataError(
            f"{TABLE} ds={ds}: {name} has seen the days up to {unseen_from}, so {len(seen)} of {len(cutoffs)} cutoffs "
            f"are no test of it; expected 0. First: {min(seen)}. Train for {ds}, or run backtest for a date from "
            f"{ds + (unseen_from - min(seen))} on"
        )


def with_methods(found: pl.DataFrame, models: Mapping[str, Forecaster]) -> pl.DataFrame:
    """Errors, and who makes a model's points: in a scenario the one, for all scenarios each, without weights."""
    cells = found.filter(pl.col("forecaster").is_in(list(models)), pl.col("scenario_id") != ALL_SCENARIOS)
    rows = []
    for forecaster, scenario in cells.select("forecaster", "scenario_id").unique().sort(pl.all()).iter_rows():
        model = models[forecaster]
        made = zip(model.spec.targets, model.methods(scenario), strict=True)
        rows += [(forecaster, scenario, target.name, target.horizon_days, method) for target, method in made]
    key = ["forecaster", "scenario_id", "task", "horizon_days"]
    schema = dict.fromkeys([*key, "method"], pl.String) | {"horizon_days": pl.Int32}
    each = pl.DataFrame(rows, schema, orient="row")
    plain = each.with_columns(pl.col("method").map_elements(without_weight, pl.String))
    together = plain.group_by("forecaster", "task", "horizon_days").agg(pl.col("method").unique().sort().str.join(", "))
    together = together.with_columns(scenario_id=pl.lit(ALL_SCENARIOS)).select(each.columns)
    return found.join(pl.concat([each, together]), on=key, how="left")


def usable_rivals(run: Run, registry: Registry, challenger: ModelVersion) -> Packed | None:
    """The rivals of the challenger's run, or None with a warning: what serves is in the model, so their loss stops
    nothing."""
    try:
        rivals = registry.rivals(challenger.run_id)
        targets = len(load_forecaster(challenger.packed).spec.targets)
        for name, rival in load_rivals(rivals).items() if rivals else ():
            if rival.targets != targets:
                raise ValueError(f"{name} is of {rival.targets} targets, the challenger of {targets}")
        return rivals
    except ValueError as error:
        run.say(
            f"warning: the rivals of version {challenger.version} cannot be opened and are not judged: {error}. "
            "The next training writes new ones"
        )
        return None


def work(run: Run) -> None:
    warehouse = Warehouse.existing(run.config, run.ds)
    with spark_session(run.config, run.run_id, run.stage) as spark:
        backtest(run, spark, warehouse)
