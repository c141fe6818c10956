"""Accuracy on the shipped real data sets, against every baseline, with spread: docs/results.md and docs/results.json.

    python -m benchmarks.results [--data online_ads online_retail] [--quick]

Sequences are built by the stages; then training and forecasting are the functions that the stages call, in this
process. Each *block* is one as-of date: a training, and the held-out cutoffs after it. "Best baseline" is the best of
all baselines per task and cutoff, picked afterwards: the hardest bar there is. ``--quick`` runs one seed, one block and
no ablations, and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import lightgbm
import matplotlib as mpl
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.measure import machine
from benchmarks.peers import ELIGIBLE, SCENARIO, SERIES, STEPS, WEEK
from m2m_model.config import ModelConfig, Task, TrainConfig
from m2m_model.data.activity import stratum_name, stratum_NM
from m2m_model.data.features import fit_inputs
from m2m_model.data.panel import Panel
from m2m_model.data.served_by import COLD_START, eligible, is_eligible, served_by, served_on
from m2m_model.data.statistics import PanelStatistics
from m2m_model.data.targets import targets_Nm
from m2m_model.forecasts.baselines import BASELINES
from m2m_model.forecasts.calibration import LevelCalibration
from m2m_model.forecasts.cells import CELL_ROWS
from m2m_model.forecasts.distribution import Distribution, pool
from m2m_model.forecasts.forecaster import Forecaster
from m2m_model.forecasts.forecasts import Forecasts, forecast_baseline, rival_forecasts
from m2m_model.forecasts.metrics import CELL_SCHEMA, cell_sums, finish, group_sums, mean_over_tasks
from m2m_model.judging.value import churn, ranking, reliability, size_deciles
from m2m_model.rivals import NAMES as RIVALS
from m2m_model.rivals.artifact import Rivals, fit_rivals
from m2m_model.rivals.boosted import (
    CUTOFFS,
    EVERY_DAYS,
    SETTINGS,
    TREES,
    features,
)
from m2m_model.training.calendar import train_end, validation_cutoffs
from m2m_model.training.loop import train_rank
from pipelines.config import Config, load_config
from pipelines.life.evaluation import valued

mpl.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
PEERS_HOME = ROOT / ".venv-peers"  # the environment of benchmarks/peers.py, made by make results
SEEDS = (1, 2, 3)
PER_CELL = "one model per cell"
ALONE = "network alone"
DEFAULTS = "defaults, short training"
SIMPLE = "simple, chosen by validation"
SAME_LABELS = "lightgbm_level, the network's labels"
Settings = dict[str, Any]  # of a model or of a training: what differs from the defaults
PAPER: Settings = {
    "loss": "poisson",
    "patch_days": 1,
    "meta_rank": 0,
    "exposure_offset": False,
    "level_weights": False,
    "window_features": False,
    "scenario_dropout": 0.0,
}
# Ablations are compared among themselves: a third of the windows keeps the whole report within an hour.
SHORT: Settings = {
    "max_windows": 100_000,
    "epochs": 3,
    "validation_windows": 10_000,
    "boosted": False,
    "blend": False,
}
SHARED: Settings = {"architecture": "shared_bottom"}
# name -> what differs from the defaults
ABLATIONS: dict[str, tuple[Settings, Settings]] = {
    "without meta attention": ({"meta_attention": False}, {}),
    "without meta tower": ({"meta_tower": False}, {}),
    "without transformer": ({"transformer": False}, {}),
    "full-rank meta weights": ({"meta_rank": 0}, {}),
    "daily tokens": ({"patch_days": 1}, {}),
    "without window features": ({"window_features": False}, {}),
    "without scenario dropout": ({"scenario_dropout": 0.0}, {}),
    "without level weights": ({"level_weights": False}, {}),
    "one validation cutoff": ({}, {"validation_cutoffs": 1}),
    "negative binomial": ({"loss": "negative_binomial"}, {}),
    "zero-inflated lognormal": ({"loss": "lognormal"}, {}),
    "the paper's Poisson M2M": (PAPER, {}),
    "MMoE": ({"architecture": "mmoe"}, {}),
    "shared bottom": (SHARED, {}),
}
POINTS = ("without level calibration", "point = median", f"mean of {len(SEEDS)} seeds")
VARIANTS = (*ABLATIONS, *POINTS, PER_CELL)


@dataclass(frozen=True)
class DataSet:
    """A shipped data set, its last day, its blocks (as-of, days between cutoffs), the scenarios left out in turn."""

    name: str
    last_day: date
    blocks: tuple[tuple[date, int], ...]
    left_out: tuple[str, ...]


DATA = {
    "online_retail": DataSet(
        "online_retail", date(2011, 12, 9), ((date(2011, 12, 9), 7), (date(2011, 11, 11), 7)), ("UK", "Germany", "EIRE")
    ),
    "online_ads": DataSet("online_ads", date(2020, 6, 30), ((date(2020, 6, 30), 3), (date(2020, 6, 18), 3)), ("abc",)),
}
CUTOFFS_A_BLOCK = 4
HARD = (*BASELINES, *RIVALS)


def sequences(data: DataSet, home: Path) -> tuple[pa.Table, Config]:
    """The sequences as of the last day, built by the stages themselves."""
    os.environ["M2M_HOME"] = str(home)
    from pipelines.warehouse.commits import Warehouse
    from pipelines.warehouse.sequences import open_sequences

    config = load_config(ROOT / "examples" / data.name / "pipeline.toml")
    first, last = str(config.dataset.first_day), str(data.last_day)
    for stage in (["stage_sources", "--from", first, "--to", last], ["build_sequences", "--date", last]):
        command = [sys.executable, "-m", f"pipelines.{stage[0]}", "--config", str(config.path), *stage[1:]]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    files = open_sequences(config, Warehouse(config), data.last_day)
    return pa.concat_tables([files.rows(bucket).to_arrow() for bucket in files.buckets]), config


def train(
    panel: Panel,
    held_out_from: date,
    folder: Path,
    model: Settings,
    training: Settings,
    rivals: Rivals | None = None,
) -> tuple[Forecaster, float]:
    """A forecaster with the defaults but for what is named, and the seconds that it took."""
    started = time.monotonic()
    settings = replace(TrainConfig(), **training)
    end = train_end(panel.first_day, held_out_from, panel.spec.horizons_days, settings.validation_cutoffs)
    config = replace(ModelConfig(), **model)
    inputs = fit_inputs(PanelStatistics.of(panel, end), config.bins)
    shard = panel.save(folder / "shard")
    result = train_rank([shard], folder, inputs, config, settings, held_out_from, rivals=rivals)
    return Forecaster.load(result.model_folder), time.monotonic() - started


def learned_baselines(panel: Panel, held_out_from: date) -> tuple[Rivals, float]:
    """Every rival, as ``train`` fits them, and the seconds that it took."""
    started, spec, settings = time.monotonic(), panel.spec, TrainConfig()
    cutoffs = validation_cutoffs(panel.first_day, held_out_from, spec.horizons_days, settings.validation_cutoffs)
    inputs = fit_inputs(PanelStatistics.of(panel, cutoffs[-1]), ModelConfig().bins)
    return fit_rivals([panel], inputs, cutoffs, held_out_from), time.monotonic() - started


def subset(rows: pa.Table, panel: Panel, kept_N: np.ndarray, tasks: tuple[Task, ...]) -> Panel:
    """Some of the series that a panel was made of, for some of its tasks."""
    kept = rows.filter(pa.array(kept_N))
    return Panel.from_sequences(kept, replace(panel.spec, tasks=tasks), panel.last_day, panel.days)


def judged(forecasts: Forecasts, panel: Panel, cutoff: date, name: str) -> pa.Table:
    """Error sums; series with under 7 days of history are judged apart too, as ``NAME, cold start``."""
    targets = panel.spec.targets
    actual_NM = targets_Nm(panel, panel.index_of(cutoff), forecasts.series_N)
    young_N = served_by(panel, panel.index_of(cutoff))[forecasts.series_N] == COLD_START
    parts = [
        cell_sums(forecasts.distribution[rows], actual_NM[rows], forecasts.scenario_N[rows], targets, cutoff, label)
        for rows, label in ((np.ones(len(actual_NM), bool), name), (young_N, f"{name}, cold start"))
    ]
    return pa.concat_tables(parts)


def chosen_simple(forecaster: Forecaster, panel: Panel, cutoff: date) -> Forecasts:
    """What validation would have chosen without the network and LightGBM."""
    simple = [forecaster.metadata["simple"][title] for title in panel.spec.titles]
    each = [forecast_baseline(name, panel, cutoff, forecaster.calibrations) for name in simple]
    point_NM = np.stack([forecasts.distribution.point_NM[:, m] for m, forecasts in enumerate(each)], 1)
    return replace(each[0], distribution=Distribution.point(point_NM))


def oracle(panel: Panel, later: Panel, cutoffs: Sequence[date], scenarios: tuple[str, ...]) -> pa.Table:
    """What the noise leaves: LightGBM L1 that also sees the totals of the four weeks after the horizon."""
    horizon = panel.spec.horizon_days
    running = np.pad(np.cumsum(later.daily_NTM, 1, dtype=np.float64), ((0, 0), (1, 0), (0, 0)))

    def seen(day: int, series: np.ndarray) -> np.ndarray:
        after = [running[series, day + 1 + horizon + d] - running[series, day + 1 + horizon] for d in (7, 14, 28)]
        known = features(later, day, series, scenarios)
        return np.column_stack([known[:, :-2], *after, known[:, -2:]])

    last = later.index_of(cutoffs[-1]) - horizon - 28
    days = list(range(last, 13, -EVERY_DAYS))[:CUTOFFS]
    rows = [(day, np.flatnonzero(eligible(later, day))) for day in days]
    feature_NX = np.concatenate([seen(day, series) for day, series in rows])
    target_NM = np.concatenate([targets_Nm(later, day, series) for day, series in rows])
    data = lightgbm.Dataset(feature_NX, categorical_feature=[feature_NX.shape[1] - 2], free_raw_data=False)
    boosters = []
    for m in range(target_NM.shape[1]):
        data.set_label(target_NM[:, m])
        boosters.append(lightgbm.train({**SETTINGS, "objective": "l1"}, data, TREES))
    parts = []
    for cutoff in cutoffs:
        day = later.index_of(cutoff)
        forecasts = forecast_baseline("last_h_days", later, cutoff)
        values = [np.maximum(np.asarray(b.predict(seen(day, forecasts.series_N))), 0) for b in boosters]
        known = replace(forecasts.distribution, point_NM=np.stack(values, 1))
        parts.append(judged(replace(forecasts, distribution=known), later, cutoff, "oracle"))
    return pa.concat_tables(parts)


def block_of(data: DataSet, rows: pa.Table, config: Config, number: int) -> tuple[Panel, list[date]]:
    """The panel as of a block's day and its held-out cutoffs, latest first."""
    as_of, every = data.blocks[number]
    panel = Panel.from_sequences(rows, config.sequence_spec, as_of, (as_of - config.dataset.first_day).days + 1)
    latest = as_of - timedelta(days=panel.spec.horizon_days)
    return panel, [latest - timedelta(days=every * k) for k in range(CUTOFFS_A_BLOCK)]


