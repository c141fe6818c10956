"""Does M2M earn its place? Scenarios of very different sizes, whose responses are known, and every other way.

    python -m benchmarks.place [--seeds 3] [--minutes 15] [--workers 2] [--go-on]

The made-up world of benchmarks/recovery.py with a fourth kind of scenarios; of each kind one scenario is small, one
middling, one large. Every forecaster learns from equally many windows, and is judged on series that nobody learned
from, equally many in each scenario. Then scenarios are left out of training, and then there are more windows, for as
long as ``--minutes`` lasts. Jobs run side by side on one core each. The conclusion is computed, from these figures and
from the ablations in docs/results.json. Writes docs/place.md, docs/place.json and docs/images/place.png; ``--go-on``
does what docs/place.json lacks, and with ``--minutes 0`` makes page and picture alone.

N series, W weeks, M tasks, S seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib as mpl
import numpy as np
import polars as pl
import pyarrow as pa
from scipy.stats import binom, poisson

from benchmarks import recovery
from benchmarks.measure import machine
from benchmarks.recovery import CUTOFFS, World, panel_of, simulated
from benchmarks.results import DEFAULTS, PER_CELL, SHARED, SHORT, Settings, table, train
from m2m_model.arrays import Floats, Ints, Strings
from m2m_model.config import KnownFuture, ModelConfig, TrainConfig
from m2m_model.data.features import fit_inputs
from m2m_model.data.panel import Panel
from m2m_model.data.statistics import PanelStatistics
from m2m_model.data.targets import targets_Nm
from m2m_model.forecasts.distribution import Distribution
from m2m_model.forecasts.forecasts import Forecasts, forecast_baseline
from m2m_model.rivals import boosted
from m2m_model.training.calendar import validation_cutoffs

mpl.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
RESPONSES = recovery.RESPONSES | {"video": (-0.4, -0.6, 0.4)}
KINDS = tuple(RESPONSES)
SPEC = replace(recovery.SPEC, scenario_attributes=("kind",))
# LightGBM reads neither behavior nor attributes. Told in its own words: events as plans, the kind as the scenario.
TOLD_SPEC = replace(recovery.SPEC, known_future=(KnownFuture("budget_raise"), KnownFuture("bid_cut")))
MORE_WINDOWS = (30_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000)

M2M, MMOE, SHARED_BOTTOM = "m2m", "mmoe", "shared_bottom"
NO_ATTENTION, NO_TOWER = "without meta attention", "without meta tower"
NETWORKS: Mapping[str, Settings] = {
    M2M: {},
    MMOE: {"architecture": "mmoe"},
    SHARED_BOTTOM: SHARED,
    NO_ATTENTION: {"meta_attention": False},
    NO_TOWER: {"meta_tower": False},
}
TREES = "lightgbm_level"
TOLD_TREES = f"{TREES}, told events and kind"
WEEK = "last_h_days"
PROCESS, RATES = "oracle that knows the process", "oracle that knows the week's rates"
RIVALS = (MMOE, SHARED_BOTTOM, PER_CELL, TREES, TOLD_TREES, WEEK)
LEARNERS = (M2M, SHARED_BOTTOM, TOLD_TREES)  # where scenarios are left out, and where there are more windows
SIZES, LEFT_OUT, LEARNING = "sizes", "left out", "learning"  # jobs
KNOWN, UNKNOWN = "of a known kind", "of an unknown kind"  # scenarios that were left out
# What can be taken out of M2M: as it is called here, and in docs/results.json.
PARTS = {
    "meta attention": (NO_ATTENTION, "without meta attention"),
    "meta tower": (NO_TOWER, "without meta tower"),
    "all of M2M (MMoE instead)": (MMOE, "MMoE"),
    "all of M2M (a shared bottom instead)": (SHARED_BOTTOM, "shared bottom"),
}
AHEAD, BEHIND, CHANCE, UNTOLD = "ahead", "behind", "no difference", "one seed"

Rows = list[dict[str, Any]]  # an NMAE each: of a job, in a scenario
# Forecasts of a panel's eligible series as of a cutoff.
Made = Callable[[Panel, date], Forecasts]


@dataclass(frozen=True)
class Size:
    """How much is made up: series of each scenario of a kind, series to judge each on, windows of a training."""

    series: tuple[int, ...] = (50, 700, 10_000)
    judged: int = 600
    windows: int = 100_000

    @property
    def scenarios(self) -> tuple[str, ...]:
        return tuple(f"{kind}_{series}" for kind in KINDS for series in self.series)


@dataclass(frozen=True)
class Job:
    """A forecaster to make in one of the worlds, some scenarios left out of what it learns from."""

    part: str
    who: str
    seed: int
    windows: int
    left_out: tuple[str, ...] = ()


@lru_cache(maxsize=4)
def world(size: Size, seed: int, to_learn: bool) -> tuple[World, pa.Table]:
    """The series to learn from, or others of the same scenarios to judge on; and their keys."""
    counts = size.series if to_learn else [size.judged] * len(size.series)
    scenario_N = np.repeat(np.arange(len(size.scenarios)), np.tile(counts, len(KINDS)))
    kind_N = scenario_N // len(size.series)
    columns = {
        "advertiser_id": np.char.mod("a%06d", np.arange(len(scenario_N))),
        "scenario_id": np.array(size.scenarios)[scenario_N],
        "kind": np.array(KINDS)[kind_N],
    }
    keys = pa.table({name: column.tolist() for name, column in columns.items()})
    return simulated(np.array(list(RESPONSES.values()))[kind_N], 2 * seed + to_learn), keys


def view(size: Size, job: Job, to_learn: bool, scenario: str = "") -> tuple[Panel, Strings]:
    """What the job's forecaster sees of a world, or of one of its scenarios; and the scenario of each series."""
    series, keys = world(size, job.seed, to_learn)
    name_N = keys["scenario_id"].to_numpy()
    kept_N = name_N == scenario if scenario else ~np.isin(name_N, job.left_out if to_learn else ())
    if job.who == TOLD_TREES:
        keys = keys.set_column(1, "scenario_id", keys["kind"])
    spec = TOLD_SPEC if job.who == TOLD_TREES else SPEC
    return panel_of(series, spec, keys.filter(pa.array(kept_N)), kept_N), name_N[kept_N]