def weeks_of(panel: Panel, cutoff: date) -> pa.Table:
    """Totals over the weeks that end at the cutoff, a row a series and week since it is registered, of every series
    that has been judged by then; whether it is judged at the week's end, too. A week is as long as the horizon."""
    day, length = panel.index_of(cutoff), panel.spec.horizon_days
    end_W = np.arange(day, length - 2, -length)[::-1]
    judged_NW = is_eligible(served_on(panel, end_W))
    kept_NW = (panel.registered_N[:, None] <= end_W) & judged_NW.any(1, keepdims=True)
    daily_NTM = panel.daily_NTM[:, end_W[0] + 1 - length : day + 1]
    total_NWM = daily_NTM.reshape(len(panel), len(end_W), length, -1).sum(2, dtype=np.float64)
    series, week = np.nonzero(kept_NW)
    columns = {SERIES: series, SCENARIO: panel.scenario_N[series].astype(str), WEEK: week, ELIGIBLE: judged_NW[kept_NW]}
    tasks = {task.name: total_NWM[kept_NW][:, m] for m, task in enumerate(panel.spec.tasks)}
    return pa.table(columns | tasks)


def run_peers(
    data: DataSet, rows: pa.Table, config: Config, folder: Path
) -> tuple[list[pa.Table], list[dict[str, Any]]]:
    """Error sums of what a user would pick instead, which ``benchmarks/peers.py`` fits in an environment of its own;
    and which setting of each was chosen, in what time."""
    blocks = {str(as_of): block_of(data, rows, config, number) for number, (as_of, _) in enumerate(data.blocks)}
    give_weeks(blocks, folder)
    subprocess.run([PEERS_HOME / "bin" / "python", ROOT / "benchmarks" / "peers.py", folder], check=True)
    return judged_peers(blocks, folder), json.loads((folder / "fits.json").read_text(encoding="utf-8"))


def give_weeks(blocks: Mapping[str, tuple[Panel, list[date]]], folder: Path) -> None:
    """What ``benchmarks/peers.py`` reads: of each block, by its as-of day, the weeks up to each held-out cutoff."""
    panel, cutoffs = blocks[min(blocks)]
    most = TrainConfig().validation_cutoffs
    choosing = validation_cutoffs(panel.first_day, cutoffs[-1], panel.spec.horizons_days, most)
    plan = {
        "tasks": [task.name for task in panel.spec.tasks],
        "blocks": {as_of: [str(cutoff) for cutoff in cutoffs] for as_of, (_, cutoffs) in blocks.items()},
        "validation_weeks": len(choosing),
    }
    for as_of, (panel, cutoffs) in blocks.items():
        (folder / as_of).mkdir(parents=True)
        for cutoff in cutoffs:
            pq.write_table(weeks_of(panel, cutoff), folder / as_of / f"{cutoff}.parquet")
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")


def judged_peers(blocks: Mapping[str, tuple[Panel, list[date]]], folder: Path) -> list[pa.Table]:
    """Error sums of the forecasts that ``benchmarks/peers.py`` wrote.

    Raises:
        ValueError: a series that is judged has none.
    """
    made, parts = pl.read_parquet(folder / "forecasts.parquet"), []
    for panel, cutoffs in blocks.values():
        tasks = [task.name for task in panel.spec.tasks]
        for cutoff in cutoffs:
            simple = forecast_baseline("last_h_days", panel, cutoff)
            series = pl.DataFrame({SERIES: simple.series_N.astype(np.int64)})
            for name in made["peer"].unique(maintain_order=True):
                wide = made.filter(cutoff=str(cutoff), peer=name).pivot("task", index=SERIES, values="median")
                point_NM = series.join(wide, on=SERIES, how="left", maintain_order="left").select(tasks).to_numpy()
                missing = int(np.isnan(point_NM).any(1).sum())
                if missing:
                    raise ValueError(f"{cutoff}: {name} has no forecast of {missing} of {len(series)} series")
                point = replace(simple, distribution=Distribution.point(point_NM))
                parts.append(judged(point, panel, cutoff, name))
    return parts