def held_out(panel: Panel) -> list[date]:
    """The cutoffs that are judged, latest first."""
    return [panel.last_day - timedelta(days=7 * (1 + k)) for k in range(CUTOFFS)]


def network(panel: Panel, model: Settings, training: Settings) -> Made:
    """The network alone, with the defaults but for the length of the training."""
    with tempfile.TemporaryDirectory() as folder:
        return train(panel, held_out(panel)[-1], Path(folder), model, SHORT | training)[0].predict


def trees(panel: Panel, rows: int) -> Made:
    """LightGBM as it is shipped, in one form, with the network's labels."""
    most = replace(TrainConfig(), **SHORT).validation_cutoffs
    cutoffs = validation_cutoffs(panel.first_day, held_out(panel)[-1], panel.spec.horizons_days, most)
    inputs = fit_inputs(PanelStatistics.of(panel, cutoffs[-1]), ModelConfig().bins)
    with patch.multiple(boosted, FORMS={TREES: boosted.FORMS[TREES]}, MAX_ROWS=rows):
        return partial(points, boosted.fit([panel], inputs, cutoffs[-1], cutoffs)[TREES])


def points(of: Callable[[Panel, int, Ints], Floats], panel: Panel, cutoff: date) -> Forecasts:
    """Points for the series that all others forecast."""
    usual = forecast_baseline(WEEK, panel, cutoff)
    return replace(usual, distribution=Distribution.point(of(panel, panel.index_of(cutoff), usual.series_N)))