def run_block(
    data: DataSet, rows: pa.Table, config: Config, number: int, folder: Path, quick: bool, say: Callable[[str], None]
) -> tuple[list[pa.Table], list[pa.Table], list[pa.Table], list[float]]:
    """Error sums of every forecaster at the block's cutoffs; value sums, and error sums by activity and size, of the
    first seed and the baselines; seconds of the training of each seed."""
    as_of = data.blocks[number][0]
    spec, first_day = config.sequence_spec, config.dataset.first_day
    panel, cutoffs = block_of(data, rows, config, number)
    held_out_from, parts, values, groups = cutoffs[-1], [], [], []
    scale_M = np.zeros(0)  # the scales of the first seed's inputs

    def keep(name: str, forecasts: Forecasts, worth: bool) -> None:
        parts.append(judged(forecasts, panel, forecasts.cutoff, name))
        if worth:
            values.append(valued(forecasts, panel, forecasts.cutoff, name))
            day, series = panel.index_of(forecasts.cutoff), forecasts.series_N
            group_NM = stratum_NM(panel, day, series, scale_M)
            groups.append(
                group_sums(forecasts.distribution, targets_Nm(panel, day, series), group_NM, spec.targets, name)
            )

    def judge(name: str, forecaster: Forecaster, worth: bool = False) -> None:
        for cutoff in cutoffs:
            keep(name, forecaster.predict(panel, cutoff), worth)

    trained, took_s = [], []
    rivals, boosted_s = learned_baselines(panel, held_out_from)
    say(f"{data.name} {as_of} LightGBM: {boosted_s:.0f} s")
    for seed in SEEDS[:1] if quick else SEEDS:
        forecaster, seconds = train(panel, held_out_from, folder, {}, {"seed": seed}, rivals)
        say(f"{data.name} {as_of} m2m, seed {seed}: {seconds:.0f} s")
        took_s.append(seconds + boosted_s)
        scale_M = np.asarray(forecaster.inputs.target_scales)
        judge(f"m2m, seed {seed}", forecaster, worth=seed == SEEDS[0])
        trained.append(replace(forecaster, blend=None, young_blend=None))
        judge(f"{ALONE}, seed {seed}", trained[-1])
        if seed == SEEDS[0]:
            for cutoff in cutoffs:
                keep(SIMPLE, chosen_simple(forecaster, panel, cutoff), False)
                for name in BASELINES:
                    keep(name, forecast_baseline(name, panel, cutoff, forecaster.calibrations), True)
                judged_rivals = {**rivals.late, SAME_LABELS: rivals.early["lightgbm_level"]}
                for name, rival in judged_rivals.items():
                    keep(name, rival_forecasts(name, rival, panel, cutoff, forecaster.calibrations), True)
            if not quick and (data.last_day - cutoffs[0]).days >= spec.horizon_days + 28:
                later = Panel.from_sequences(rows, spec, data.last_day, (data.last_day - first_day).days + 1)
                parts.append(oracle(panel, later, cutoffs, forecaster.inputs.scenarios))
    if quick or number:
        return parts, values, groups, took_s
    judge("without level calibration", replace(trained[0], levels=LevelCalibration.identity(len(spec.targets))))
    for cutoff in cutoffs:
        each = [forecaster.predict(panel, cutoff) for forecaster in trained]
        spread = [forecasts.distribution for forecasts in each]
        share_PNM = np.full((len(spread), *spread[0].mean_NM.shape), 1 / len(spread))
        keep(f"mean of {len(SEEDS)} seeds", replace(each[0], distribution=pool(spread, share_PNM)), False)
        median = replace(spread[0], point_NM=spread[0].median_NM)
        keep("point = median", replace(each[0], distribution=median), False)
    shortened: dict[str, tuple[Settings, Settings]] = {
        f"{DEFAULTS}, seed {seed}": ({}, {"seed": seed}) for seed in SEEDS
    }
    for name, (model, training) in (shortened | ABLATIONS).items():
        forecaster, seconds = train(panel, held_out_from, folder, model, SHORT | training)
        say(f"{data.name} {as_of} {name}: {seconds:.0f} s")
        judge(name, forecaster)
    started = time.monotonic()
    for scenario in sorted(set(panel.scenario_N)):
        for task in spec.tasks:
            cell = subset(rows, panel, panel.scenario_N == scenario, (task,))
            try:
                alone, _ = train(cell, held_out_from, folder, SHARED, SHORT)
            except ValueError:  # a market that opened too late to be trained alone: what everyone else says of it
                fallback = [forecast_baseline("mean_28", cell, cutoff) for cutoff in cutoffs]
            else:
                fallback = [alone.predict(cell, cutoff) for cutoff in cutoffs]
            parts.extend(judged(forecasts, cell, forecasts.cutoff, PER_CELL) for forecasts in fallback)
    say(f"{data.name} {as_of} {PER_CELL}: {time.monotonic() - started:.0f} s")
    for scenario in (name for name in data.left_out if name in set(panel.scenario_N)):
        without = subset(rows, panel, panel.scenario_N != scenario, spec.tasks)
        forecaster, seconds = train(without, held_out_from, folder, {}, SHORT)
        say(f"{data.name} {as_of} without {scenario}: {seconds:.0f} s")
        judge(f"never saw {scenario}", forecaster)
    return parts, values, groups, took_s


SHOWN = ("m2m, seed 1", *HARD)
OVERVIEW = ("forecaster", "nmae", "smape", "nmae_ratio", "spread", "smape_ratio")


def figures(sums: pa.Table, by: Sequence[str]) -> pl.DataFrame:
    found = pl.from_arrow(finish(sums, by))
    assert isinstance(found, pl.DataFrame)
    return found


def against_best(sums: pa.Table, names: Iterable[str]) -> pl.DataFrame:
    """Per forecaster: mean over task x cutoff of its error over the best baseline's of that task and cutoff."""
    each = figures(sums, ("cutoff", "forecaster", "task"))
    best = each.filter(pl.col("forecaster").is_in(HARD)).group_by("cutoff", "task")
    bar = best.agg(pl.min("nmae").alias("best_nmae"), pl.min("smape").alias("best_smape"))
    ratios = each.filter(pl.col("forecaster").is_in(list(names))).join(bar, on=["cutoff", "task"])
    return ratios.group_by("forecaster").agg(
        (pl.col("nmae") / pl.col("best_nmae")).mean().alias("nmae_ratio"),
        (pl.col("smape") / pl.col("best_smape")).mean().alias("smape_ratio"),
        (pl.col("nmae") / pl.col("best_nmae")).std().alias("spread"),
    )


def overview(sums: pa.Table) -> pl.DataFrame:
    """One line a forecaster: mean NMAE and SMAPE over tasks, and both ratios to the best baseline."""
    mean = pl.from_arrow(mean_over_tasks(finish(sums)))
    assert isinstance(mean, pl.DataFrame)
    shown = [name for name in mean["forecaster"] if "cold start" not in name and not name.startswith("never saw")]
    return mean.filter(pl.col("forecaster").is_in(shown)).join(against_best(sums, shown), on="forecaster").sort("nmae")


def table(frame: pl.DataFrame, digits: int = 3) -> list[str]:
    """A frame as a Markdown table."""

    def text(value: object) -> str:
        return "-" if value is None else f"{value:.{digits}f}" if isinstance(value, float) else str(value)

    head = [
        f"| {' | '.join(frame.columns)} |",
        f"| {' | '.join('---:' if t.is_numeric() else '---' for t in frame.dtypes)} |",
    ]
    return [*head, *(f"| {' | '.join(map(text, row))} |" for row in frame.iter_rows()), ""]


def stored(rows: pl.DataFrame) -> pa.Table:
    """Rows of error sums as the table that ``finish`` takes."""
    return rows.to_arrow().cast(CELL_SCHEMA)


def report(data: DataSet, sums: pa.Table, newest: set[date]) -> tuple[list[str], dict[str, Any]]:
    """The data set's chapter, and its figures."""
    every = pl.from_arrow(sums)
    assert isinstance(every, pl.DataFrame)
    main = every.filter(
        ~pl.col("forecaster").is_in(VARIANTS),
        ~pl.col("forecaster").str.contains(f"cold start|never|{ALONE}|{DEFAULTS}"),
    )
    first = every.filter(pl.col("cutoff").is_in(list(newest)))
    found: dict[str, Any] = {"cutoffs": [str(cutoff) for cutoff in sorted(every["cutoff"].unique())]}
    lines = [
        *headline(data, main, found),
        *task_report(main, found),
        *oracle_report(every, found),
        *ablation_report(first, len(newest), found),
        *interval_report(main, found),
        *cell_report(main, found),
        *stranger_report(first, found),
        *cold_start_report(sums, found),
    ]
    return lines, found


def headline(data: DataSet, main: pl.DataFrame, found: dict[str, Any]) -> list[str]:
    """Every forecaster against the best baseline."""
    view = overview(stored(main.filter(pl.col("forecaster") != "oracle")))
    seeds = view.filter(pl.col("forecaster").str.starts_with("m2m, seed"))
    mean, low, high = (getattr(seeds["nmae_ratio"], f)() for f in ("mean", "min", "max"))
    by_name = {row["forecaster"]: row for row in view.to_dicts()}
    nmae = float(seeds.select(pl.mean("nmae")).item())
    found |= {
        "nmae_over_best_baseline": {"mean": mean, "min": low, "max": high},
        "smape_over_best_baseline": seeds["smape_ratio"].mean(),
        "nmae_over_last_h_days": nmae / by_name["last_h_days"]["nmae"],
        "nmae_over_lightgbm_l1": nmae / by_name["lightgbm_l1"]["nmae"],
        "nmae_over_lightgbm_level": nmae / by_name["lightgbm_level"]["nmae"],
        "nmae_over_lightgbm_level_same_labels": nmae / by_name[SAME_LABELS]["nmae"],
        "forecasters": view.to_dicts(),
    }
    cutoffs = found["cutoffs"]
    return [
        f"## {data.name}",
        "",
        f"{len(cutoffs)} cutoffs, {cutoffs[0]} .. {cutoffs[-1]}, from {len(data.blocks)} trainings a seed.",
        f"Against the best baseline of each task and cutoff: NMAE **{mean:.3f}** ({low:.3f} .. {high:.3f} over seeds), "
        f"SMAPE **{found['smape_over_best_baseline']:.3f}**. Against last_h_days: "
        f"NMAE {found['nmae_over_last_h_days']:.3f}; against lightgbm_l1: {found['nmae_over_lightgbm_l1']:.3f}; "
        f"against lightgbm_level: {found['nmae_over_lightgbm_level']:.3f}, and "
        f"{found['nmae_over_lightgbm_level_same_labels']:.3f} where it has the network's labels.",
        "",
        "`nmae_ratio` and `smape_ratio` are to the best baseline, `spread` is the deviation over task x cutoff.",
        "",
        *table(view.select(OVERVIEW)),
    ]


def task_report(main: pl.DataFrame, found: dict[str, Any]) -> list[str]:
    tasks = figures(stored(main), ("forecaster", "task"))
    seeds = tasks.filter(pl.col("forecaster").str.starts_with("m2m, seed")).group_by("task").agg(pl.mean("nmae"))
    over = seeds.join(tasks.filter(forecaster=SIMPLE), on="task", suffix="_simple").sort("task")
    over = over.select("task", ratio=pl.col("nmae") / pl.col("nmae_simple"))
    found["nmae_over_simple_of_validation"] = dict(over.iter_rows())
    tasks = tasks.filter(pl.col("forecaster").is_in([*SHOWN, SIMPLE]))
    return [
        "NMAE per task, all cutoffs together:",
        "",
        *table(tasks.pivot("task", index="forecaster", values="nmae").sort("forecaster")),
        "Over the simple forecast that validation would have chosen, per task, all cutoffs together, mean of seeds: "
        f"{', '.join(f'{task} **{ratio:.3f}**' for task, ratio in over.iter_rows())}.",
        "",
    ]


def oracle_report(every: pl.DataFrame, found: dict[str, Any]) -> list[str]:
    at = every.filter(forecaster="oracle")["cutoff"].unique()
    if not len(at):
        return []
    part = every.filter(pl.col("cutoff").is_in(at), pl.col("forecaster").is_in(["oracle", *SHOWN]))
    view = overview(stored(part))
    found["oracle"] = view.to_dicts()
    return [
        "### What the noise leaves",
        "",
        "The oracle is LightGBM L1 that also sees each series' totals in the four weeks *after* the horizon. No "
        f"forecaster can know that much. The same {len(at)} cutoffs for all:",
        "",
        *table(view.select("forecaster", "nmae", "nmae_ratio")),
    ]