def oracle(rate_NW: Floats, panel: Panel, day: int, series: Ints) -> Floats:
    """Medians of a week's clicks and active days, its rate being known."""
    rate_N = rate_NW[series, (day + 1) // 7]
    return np.stack([poisson.median(rate_N), binom.median(7, 1 - np.exp(-rate_N / 7))], 1)


def made(size: Size, job: Job) -> dict[str, Made]:
    """The job's forecaster; by scenario where each has one of its own, else as ""."""
    training: Settings = {"seed": job.seed, "max_windows": job.windows}
    if job.who in NETWORKS:
        return {"": network(view(size, job, True)[0], NETWORKS[job.who], training)}
    if job.who == PER_CELL:
        return {name: network(view(size, job, True, name)[0], SHARED, training) for name in size.scenarios}
    if job.who in (TREES, TOLD_TREES):
        return {"": trees(view(size, job, True)[0], job.windows)}
    if job.who in (PROCESS, RATES):
        series = world(size, job.seed, False)[0]
        return {"": partial(points, partial(oracle, series.rate_NW if job.who == RATES else series.expected_NW))}
    return {"": partial(forecast_baseline, job.who)}


def errors(size: Size, until: float, job: Job) -> Rows:
    """Do a job: NMAE in each scenario (of those left out, if any are), mean over tasks, all cutoffs together. Nothing
    after the time ``until``."""
    if time.time() > until:
        return []
    started, sums = time.monotonic(), dict[str, Floats]()
    forecasters = made(size, job)
    seconds = time.monotonic() - started
    for scenario, forecast in forecasters.items():
        panel, name_N = view(size, job, False, scenario)
        for cutoff in held_out(panel):
            said = forecast(panel, cutoff)
            actual_NM = targets_Nm(panel, panel.index_of(cutoff), said.series_N)
            off_NM = np.abs(actual_NM - said.distribution.point_NM)
            for name in np.unique(name_N):
                rows = name_N[said.series_N] == name
                sums[name] = sums.get(name, np.zeros(())) + np.stack([off_NM[rows].sum(0), actual_NM[rows].sum(0)])
    found = []
    for name in job.left_out or size.scenarios:
        unknown = sum(other.split("_")[0] == name.split("_")[0] for other in job.left_out) == len(size.series)
        part = job.part if not job.left_out else UNKNOWN if unknown else KNOWN
        nmae = round(float((sums[name][0] / sums[name][1]).mean()), 5)
        known = {"job": job.part, "part": part, "who": job.who, "seed": job.seed, "windows": job.windows}
        found.append({**known, "scenario": name, "nmae": nmae, "seconds": round(seconds, 1)})
    print(f"{job.part}: {job.who}, seed {job.seed}, {job.windows:,} windows: {seconds:.0f} s", flush=True)
    return found


def turn(size: Size, seed: int) -> list[Job]:
    """All jobs of a seed but those of the learning curves; what takes longest comes last, where time may end."""
    everyone = (WEEK, PROCESS, RATES, M2M, SHARED_BOTTOM, TOLD_TREES, MMOE, NO_ATTENTION, NO_TOWER, TREES)
    kind, middle = KINDS[(seed - 1) % len(KINDS)], size.series[len(size.series) // 2]
    left_out = [f"{kind}_{series}" for series in size.series] + [f"{k}_{middle}" for k in KINDS if k != kind]
    return [
        *(Job(SIZES, who, seed, size.windows) for who in everyone),
        *(Job(LEFT_OUT, who, seed, size.windows, tuple(left_out)) for who in LEARNERS),
        *(Job(SIZES, who, seed, size.windows) for who in (PER_CELL,) if seed == 1),  # a training for each scenario
    ]


def measured(size: Size, seeds: int, minutes: float, workers: int, rows: Rows) -> Iterator[Rows]:
    """``rows`` and what they lack: seed by seed, then step by step of the learning curves. No job begins after the
    ``minutes``, and no step that would not be done by then."""
    until = time.time() + 60 * minutes
    os.environ["OMP_NUM_THREADS"] = "1"  # of the workers: two threads of a training do not halve its time
    # Not forked: threads do not survive it.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:

        def cost(part: str, seed: int, windows: int) -> float:
            """Seconds that jobs took which are done."""
            told = {(row["part"], row["seed"], row["windows"], row["who"]): row["seconds"] for row in rows}
            learners = [told.get((part, seed, windows, who), 0.0) for who in LEARNERS]
            return float(sum(learners) / min(workers, len(LEARNERS)))

        def do(jobs: Iterable[Job]) -> None:
            known = {(row["job"], row["who"], row["seed"], row["windows"]) for row in rows}
            todo = [job for job in jobs if (job.part, job.who, job.seed, job.windows) not in known]
            each = (pool.map if workers > 1 else map)(partial(errors, size, until), todo)
            rows.extend(row for found in each for row in found)

        last = size.windows
        for seed in range(1, seeds + 1):
            do(turn(size, seed))
            yield rows
        for windows in MORE_WINDOWS:
            # Few windows are walked through again: they cost no less.
            pace = cost(SIZES if last == size.windows else LEARNING, 1, last) / max(last, size.windows)
            if time.time() + pace * max(windows, size.windows) > until:
                break
            do(Job(LEARNING, who, 1, windows) for who in LEARNERS)
            last = windows
            yield rows


def mean_nmae(rows: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Mean over scenarios, and over all else that is not in ``by``."""
    return rows.group_by(by, maintain_order=True).agg(pl.mean("nmae"))


def ratio_S(rows: pl.DataFrame, over: str, who: str = M2M) -> Floats:
    """NMAE of one over another's, of each seed that has both."""
    each = [mean_nmae(rows.filter(who=name), ["seed"]) for name in (who, over)]
    both = each[0].join(each[1], on="seed", suffix="_over").sort("seed")
    return (both["nmae"] / both["nmae_over"]).to_numpy()


def verdict(found_S: Floats, spread: float | None = None) -> str:
    """Whether a ratio is further from 1 than its seeds are from each other; one seed alone does not tell."""
    if spread is None and len(found_S) < 2:
        return UNTOLD
    spread = float(np.ptp(found_S)) if spread is None else spread
    off = 1 - float(found_S.mean())
    return CHANCE if abs(off) <= spread else AHEAD if off > 0 else BEHIND


def shown(found_S: Floats, said: str) -> str:
    low, mean, high = found_S.min(), found_S.mean(), found_S.max()
    return f"{mean:.3f} ({low:.3f} .. {high:.3f}), {said}" if len(found_S) > 1 else f"{mean:.3f}, {said}"


def of_size(rows: pl.DataFrame, series: int | None) -> pl.DataFrame:
    return rows if series is None else rows.filter(pl.col("scenario").str.ends_with(f"_{series}"))


def wide(rows: pl.DataFrame, columns: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """A line a forecaster, a column a part of the rows, best in the last column first."""
    found = rows.group_by("who", maintain_order=True).agg(pl.n_unique("seed").alias("seeds"))
    for name, part in columns.items():
        found = found.join(mean_nmae(part, ["who"]).rename({"nmae": name}), on="who", how="left")
    return found.sort(list(columns)[-1]).rename({"who": "forecaster"})


def size_report(rows: pl.DataFrame, sizes: Sequence[int], said: dict[str, Any]) -> list[str]:
    at = {**{f"{series:,} series": of_size(rows, series) for series in sizes}, "all": rows}
    found: dict[str, dict[str, tuple[Floats, str]]] = {}
    for over in RIVALS:
        ratios = {name: ratio_S(part, over) for name, part in at.items()}
        found[over] = {name: (ratio, verdict(ratio)) for name, ratio in ratios.items()}
    said["sizes"] = {
        over: {name: {"ratio": ratio.tolist(), "verdict": word} for name, (ratio, word) in cells.items()}
        for over, cells in found.items()
    }
    return [
        "## Error by the size of a scenario",
        "",
        "NMAE, mean over tasks, the scenarios of a size and seeds. Each seed is a world of its own: what has fewer of "
        "them is compared by the ratios below, which are of the same worlds.",
        "",
        *table(wide(rows, at), 4),
        "M2M's NMAE over each of the others', mean (and range) over seeds:",
        "",
        f"| M2M over | {' | '.join(at)} |",
        f"| --- |{' --- |' * len(at)}",
        *(f"| {over} | {' | '.join(shown(*cell) for cell in cells.values())} |" for over, cells in found.items()),
        "",
    ]


def stranger_report(rows: pl.DataFrame, known: pl.DataFrame, said: dict[str, Any]) -> list[str]:
    if rows.is_empty():
        return []
    columns: dict[str, pl.DataFrame] = {}
    lines = []
    for part in (KNOWN, UNKNOWN):
        never = rows.filter(part=part)
        columns[f"{part}"] = never
        # The same scenarios of the same worlds, by those who had them to learn from.
        columns[f"{part}, learned from"] = known.filter(pl.col("who").is_in(LEARNERS)).join(
            never.select("seed", "scenario").unique(), on=["seed", "scenario"], how="semi"
        )
        ratios = {over: ratio_S(never, over) for over in LEARNERS[1:]}
        said[part] = {over: {"ratio": r.tolist(), "verdict": verdict(r)} for over, r in ratios.items()}
        lines += [f"- {part}: M2M over {over} {shown(r, verdict(r))}" for over, r in ratios.items()]
    return [
        "## A scenario that training never saw",
        "",
        "One training a seed: one kind is left out wholly (another for each seed), of each other kind one scenario. "
        "Attributes say of which kind a scenario is. NMAE on those left out, beside that of the same forecaster when "
        "it learned from them:",
        "",
        *table(wide(rows, columns), 4),
        *lines,
        "",
    ]


def curve_report(rows: pl.DataFrame, spread: Mapping[str, float | None], said: dict[str, Any]) -> list[str]:
    """``spread``: of the seeds' ratios, where there are several."""
    steps = sorted(rows["windows"].unique())
    at = {f"{windows:,}": rows.filter(windows=windows) for windows in steps}
    said["curve"] = {}
    lines = []
    for over in LEARNERS[1:]:
        cells = []
        for windows, part in at.items():
            ratio = ratio_S(part.filter(seed=1), over)
            word = verdict(ratio, spread[over])
            said["curve"].setdefault(over, {})[windows] = {"ratio": ratio.tolist(), "verdict": word}
            cells.append(shown(ratio, word))
        lines.append(f"| {over} | {' | '.join(cells)} |")
    seconds = rows.filter(windows=steps[-1]).group_by("who", maintain_order=True).agg(pl.first("seconds"))
    took = ", ".join(f"{who} {value:.0f} s" for who, value in seconds.iter_rows())
    return [
        "## More windows",
        "",
        f"Seed 1, all scenarios. It stops at {steps[-1]:,} windows, where the time given ended: {took}, each on one "
        "core. The network walks through at least 400 steps of 256 windows, so fewer are read several times.",
        "",
        *table(wide(rows.filter(seed=1), {name: part.filter(seed=1) for name, part in at.items()}), 4),
        "M2M's NMAE over the others'; differences are held against the spread of the seeds' ratios above:",
        "",
        f"| M2M over | {' | '.join(at)} |",
        f"| --- |{' --- |' * len(at)}",
        *lines,
        "",
    ]


def part_report(
    rows: pl.DataFrame, sizes: Sequence[int], ablations: Mapping[str, Mapping[str, float]], said: dict[str, Any]
) -> list[str]:
    """``ablations``: NMAE by name, of each real data set."""
    at = {**{f"made up, {series:,} series": of_size(rows, series) for series in sizes}, "made up, all": rows}
    lines, found = [], dict[str, dict[str, str]]()
    words = {AHEAD: "helps", BEHIND: "hurts", CHANCE: CHANCE, UNTOLD: UNTOLD}
    for part, (here, there) in PARTS.items():
        ratios = {name: ratio_S(made_up, M2M, here) for name, made_up in at.items()}
        cells = {name: (ratio, words[verdict(1 / ratio)]) for name, ratio in ratios.items()}
        for data, nmae in ablations.items():
            seeds = np.array([value for name, value in nmae.items() if name.startswith(DEFAULTS)])
            low, mean, high = seeds.min(), seeds.mean(), seeds.max()
            word = "helps" if nmae[there] > high else "hurts" if nmae[there] < low else CHANCE
            cells[data] = (np.array([nmae[there] / mean]), word)
        found[part] = {name: word for name, (_, word) in cells.items()}
        lines.append(f"| {part} | {' | '.join(shown(*cell) for cell in cells.values())} |")
    said["parts"] = found
    said["helps_nowhere"] = [part for part, cells in found.items() if not {"helps", UNTOLD} & {*cells.values()}]
    said["helps_on_no_real_data"] = [p for p, of in found.items() if not any(of[d] == "helps" for d in ablations)]
    return [
        "## Which parts help",
        "",
        "NMAE without the part over NMAE with it. Made up: mean (and range) over seeds, a part helps where the mean is "
        "further above 1 than the seeds are apart. Real data: one training without it (docs/results.json, the short "
        "training, networks alone), and it helps where that is worse than every seed with it.",
        "",
        f"| part | {' | '.join([*at, *ablations])} |",
        f"| --- |{' --- |' * (len(at) + len(ablations))}",
        *lines,
        "",
    ]


def conclusion(said: Mapping[str, Any]) -> list[str]:
    """What the figures say, in words that are chosen by them alone."""

    def listed(cells: Mapping[str, Mapping[str, Any]]) -> str:
        parts = []
        for word in (AHEAD, BEHIND, CHANCE, UNTOLD):
            named = [f"{name} ({np.mean(c['ratio']):.3f})" for name, c in cells.items() if c["verdict"] == word]
            parts += [f"{word}: {', '.join(named)}"] if named else []
        return "; ".join(parts)

    lines = [
        "## Conclusion",
        "",
        "Computed from the figures below: M2M's NMAE over another's, under 1 where M2M is better; ahead or behind by "
        "more than the seeds' spread, which two seeds tell but roughly.",
        "",
        *(f"- Against {over}, by size: {listed(cells)}." for over, cells in said["sizes"].items()),
        *(
            f"- In a scenario {part} that training never saw: {listed(said[part])}."
            for part in (KNOWN, UNKNOWN)
            if part in said
        ),
        *(f"- By windows, against {over}: {listed(cells)}." for over, cells in said["curve"].items()),
    ]
    for part, sets in said["parts"].items():
        at = {word: [name for name, said_of in sets.items() if said_of == word] for word in ("helps", "hurts")}
        lines.append(
            f"- {part}: helps on {'; '.join(at['helps']) or 'no set'}. Hurts on {'; '.join(at['hurts']) or 'none'}."
        )
    for where, name in (("Helps nowhere", "helps_nowhere"), ("Helps on no real data", "helps_on_no_real_data")):
        lines.append(f"- {where}: **{', '.join(said[name]) or 'none of them'}**.")
    return [*lines, ""]


def picture(rows: pl.DataFrame, learning: pl.DataFrame, sizes: Sequence[int], path: Path) -> None:
    """NMAE over that of the oracle that knows the process: by the size of a scenario, and by windows."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    names = [name for name in (M2M, *RIVALS) if name != WEEK]
    colors = dict(zip(names, ("#1b6ca8", "#7fb069", "#e07a5f", "#808080", "#c9a227", "#6d597a"), strict=True))
    floor = rows.filter(who=PROCESS).select("seed", "scenario", floor="nmae")
    for axis, part, column, values in (
        (axes[0], rows, "series", [*sizes]),
        (axes[1], learning.filter(seed=1), "windows", sorted(learning["windows"].unique())),
    ):
        part = part.join(floor, on=["seed", "scenario"]).with_columns(
            series=pl.col("scenario").str.split("_").list.last().cast(pl.Int64), nmae=pl.col("nmae") / pl.col("floor")
        )
        for name in names:
            line = mean_nmae(part.filter(who=name), [column]).sort(column)
            if len(line):
                axis.plot(line[column], line["nmae"], "o-", label=name, color=colors[name])
        axis.set_xscale("log")
        axis.set_xticks(values, [f"{value:,}" for value in values])
        axis.set_xticks([], minor=True)
        axis.grid(alpha=0.3)
    axes[0].set(xlabel="series of a scenario to learn from", ylabel="NMAE over the oracle's (process)")
    axes[1].set(xlabel="windows to learn from, all scenarios")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def page(found: Mapping[str, Any], results: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write place.md and its picture into ``folder``; what is concluded."""
    every = pl.DataFrame(found["rows"])
    sizes, windows = found["size"]["series"], found["size"]["windows"]
    rows = every.filter(part=SIZES)
    learning = every.filter((pl.col("part") == LEARNING) | ((pl.col("part") == SIZES) & pl.col("who").is_in(LEARNERS)))
    ablations = {name: {row["forecaster"]: row["nmae"] for row in of["ablations"]} for name, of in results.items()}
    said: dict[str, Any] = {}
    several = rows["seed"].n_unique() > 1
    spread = {over: float(np.ptp(ratio_S(rows, over))) if several else None for over in LEARNERS[1:]}
    never = every.filter(pl.col("job") == LEFT_OUT)
    never = never.filter(pl.n_unique("who").over("seed") == len(LEARNERS))  # a seed that was cut off compares nobody
    body = [
        *size_report(rows, sizes, said),
        *stranger_report(never, rows, said),
        *curve_report(learning, spread, said),
        *part_report(rows, sizes, ablations, said),
    ]
    scenarios = len(KINDS) * len(sizes)
    head = [
        "# Does M2M earn its place?",
        "",
        f"Made by `make place` on: {found['machine']}; {found['minutes']:.0f} minutes, {found['workers']} trainings at "
        f"a time; seeds 1 .. {rows['seed'].max()!r}, a world each. Made-up data (`benchmarks/place.py` says how): it "
        "shows where the mechanism pays, not how accurate it is on real data.",
        "",
        f"{len(KINDS)} kinds of scenarios answer differently to a budget raise, a bid cut and last week's rise, in "
        f"sign too. Of each kind there are {len(sizes)}, with {', '.join(f'{series:,}' for series in sizes)} series "
        f"over {recovery.WEEKS} weeks. A training has {windows:,} windows of all series alike, so of a small scenario "
        f"few. `{PER_CELL}`, a shared bottom each, has as many of each of the {scenarios} scenarios, or all there are "
        f"and walks through them again: {scenarios} times the training, of one seed. Networks alone, defaults but for "
        "the short training of [results.md](results.md); all of them read the kind as an attribute. LightGBM as it is "
        "shipped reads neither events nor attributes; told, it has events as plans and kinds in place of scenarios. "
        f"Judged on {found['size']['judged']} other series of each scenario, {CUTOFFS} cutoffs.",
        "",
        "![Error by size of a scenario, and by windows](images/place.png)",
        "",
    ]
    (folder / "place.md").write_text("\n".join([*head, *conclusion(said), *body]), encoding="utf-8")
    picture(rows, learning, sizes, folder / "images" / "place.png")
    return said


def main(argv: Sequence[str] | None = None, size: Size = Size(), folder: Path = ROOT / "docs") -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=15, help="nothing begins after them")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="trainings at a time")
    parser.add_argument("--go-on", action="store_true", help="keep what place.json has, and do what it lacks")
    arguments = parser.parse_args(argv)
    stored, started = folder / "place.json", time.monotonic()
    results = json.loads((ROOT / "docs" / "results.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = {"machine": machine(), "minutes": 0.0, "size": asdict(size), "rows": []}
    if arguments.go_on:
        found = json.loads(stored.read_text(encoding="utf-8"))
        size = Size(**{**found["size"], "series": tuple(found["size"]["series"])})
    before = found["minutes"]
    for rows in measured(size, arguments.seeds, arguments.minutes, arguments.workers, found["rows"]):
        found |= {"rows": rows, "minutes": before + (time.monotonic() - started) / 60, "workers": arguments.workers}
        found["said"] = page(found, results, folder)
        stored.write_text(json.dumps(found, indent=1).replace("\n   ", " ") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