def ablation_report(first: pl.DataFrame, cutoffs: int, found: dict[str, Any]) -> list[str]:
    view = overview(stored(first.filter(pl.col("forecaster") != "oracle")))
    kept = [*VARIANTS, *(f"{name}, seed {seed}" for name in (ALONE, DEFAULTS) for seed in SEEDS)]
    view = view.filter(pl.col("forecaster").is_in(kept))
    found["ablations"] = view.to_dicts()
    return [
        "### Ablations and references",
        "",
        f"One training each, the newest {cutoffs} cutoffs, each network alone: without the blend with a simple "
        f"forecast, which would hide it. Compare the lines from `{DEFAULTS}` on with these: they have a third of the "
        f"windows. {', '.join(f'`{name}`' for name in POINTS)} belong to `{ALONE}`. The seeds show what is chance.",
        "",
        *table(view.select(OVERVIEW)),
    ]


def interval_report(main: pl.DataFrame, found: dict[str, Any]) -> list[str]:
    names = ["level_50", "level_90", "coverage_50", "coverage_90"]
    wide = figures(stored(main), ("forecaster", "task"))
    wide = wide.filter(pl.col("forecaster").is_in(["m2m, seed 1", *BASELINES]))
    cells = figures(stored(main.filter(forecaster="m2m, seed 1")), ("scenario_id", "task"))
    cells = cells.filter(pl.col("n") >= CELL_ROWS)
    worst = {
        width: float(cells.select((pl.col(f"level_{width}") - int(width) / 100).abs().max()).item() or 0)
        for width in ("50", "90")
    }
    if len(cells):
        large = cells.select((pl.col(name) * pl.col("n")).sum() / pl.col("n").sum() for name in names)
        found["coverage"] = large.row(0, named=True) | {f"worst_cell_{width}": off for width, off in worst.items()}
    return [
        "### Intervals",
        "",
        "`level` counts a mass at zero evenly over its levels: 0.5 and 0.9 are right. `coverage` counts an interval "
        "that starts at zero as holding the whole mass, so it must be larger where zeros are many. Baselines have "
        "empirical residual quantiles; a lower pinball loss is a sharper interval at the same honesty.",
        "",
        *table(wide.select("forecaster", "task", *names, "pinball").sort("task", "pinball")),
        f"Cells (scenario x task) of at least {CELL_ROWS} rows: the worst is {100 * worst['50']:.1f} points off at 50 "
        f"% and {100 * worst['90']:.1f} at 90 %."
        if len(cells)
        else f"No cell (scenario x task) has {CELL_ROWS} rows: too few to judge a cell's intervals.",
        "",
    ]


def cell_report(main: pl.DataFrame, found: dict[str, Any]) -> list[str]:
    each = figures(stored(main), ("forecaster", "scenario_id", "task"))
    bar = (
        each.filter(pl.col("forecaster").is_in(HARD)).sort("nmae").group_by("scenario_id", "task", maintain_order=True)
    )
    bars = bar.agg(pl.first("nmae").alias("best"), pl.first("forecaster").alias("best_baseline"))
    mine = each.filter(forecaster="m2m, seed 1").join(bars, on=["scenario_id", "task"])
    mine = mine.with_columns(ratio=pl.col("nmae") / pl.col("best")).sort("ratio", descending=True)
    columns = ["scenario_id", "task", "n", "nmae", "best", "best_baseline", "ratio"]
    found["cells"] = mine.select(columns).to_dicts()
    losing = mine.filter(pl.col("ratio") > 1.05)
    return [
        "### Cells",
        "",
        f"{len(mine)} cells (scenario x task); in {len(losing)} the model is more than 5 % behind the best baseline of "
        "that cell, picked afterwards:",
        "",
        *table(losing.select(columns)),
    ]


def stranger_report(first: pl.DataFrame, found: dict[str, Any]) -> list[str]:
    never_saw = pl.col("forecaster").str.starts_with("never saw") & ~pl.col("forecaster").str.ends_with("cold start")
    known, rows = f"{DEFAULTS}, seed {SEEDS[0]}", []
    for name in first.filter(never_saw)["forecaster"].unique(maintain_order=True):
        scenario = name.removeprefix("never saw ")
        part = first.filter(pl.col("forecaster").is_in([name, known, *SHOWN]), scenario_id=scenario)
        view = overview(stored(part.with_columns(pl.col("forecaster").replace(name, "stranger"))))
        value = dict(view.select("forecaster", "nmae").iter_rows())
        rows.append((scenario, value["stranger"], value[known], min(value[b] for b in HARD)))
    if not rows:
        return []
    frame = pl.DataFrame(rows, ["scenario", "never saw it", "trained on it", "best single baseline"], orient="row")
    found["leave_one_scenario_out"] = frame.to_dicts()
    return [
        "### A scenario that training never saw",
        "",
        "Mean NMAE over tasks, in that scenario; networks alone, both with the short training:",
        "",
        *table(frame),
    ]


def cold_start_report(sums: pa.Table, found: dict[str, Any]) -> list[str]:
    young = cold_start(sums)
    if not len(young):
        return []
    found["cold_start"] = young.to_dicts()
    return [
        "### Cold start",
        "",
        "Series under 7 days of history: by the champion's network and its blend with the rule, and by the rule, "
        "which is what they get without a champion. `zeros` is the share of actuals that are 0, `zero_points` that "
        "of points, `p_zero` the mean probability given to it; `bias` is that of the point, `mean_bias` that of the "
        "mean. A forecaster that always says 0 has an NMAE of 1, a bias of -1 and `zero_points` of 1.",
        "",
        *table(young),
    ]


def cold_start(sums: pa.Table) -> pl.DataFrame:
    """How series under 7 days of history fare; no rows where there are none."""
    names = {"m2m, seed 1, cold start": "m2m, seed 1", "last_h_days, cold start": "the rule, without a champion"}
    young = figures(sums.filter(pc.is_in(sums["forecaster"], pa.array(names))), ("task", "forecaster"))
    columns = ("n", "zeros", "zero_points", "p_zero", "bias", "mean_bias", "nmae", "smape", "level_90")
    return (
        young.filter(pl.col("n") > 0)
        .select("task", "forecaster", *columns)
        .with_columns(pl.col("forecaster").replace(names))
    )


def group_report(groups: pa.Table, found: dict[str, Any]) -> list[str]:
    """Is the model as honest with the steady as with the rare, with the small as with the large?"""
    rows = figures(groups.filter(pc.equal(groups["forecaster"], "m2m, seed 1")), ("task", "group"))
    rows = rows.with_columns(series=pl.col("group").map_elements(stratum_name, pl.String))
    shown = rows.select("task", "series", "n", "level_50", "level_90", "p_zero", "zeros", "zero_points", "bias", "nmae")
    found["groups"] = shown.to_dicts()
    return [
        "### By activity and size",
        "",
        "By the share of days above 0 in the last 28, and by the mean of these days (small: under a tenth of the mean "
        "series; large: above it). `level_50` and `level_90` are right at 0.5 and 0.9; `p_zero` stands beside the "
        "share of `zeros`.",
        "",
        *table(shown),
    ]


def peer_report(
    sums: pa.Table, peers: pa.Table, fits: Sequence[Mapping[str, Any]], took_s: Sequence[float], found: dict[str, Any]
) -> list[str]:
    """What a user would pick instead: the errors and the seconds of a fit for all tasks, a block; which settings."""
    names = list(dict.fromkeys(fit["peer"] for fit in fits))
    both = pa.concat_tables([sums, peers])
    mine = [f"m2m, seed {seed}" for seed in SEEDS]
    both = both.filter(pc.is_in(both["forecaster"], pa.array([*mine, *HARD, *names])))
    blocks = len(fits[0]["fitting_s"])
    spent = {
        name: sum(sum(fit["fitting_s"].values()) for fit in fits if fit["peer"] == name) / blocks for name in names
    }
    spent |= dict.fromkeys(mine, sum(took_s) / len(took_s))
    view = overview(both).filter(pl.col("forecaster").is_in(list(spent)))
    view = view.select(*OVERVIEW, fit_s=pl.col("forecaster").replace_strict(spent).round(0).cast(pl.Int64))
    tasks = figures(both, ("forecaster", "task")).filter(pl.col("forecaster").is_in(list(spent)))
    each = figures(both, ("cutoff", "task", "forecaster"))
    ahead = each.filter(forecaster=mine[0]).join(
        each.filter(pl.col("forecaster").is_in(names)), on=["cutoff", "task"], suffix="_peer"
    )
    ahead = ahead.select("cutoff", "task", peer="forecaster_peer", peer_nmae="nmae_peer", m2m_nmae="nmae")
    losing = ahead.filter(pl.col("m2m_nmae") > pl.col("peer_nmae")).sort("task", "cutoff", "peer")
    tried = pl.DataFrame(
        [
            {"peer": fit["peer"], "task": fit["task"], "setting": setting, "nmae": nmae, "best": setting == fit["best"]}
            for fit in fits
            for setting, nmae in fit["tried"].items()
        ]
    ).with_columns(best=pl.when("best").then(pl.lit("chosen")).otherwise(pl.lit("")))
    found["peers"] = {
        "forecasters": view.to_dicts(),
        "tasks": tasks.select("forecaster", "task", "nmae", "smape").to_dicts(),
        "losing": losing.to_dicts(),
        "settings": tried.to_dicts(),
    }
    return [
        "### What a user would pick instead",
        "",
        f"neuralforecast's {', '.join(names)}, {STEPS} steps on totals of the weeks that end at the cutoff, of the "
        "same rows, with the scenario: a model a task, for all series together, whose point is the median. Settings "
        "are the best of three at the validation cutoffs of the earlier block; with them labels up to the first "
        "held-out cutoff, as for LightGBM. Judged at the same cutoffs on the same series. `fit_s`: seconds of a "
        "training for all tasks on one core of this machine, with others beside it: M2M's with its LightGBM; the "
        "settings took "
        f"{sum(fit['choosing_s'] for fit in fits):.0f} s more.",
        "",
        *table(view),
        "NMAE and SMAPE per task:",
        "",
        *table(tasks.pivot("task", index="forecaster", values=["nmae", "smape"]).sort("forecaster")),
        f"A peer is ahead of {mine[0]} in {len(losing)} of {len(ahead)} (NMAE of task, cutoff and peer)"
        f"{':' if len(losing) else '.'}",
        "",
        *(table(losing) if len(losing) else []),
        "Settings, by NMAE at the validation cutoffs:",
        "",
        *table(tried),
    ]


def value_report(data: DataSet, worth: pa.Table, found: dict[str, Any]) -> list[str]:
    """Ranking, size deciles, who will leave; with a reliability plot."""

    def frame(made: pa.Table) -> pl.DataFrame:
        rows = pl.from_arrow(made)
        assert isinstance(rows, pl.DataFrame)
        return rows

    mine = worth.filter(pc.equal(worth["forecaster"], "m2m, seed 1"))
    ranked = frame(ranking(worth)).select("task", "forecaster", "gini", "top_decile_capture", "perfect_capture")
    leaving = frame(churn(worth)).sort("auc", descending=True)
    deciles = frame(size_deciles(mine)).drop("forecaster")
    found |= {"ranking": ranked.to_dicts(), "churn": leaving.to_dicts(), "size_deciles": deciles.to_dicts()}
    reliable = frame(reliability(mine))
    figure, axis = plt.subplots(figsize=(4, 4), layout="constrained")
    axis.plot([0, 1], [0, 1], color="#b8b8b8")
    axis.scatter(reliable["predicted"], reliable["observed"], s=4 + 200 * reliable["n"] / reliable["n"].max())
    axis.set(title=data.name, xlabel="forecast probability of leaving", ylabel="share that left")
    figure.savefig(ROOT / "docs" / "images" / f"reliability_{data.name}.png", dpi=80)
    plt.close(figure)
    return [
        "### Value",
        "",
        "Ranking by the mean: Gini (1 = as the actuals rank themselves), and the share of the total within the tenth "
        "of the series with the highest forecast, beside the most that any ranking holds:",
        "",
        *table(ranked.sort("task", "gini", descending=[False, True])),
        "By size (mean of 28 days), smallest first:",
        "",
        *table(deciles),
        "Leaving = no active day in the horizon:",
        "",
        *table(leaving),
        f"![Reliability](images/reliability_{data.name}.png)",
        "",
    ]


def picture(chapters: Mapping[str, dict[str, Any]], path: Path) -> None:
    """NMAE of every forecaster over the best baseline, a panel a data set."""
    figure, axes = plt.subplots(1, len(chapters), figsize=(6 * len(chapters), 3.6), squeeze=False, layout="constrained")
    for axis, (name, found) in zip(axes[0], chapters.items(), strict=True):
        rows = [row for row in found["forecasters"] if row["forecaster"] in ("m2m, seed 1", *HARD)][::-1]
        at = np.arange(len(rows))
        colors = ["#1b6ca8" if row["forecaster"].startswith("m2m") else "#808080" for row in rows]
        axis.scatter([row["nmae_ratio"] for row in rows], at, color=colors, s=60, zorder=2)
        axis.axvline(1, color="black", linewidth=0.8, zorder=1)
        axis.grid(axis="x", alpha=0.3)
        axis.set_yticks(at, [row["forecaster"] for row in rows])
        axis.set(title=name, xlabel="NMAE over the best baseline of each task and cutoff")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    started, lines, chapters, chosen = time.monotonic(), [], {}, [DATA[name] for name in arguments.data]
    with_peers = (PEERS_HOME / "installed").exists() and not arguments.quick
    numbers = range(1 if arguments.quick else len(next(iter(chosen)).blocks))
    with ExitStack() as held:
        homes = [Path(held.enter_context(tempfile.TemporaryDirectory())) for _ in chosen]
        given = [sequences(data, home) for data, home in zip(chosen, homes, strict=True)]
        peers = {}
        for data, (rows, config), home in zip(chosen, given, homes, strict=True):
            if with_peers:  # first: what fails there fails early
                peers[data.name] = run_peers(data, rows, config, home / "peers")
        # A block on each core: many small steps gain little from a second one.
        os.environ["OMP_NUM_THREADS"] = "1"
        cores = held.enter_context(ProcessPoolExecutor(os.cpu_count(), get_context("spawn")))
        running = {
            (data.name, number): cores.submit(
                run_block, data, rows, config, number, home / str(number), arguments.quick, print
            )
            for number in numbers
            for data, (rows, config), home in zip(chosen, given, homes, strict=True)
        }
        found = {job: block.result() for job, block in running.items()}
    for data in chosen:
        blocks = [found[data.name, number] for number in numbers]
        made = zip(*(block[:3] for block in blocks), strict=True)
        sums, worth, groups = (pa.concat_tables([part for block in parts for part in block]) for parts in made)
        took_s = [seconds for block in blocks for seconds in block[3]]
        if arguments.quick:
            view = overview(sums).select("forecaster", "nmae", "smape", "nmae_ratio", "smape_ratio")
            print("\n".join([*table(view, 4), *table(cold_start(sums)), *group_report(groups, {})]))
            continue
        name = data.name
        as_of, every = data.blocks[0]
        newest = {as_of - timedelta(days=7 + every * k) for k in range(CUTOFFS_A_BLOCK)}
        chapter, chapters[name] = report(data, sums, newest)
        lines += chapter + group_report(groups, chapters[name]) + value_report(data, worth, chapters[name])
        if with_peers:
            judged_at, fits = peers[name]
            lines += peer_report(sums, pa.concat_tables(judged_at), fits, took_s, chapters[name])
    if arguments.quick:
        return
    minutes = (time.monotonic() - started) / 60
    head = [
        "# Results",
        "",
        f"Made by `make results` on: {machine()}; {minutes:.0f} minutes; seeds {', '.join(map(str, SEEDS))}.",
        "Default settings for both data sets. NMAE and SMAPE are means over tasks ([model.md](model.md)).",
        "",
        "![NMAE over the best baseline](images/results.png)",
        "",
    ]
    (ROOT / "docs" / "results.md").write_text("\n".join([*head, *lines]), encoding="utf-8")
    (ROOT / "docs" / "results.json").write_text(json.dumps(chapters, indent=1, default=str) + "\n", encoding="utf-8")
    picture(chapters, ROOT / "docs" / "images" / "results.png")


if __name__ == "__main__":
    main()
