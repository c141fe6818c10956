"""How often drift is called though nothing was planted, how soon planted drifts are seen, and whether forecasts know
their own error. Writes docs/drift.md.

    python -m benchmarks.drift [--sequences FOLDER]

The counts of each day and scenario are made of the real rows as the stage `drift` makes them, and its rules judge every
day of the history that has seven weeks before it, as if the stage had run each day. Then drifts are planted into the
rows themselves, into each scenario every few days, and the same code looks again. Forecasts are those of the best
baseline with its calibration, made anew for each day.

N series, n those of one scenario, S scenarios, T days, P metrics, F behaviors, M targets.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks import newcomers  # which makes the simulation importable
from benchmarks.measure import machine
from benchmarks.results import DATA, sequences, table, train
from m2m_model.arrays import Bools, Ints
from m2m_model.data.features import fit_inputs
from m2m_model.data.grid import NOTHING, from_grid, to_grid
from m2m_model.data.panel import Panel
from m2m_model.data.served_by import eligible
from m2m_model.data.statistics import PanelStatistics
from m2m_model.data.targets import targets_Nm
from m2m_model.forecasts.expected import expected_error
from m2m_model.forecasts.forecasts import Forecasts, forecast_baseline
from m2m_model.levels import LEVELS
from m2m_model.training.serving import calibrate_baselines
from pipelines.config import ALL_SCENARIOS, load_config
from pipelines.kernels.drift import JUDGED, PAST, UNKNOWN, Counts, counts
from pipelines.quality.drift import (
    COVERAGE,
    CRITICAL,
    DRIFT,
    EFFECT,
    EXPECTED_ERROR,
    FEW,
    LEAST_DAYS,
    TOGETHER,
    USUAL,
    Judged,
    Kind,
    Signal,
    judge_forecasts,
    new_categories,
    of_day,
    signals,
)

from simulation import simulate_block  # isort: skip

ROOT = Path(__file__).resolve().parents[1]
EPISODE_DAYS = 7  # alarms that are not farther apart are one
EVERY = 5  # days between the dates of plants
FIRST = PAST + LEAST_DAYS + TOGETHER
WELL = 1.5  # times as far off as the limits allow
BASELINE = "same_weekdays"


@dataclass(frozen=True)
class Bed:
    """A data set, and what the rules find in it as it is."""

    name: str
    panel: Panel

    @cached_property
    def counted(self) -> tuple[list[str], Counts]:
        panel = self.panel
        scenarios, found = counts(panel.performance_NTP, panel.behavior_NTF, panel.scenario_N, panel.spec)
        both = {key: np.concatenate([value_ST, value_ST.sum(0, keepdims=True)]) for key, value_ST in found.items()}
        return [*scenarios, ALL_SCENARIOS], both

    @cached_property
    def found(self) -> dict[int, list[tuple[str, Judged]]]:
        """Of each day that is judged what the rules say."""
        scenarios, counted = self.counted
        return {
            day: [*of_day(scenarios, upto(counted, day)), *self.categories(day)]
            for day in range(FIRST, self.panel.days)
        }

    def categories(self, day: int) -> Iterator[tuple[str, Judged]]:
        row_NT = (self.panel.performance_NTP[:, : day + 1] != NOTHING).any(-1)
        spec, keys = self.panel.spec, pl.from_arrow(self.panel.keys)
        assert isinstance(keys, pl.DataFrame)
        known, rows_N = row_NT[:, : day - 6].any(1), row_NT[:, -TOGETHER:].sum(1)
        then, now = [], []
        for name in (*spec.advertiser_attributes, *spec.scenario_attributes) if row_NT[:, -1].any() else ():
            rows = keys.select("scenario_id", attribute=pl.lit(name), category=pl.col(name).fill_null(UNKNOWN))
            rows = rows.with_columns(rows=pl.Series(rows_N.astype(float)))
            then.append(rows.filter(pl.Series(known)))
            rows = rows.filter(pl.col("rows") > 0)
            now += [rows, rows.with_columns(scenario_id=pl.lit(ALL_SCENARIOS))]
        if now:
            yield from new_categories(pl.concat(then), pl.concat(now))

    def alarms(self, scenario: str) -> list[tuple[int, str]]:
        return [(day, j.signal) for day, said in self.found.items() for who, j in said if who == scenario and bad(j)]

    @property
    def money(self) -> int:
        """Which metric is planted into."""
        metric = next(task.metric for task in self.panel.spec.tasks if task.aggregate == "sum")
        return self.panel.spec.metrics.index(metric)


def bad(judged: Judged) -> bool:
    return judged.verdict in (DRIFT, CRITICAL)


def upto(counted: Counts, day: int) -> Counts:
    return {key: value_ST[:, max(PAST, day + 1 - JUDGED) : day + 1] for key, value_ST in counted.items()}


def episodes(days: list[int]) -> list[list[int]]:
    """Alarms that follow one another."""
    found = list[list[int]]()
    for day in days:
        if found and day - found[-1][-1] <= EPISODE_DAYS:
            found[-1].append(day)
        else:
            found.append([day])
    return found


def lasted(bed: Bed, scenario: int, signal: str, day: int) -> bool:
    """Whether the week after an alarm differs from the four weeks before it as the alarm said: then it was true."""
    found = next((s for s in signals(bed.counted[1], scenario) if s.name == signal), None)
    if found is None:
        return signal.startswith("new categories")  # which are there, or are not
    value_T = 2 * np.sqrt(found.value_T) if found.kind == "count" else found.value_T
    before, after = (np.nanmedian(value_T[part]) for part in (slice(day - 31, day - 2), slice(day + 1, day + 8)))
    effect = 0.2 * before if found.kind == "count" else EFFECT[found.kind]
    return bool((after - before) * np.sign(value_T[day] - before) >= effect)


def quiet(bed: Bed) -> pl.DataFrame:
    rows, months = [], len(bed.found) / (365.25 / 12)
    for number, scenario in enumerate(bed.counted[0]):
        alarms = bed.alarms(scenario)
        apart = episodes(sorted({day for day, _ in alarms}))
        true = [any(lasted(bed, number, s, d) for d, s in alarms if d in days) for days in apart]
        false = len(apart) - sum(true)
        often = pl.Series([s for _, s in alarms if s], dtype=pl.String).value_counts(sort=True)
        words = ", ".join(often[:, 0].head(3)) if len(often) else "-"
        rows.append(
            (bed.name, scenario, len(bed.found), len(apart), sum(true), len(apart) / months, false / months, words)
        )
    names = ["set", "scenario", "days", "episodes", "of these lasted", "episodes a month", "false a month", "mostly"]
    return pl.DataFrame(rows, names, orient="row")


@dataclass
class Block:
    """The rows of one scenario up to some days after a date; ``at`` is its index. A plant changes them."""

    point_nTP: Ints
    behavior_nTF: Ints
    at: int
    money: int
    random: np.random.Generator

    @property
    def row_nT(self) -> Bools:
        return np.asarray((self.point_nTP != NOTHING).any(-1))


Plant = Callable[[Block], None]


def times(factor: float, everywhere: bool = False) -> Plant:
    def plant(block: Block) -> None:
        part = block.point_nTP[:, block.at :, slice(None) if everywhere else slice(block.money, block.money + 1)]
        there = (part > 0) & (part != NOTHING)
        # A point is the least value of its bin: the middle is what is multiplied.
        part[there] = to_grid(from_grid(part[there]) * 2 ** (1 / 32) * factor)

    return plant


def more_zeros(block: Block) -> None:
    part = block.point_nTP[:, block.at :, block.money]
    row = part != NOTHING
    above = row & (part > 0)
    share = 0.2 * row.sum() / max(above.sum(), 1)
    part[above & (block.random.random(part.shape) < share)] = 0


def more_newcomers(block: Block) -> None:
    """Three times as many a day as in the four weeks before."""
    row_nT = block.row_nT
    seen_nT = np.cumsum(row_nT, 1)
    first = max(PAST, block.at - PAST)
    past: Ints = seen_nT[:, first : block.at] - seen_nT[:, first - PAST : block.at - PAST]
    usual = (row_nT[:, first : block.at] & (past == 1)).sum() / (block.at - first)
    for day in range(block.at, row_nT.shape[1]):
        some, born = np.flatnonzero(row_nT[:, day]), block.random.poisson(2 * usual)
        if len(some) and born:
            new_nTP = np.full((born, *block.point_nTP.shape[1:]), NOTHING, block.point_nTP.dtype)
            new_nTP[:, day:] = block.point_nTP[block.random.choice(some, born), day:]
            block.point_nTP = np.concatenate([block.point_nTP, new_nTP])
            nothing = np.full((born, *block.behavior_nTF.shape[1:]), NOTHING, block.behavior_nTF.dtype)
            block.behavior_nTF = np.concatenate([block.behavior_nTF, nothing])


def vanish(share: float) -> Plant:
    def plant(block: Block) -> None:
        block.point_nTP[block.random.random(len(block.point_nTP)) < share, block.at :] = NOTHING

    return plant


def to_level(factor: float) -> Callable[[Judged], float]:
    """How far a level so many times the usual is off, beside what the limits of the day allow."""

    def beside(judged: Judged) -> float:
        limit = (judged.high if factor > 1 else judged.low) or np.nan
        return float(np.log(factor) / np.log(limit))

    return beside


def to_share(more: float) -> Callable[[Judged], float]:
    return lambda judged: more / ((judged.high or np.nan) - (judged.usual or 0))


def to_count(factor: float) -> Callable[[Judged], float]:
    return lambda judged: (factor - 1) * (judged.usual or 0) / ((judged.high or np.nan) - (judged.usual or 0))


# Of each plant: the signals that it moves, and how far beside the limits of the day before it.
PLANTS: dict[str, tuple[Plant, str, Callable[[Judged], float]]] = {
    "all metrics x 1.5": (times(1.5, True), "level of", to_level(1.5)),
    "all metrics x 0.6": (times(0.6, True), "level of", to_level(0.6)),
    "money alone x 1.5": (times(1.5), "level of {}", to_level(1.5)),
    "money alone x 0.6": (times(0.6), "level of {}", to_level(0.6)),
    "zeros of money + 20 points": (more_zeros, "zeros of {}", to_share(0.2)),
    "newcomers x 3": (more_newcomers, "new advertisers", to_count(3)),
    "15 % vanish": (vanish(0.15), "gone advertisers", to_share(0.15)),
    "money in other units (x 100)": (times(100), "level of {}", to_level(12)),
    "the scenario silent": (vanish(1.0), "rows", lambda j: 0.0 if j.verdict == FEW else np.inf),
}


def planted(bed: Bed, name: str, scenario: int, day: int) -> int | None:
    """On which of the three days after a plant it is called; None: on none."""
    panel, (scenarios, counted) = bed.panel, bed.counted
    rows = panel.scenario_N.astype(str) == scenarios[scenario]
    start = max(0, day - JUDGED - PAST)
    of = slice(start, day + TOGETHER)
    random = np.random.default_rng([len(bed.name), sorted(PLANTS).index(name), scenario, day])
    own = panel.performance_NTP[rows, of].copy(), panel.behavior_NTF[rows, of]
    block = Block(*own, day - start, bed.money, random)
    PLANTS[name][0](block)
    names = np.full(len(block.point_nTP), scenarios[scenario], object)
    _, alone = counts(block.point_nTP, block.behavior_nTF, names, panel.spec)
    pair = {key: np.concatenate([alone[key], counted[key][-1:, of]]) for key in alone}
    for late in range(TOGETHER):
        said = of_day([scenarios[scenario], ALL_SCENARIOS], upto(pair, day - start + late))
        if any(who == scenarios[scenario] and bad(judged) for who, judged in said):
            return late + 1
    return None


def detections(bed: Bed) -> pl.DataFrame:
    """Every plant on days that are quiet by themselves."""
    rows, (scenarios, counted) = [], bed.counted
    for number, scenario in enumerate(scenarios[:-1]):
        loud = {day for day, _ in bed.alarms(scenario)}
        for day in range(FIRST + 1, bed.panel.days - TOGETHER, EVERY):
            if loud & set(range(day - 1, day + TOGETHER)) or not counted["rows", None][number, day]:
                continue
            judged = [j for who, j in bed.found[day] if who == scenario]
            for name, (_, signal, far) in PLANTS.items():
                of = signal.format(bed.panel.spec.metrics[bed.money])
                own = [j for j in judged if j.signal.startswith(of) and j.verdict in (USUAL, FEW)]
                can = [j for j in own if j.verdict == USUAL]
                beside = max((x for x in map(far, can) if x == x), default=0.0)
                seen_on = planted(bed, name, number, day) if can else None
                rows.append((bed.name, scenario, name, bool(can), beside > 1, beside >= WELL, seen_on))
    return pl.DataFrame(rows, ["set", "scenario", "plant", "judged", "reach", "well", "day"], orient="row")


def missing_days(bed: Bed) -> tuple[int, int]:
    """Days with rows that are taken away, one at a time: how many, and of how many it is said."""
    tried = seen = 0
    scenarios, counted = bed.counted
    for day in range(FIRST, bed.panel.days):
        rows_T = counted["rows", None][-1]
        if rows_T[day] > 0:
            without = {key: value_ST.copy() for key, value_ST in upto(counted, day).items()}
            for value_ST in without.values():
                value_ST[:, -1] = 0
            tried += 1
            seen += any(bad(j) for _, j in of_day(scenarios, without))
    return tried, seen


def new_values(bed: Bed) -> tuple[int, int]:
    """5 % of each scenario's rows get a category that was never there: tries, and how many are seen in three days."""
    tried, seen, random = 0, 0, np.random.default_rng(1)
    scenarios, counted = bed.counted
    for number, scenario in enumerate(scenarios[:-1]):
        rows_T = counted["rows", None][number].astype(int)
        for day in range(FIRST, bed.panel.days - TOGETHER, EVERY):
            three = rows_T[day : day + TOGETHER]
            if three[0] < 20:
                continue
            new_D = random.binomial(three, 0.05)
            tried += 1
            for late in range(TOGETHER):
                total, new = rows_T[day + late - TOGETHER + 1 : day + late + 1].sum(), new_D[: late + 1].sum()
                now = pl.DataFrame(
                    {
                        "attribute": "a",
                        "scenario_id": scenario,
                        "category": ["old", "new"],
                        "rows": [float(total - new), float(new)],
                    }
                )
                if any(bad(j) for _, j in new_categories(now.filter(category="old"), now.filter(pl.col("rows") > 0))):
                    seen += 1
                    break
    return tried, seen


SUMS = ("n", "error", "actual", "expected", "whole", "mean", "covered", "narrow_covered")


def forecasts(bed: Bed, makers: dict[str, Callable[[date], Forecasts]], days: Iterable[int]) -> pl.DataFrame:
    """Of each maker, day, scenario and target sums over its forecasts of the series that are judged: what they expect
    by what is published, by the whole distribution, and with intervals narrowed by half; and what came."""
    panel, rows = bed.panel, []
    targets = [f"{t.name}" for t in panel.spec.targets]
    for day in days:
        seen_N = eligible(panel, day)
        for maker, make in makers.items():
            made = make(panel.day_of(day))
            made = made[seen_N[made.series_N]]
            dist, actual_NM = made.distribution, targets_Nm(panel, day, made.series_N)
            point_NM, mean_NM = dist.point_NM, dist.mean_NM
            narrow = [point_NM + (q_NM - point_NM) / 2 for q_NM in (dist.p05_NM, dist.p95_NM)]
            weight_G = np.diff(np.concatenate([[0.0], (LEVELS[1:] + LEVELS[:-1]) / 2, [1.0]]))
            below_NM = np.einsum("g,gnm->nm", weight_G, np.maximum(point_NM - dist.level_GNM, 0))
            figures = (
                np.ones_like(point_NM), np.abs(actual_NM - point_NM), actual_NM,
                expected_error(point_NM, mean_NM, dist.p_zero_NM, dist.quantiles), mean_NM - point_NM + 2 * below_NM,
                mean_NM, (dist.p05_NM <= actual_NM) & (actual_NM <= dist.p95_NM),
                (narrow[0] <= actual_NM) & (actual_NM <= narrow[1]),
            )  # fmt: skip
            for scenario in np.unique(made.scenario_N.astype(str)):
                of = made.scenario_N == scenario
                for m, target in enumerate(targets):
                    rows.append((maker, day, scenario, target, *(float(f[of, m].sum()) for f in figures)))
    return pl.DataFrame(rows, ["maker", "day", "scenario", "task", *SUMS], orient="row")


def known_errors(name: str, cells: pl.DataFrame) -> pl.DataFrame:
    """How the error that came compares with the expected one."""
    rows = []
    for (maker, task), part in cells.group_by("maker", "task", maintain_order=True):
        total = part.select(pl.sum(*SUMS)).row(0, named=True)
        by = part.group_by("scenario").agg(pl.sum(*SUMS)).filter(pl.col("n") >= 100)
        ratio = by.select((pl.col("error") / pl.col("actual")) / (pl.col("expected") / pl.col("mean"))).to_series()
        daily = part.filter(pl.col("n") >= 20, pl.col("actual") > 0, pl.col("mean") > 0)
        daily = daily.with_columns(came=pl.col("error") / pl.col("actual"), said=pl.col("expected") / pl.col("mean"))
        rank = daily.select(pl.corr("came", "said", method="spearman")).item()
        rows.append(
            (
                name,
                maker,
                task,
                part["day"].n_unique(),
                total["error"] / total["actual"],
                total["expected"] / total["mean"],
                total["error"] / total["actual"] / (total["expected"] / total["mean"]),
                " .. ".join(f"{x:.2f}" for x in ratio.sort().gather([0, -1])) if len(ratio) else "-",
                total["expected"] / total["whole"],
                rank,
            )
        )
    names = [
        "set",
        "forecasts by",
        "task",
        "days",
        "NMAE",
        "expected",
        "ratio",
        "ratio of scenarios",
        "published / whole",
        "rank correlation",
    ]
    return pl.DataFrame(rows, names, orient="row")


def _log(name: str) -> pl.Expr:
    return (pl.col(name) / pl.col("mean")).log()


# Of each signal of forecasts: what it is, what of it is planted, and what it is then.
OF_FORECASTS: dict[str, tuple[Kind, pl.Expr, str, pl.Expr]] = {
    COVERAGE: (
        "share",
        pl.col("covered") / pl.col("n"),
        "intervals half as wide",
        pl.col("narrow_covered") / pl.col("n"),
    ),
    EXPECTED_ERROR: ("level", _log("expected"), "twice the error expected", _log("expected") + np.log(2)),
}


def of_forecasts(bed: Bed, cells: pl.DataFrame) -> tuple[list[tuple[object, ...]], dict[str, set[int]]]:
    """Coverage and expected error day after day: false alarms, what is said of planted ones; and on which days a
    scenario has an alarm of them."""
    out, told = list[tuple[object, ...]](), dict[str, set[int]]()
    together = cells.group_by("day", "task", maintain_order=True).agg(pl.sum(*SUMS), scenario=pl.lit(ALL_SCENARIOS))
    cells = pl.concat(part.select("day", "scenario", "task", *SUMS) for part in (cells, together))
    for signal, (kind, normal, plant, planted_as) in OF_FORECASTS.items():
        series = tried = seen = false = judged_days = 0
        late, lag = list[int](), bed.panel.spec.horizon_days if signal == COVERAGE else 0
        for (scenario, _), part in cells.group_by("scenario", "task", maintain_order=True):
            days = part["day"].to_numpy()
            first, last = int(days.min()), int(days.max())
            value_T, planted_T = np.full((2, last - first + 1), np.nan)
            n_T = np.zeros(last - first + 1)
            value_T[days - first] = part.select(normal).to_series().to_numpy()
            planted_T[days - first] = part.select(planted_as).to_series().to_numpy()
            n_T[days - first] = part["n"].to_numpy()
            value_T[~np.isfinite(value_T)] = np.nan
            began = LEAST_DAYS + TOGETHER
            found = {
                day: judge_forecasts(Signal(signal, kind, value_T[: day + 1], n_T[: day + 1]))
                for day in range(began, len(value_T))
            }
            alarms = [day for day, judged in found.items() if bad(judged)]
            if sum(judged.verdict == FEW for judged in found.values()) > len(value_T) / 2:
                continue
            told.setdefault(str(scenario), set()).update(first + day + lag for day in alarms)
            if scenario == ALL_SCENARIOS:
                continue
            series, false, judged_days = series + 1, false + len(episodes(alarms)), judged_days + len(found)
            for day in range(began, len(value_T) - TOGETHER, EVERY):
                if set(alarms) & set(range(day - 1, day + TOGETHER)) or not np.isfinite(value_T[day]):
                    continue
                tried += 1
                for k in range(TOGETHER):
                    mixed_T = np.concatenate([value_T[:day], planted_T[day : day + k + 1]])
                    if bad(judge_forecasts(Signal(signal, kind, mixed_T, n_T[: day + k + 1]))):
                        seen += 1
                        late.append(k + 1)
                        break
        often = false / (judged_days / (365.25 / 12)) if judged_days else None
        out.append((bed.name, signal, series, false, often, plant, tried, seen, float(np.mean(late)) if late else None))
    return out, told


def of_all(bed: Bed, told: dict[str, set[int]], first: int) -> pl.DataFrame:
    """All signals of a scenario in one, from a day on, as whoever is told of a scenario's drift has them."""
    rows, months = [], (bed.panel.days - first) / (365.25 / 12)
    for number, scenario in enumerate(bed.counted[0]):
        data = [(day, signal) for day, signal in bed.alarms(scenario) if day >= first]
        forecasts_ = {day for day in told.get(scenario, ()) if day >= first}
        apart = episodes(sorted({day for day, _ in data} | forecasts_))
        false = [days for days in apart if not any(lasted(bed, number, s, d) for d, s in data if d in days)]
        alone = len(episodes(sorted({day for day, _ in data})))
        of = bed.panel.days - first, alone, len(apart), len(apart) / months, len(false) / months
        rows.append((bed.name, scenario, *of))
    names = ["set", "scenario", "days", "episodes of data", "with forecasts", "a month", "false a month"]
    return pl.DataFrame(rows, names, orient="row")


def beds(folder: Path) -> Iterator[Bed]:
    for name, data in DATA.items():
        config = load_config(ROOT / "examples" / name / "pipeline.toml")
        kept = folder / f"{name}.arrow"
        if not kept.is_file():
            rows, _ = sequences(data, folder / name)
            with pa.OSFile(str(kept), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
                writer.write_table(rows)
        with pa.memory_map(str(kept)) as source:
            rows = pa.ipc.open_file(source).read_all()
        days = (data.last_day - config.dataset.first_day).days + 1
        yield Bed(name, Panel.from_sequences(rows, config.sequence_spec, data.last_day, days))
    config = load_config(ROOT / "examples" / "simulated" / "pipeline.toml")
    world = newcomers.panel_of(simulate_block(newcomers.WORLD, 0), config.sequence_spec)
    yield Bed("simulated", world)


def makers_of(bed: Bed, folder: Path, network: bool) -> tuple[int, dict[str, Callable[[date], Forecasts]]]:
    """From which day on, and the baseline with its calibration learned before that day; or the network."""
    panel, spec = bed.panel, bed.panel.spec
    if network:
        start = panel.days - spec.horizon_days * 5
        forecaster, _ = train(
            panel, panel.day_of(start), folder / "network", {}, {"seed": 1, "boosted": False, "max_windows": 100_000}
        )
        return start, {"network": lambda day: forecaster.predict(panel, day)}
    start = max(42, panel.days // 4)
    inputs = fit_inputs(PanelStatistics.of(panel, panel.day_of(start)))
    calibrations, _, _ = calibrate_baselines([panel.save(folder / "shard")], inputs, panel.day_of(start))
    return start, {BASELINE: lambda day: forecast_baseline(BASELINE, panel, day, calibrations)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sequences", type=Path, help="a folder that keeps the sequences of the real sets between runs"
    )
    parser.add_argument("--no-network", action="store_true", help="without the two trainings")
    arguments, started = parser.parse_args(), time.monotonic()
    warnings.simplefilter("ignore", RuntimeWarning)  # medians of days without a figure
    calm, loud, missing, values, errors, judged, whole = ([], [], [], [], [], [], [])
    with tempfile.TemporaryDirectory() as scratch:
        for bed in beds(arguments.sequences or Path(scratch)):
            calm.append(quiet(bed))
            loud.append(detections(bed))
            missing.append((bed.name, *missing_days(bed)))
            values.append((bed.name, *new_values(bed)))
            print(f"{bed.name}: {time.monotonic() - started:.0f} s", flush=True)
            folder = Path(scratch) / f"of_{bed.name}"
            start, makers = makers_of(bed, folder, False)
            cells = forecasts(bed, makers, range(start, bed.panel.days - bed.panel.spec.horizon_days))
            errors.append(known_errors(bed.name, cells))
            rows, told = of_forecasts(bed, cells)
            judged += rows
            known = start + LEAST_DAYS + TOGETHER + bed.panel.spec.horizon_days
            whole.append(of_all(bed, told, max(FIRST, known)))
            print(f"{bed.name}: {time.monotonic() - started:.0f} s", flush=True)
            if not arguments.no_network:
                start, makers = makers_of(bed, folder, True)
                days = range(start, bed.panel.days - bed.panel.spec.horizon_days)
                errors.append(known_errors(bed.name, forecasts(bed, makers, days)))
                print(f"{bed.name}: {time.monotonic() - started:.0f} s", flush=True)
    lines = page(
        pl.concat(calm),
        pl.concat(loud),
        missing,
        values,
        pl.concat(errors),
        judged,
        pl.concat(whole),
        time.monotonic() - started,
    )
    (ROOT / "docs" / "drift.md").write_text("\n".join(lines), encoding="utf-8")


def page(
    calm: pl.DataFrame,
    loud: pl.DataFrame,
    missing: list[tuple[str, int, int]],
    values: list[tuple[str, int, int]],
    errors: pl.DataFrame,
    judged: list[tuple[object, ...]],
    together: pl.DataFrame,
    seconds: float,
) -> list[str]:
    """docs/drift.md."""
    seen = pl.col("day").is_not_null()
    by = loud.group_by("set", "plant", maintain_order=True).agg(
        pl.len().alias("tries"),
        pl.sum("judged").alias("judged"),
        pl.sum("reach").alias("within reach"),
        (seen & pl.col("reach")).sum().alias("seen of these"),
        pl.sum("well").alias("well within"),
        (seen & pl.col("well")).sum().alias("seen of those"),
        (seen & ~pl.col("reach")).sum().alias("seen beyond reach"),
        pl.col("day").filter("reach").mean().alias("mean day"),
    )
    cells = loud.group_by("set", "scenario", "plant", maintain_order=True).agg(
        pl.sum("reach").alias("reach"), (seen & pl.col("reach")).sum().alias("seen")
    )
    cells = cells.with_columns(
        text=pl.when(pl.col("reach") > 0).then(pl.format("{}/{}", "seen", "reach")).otherwise(pl.lit("-"))
    )
    wide = cells.pivot("plant", index=["set", "scenario"], values="text")
    whole = pl.DataFrame(missing, ["set", "days taken away", "told on the same day"], orient="row")
    fresh = pl.DataFrame(values, ["set", "tries", "seen in three days"], orient="row")
    names = [
        "set",
        "signal",
        "series judged",
        "false alarms",
        "false a month and series",
        "planted",
        "tries",
        "seen",
        "mean day",
    ]
    of = pl.DataFrame(judged, names, orient="row")
    return [
        "# Drift: how often it is called, and how soon it is seen",
        "",
        f"Made by `make bench-drift` on: {machine()}; {seconds / 60:.1f} minutes; default rules (`[drift]`).",
        "",
        *RULES.strip().splitlines(),
        "",
        "## Nothing planted",
        "",
        *QUIET.strip().splitlines(),
        "",
        *table(calm, 2),
        "## Planted",
        "",
        *PLANTED.strip().splitlines(),
        "",
        *table(by, 1),
        "Scenario by scenario, seen of those within reach:",
        "",
        *table(wide),
        "A day of all scenarios taken away, each day of the history in turn:",
        "",
        *table(whole),
        "A new category in 5 % of a scenario's rows, where it has 20 rows a day:",
        "",
        *table(fresh),
        *FORECAST.strip().splitlines(),
        "",
        *table(of, 2),
        *TOGETHER_WORDS.strip().splitlines(),
        "",
        *table(together, 2),
        "## Do forecasts know their own error?",
        "",
        *KNOWN.strip().splitlines(),
        "",
        *table(errors, 3),
    ]


RULES = """
`drift` holds each scenario's day, and that of all scenarios together, against the same scenario's eight weeks before
it. Only sums of each bucket come back from the workers (`pipelines/kernels/drift.py`); the rules are
`pipelines/quality/drift.py`.

- **Usual** is the median of these weeks, and of the weekday's distance to it, shifted to the last four weeks.
- **Limits** are so many standard deviations (by medians) of what the signal did in these weeks, at least what chance
  does with so few rows, at least an effect that matters: 8 points of a share, a quarter of a level, half of a count.
  A day alone needs five deviations and 1.6 times the effect; else the median of the last three days needs 3.2 of its
  own.
- **Level** of a metric is the mean over series of the log of the day's value over the series' own mean of four weeks
  before, each within a factor of 12: it does not hang on the few largest, and advertisers who come or go do not move
  it. *Beside other metrics* is its distance to the others': a good or bad day for all of them says nothing of one, so
  that other units, another currency or a changed join of one metric show where trade is restless. A level four times
  what it was, or a quarter, is *critical*.
- **Absent** and **gone advertisers** are those with a row on 7 of 14 days and none on the day, in three days. **New**
  ones have none in the 28 days before, and are counted over three days. **Zeros** are the share of rows with 0.
- **Rows**: a day without any, on a weekday that mostly has some; a scenario without any on a day when others have
  some, where as many such days running would come once in a hundred by chance. Both are *critical*.
- **New categories**: values of an attribute that no series had a week ago, in 2.5 % of the rows of three days, and 3
  rows.
- Under 20 days of past nothing is judged; under 20 rows a day no share, under 5 no level.

Nothing is remembered but the expected errors: each run counts its weeks anew, so a day that is run again says the
same, and restated days count as they are now. What lasts becomes the usual within some weeks.
"""

QUIET = f"""
The rules judge every day of each history that has seven weeks before it. Alarms of a scenario not more than
{EPISODE_DAYS} days apart are one episode. *Lasted*: the median of the week after differs from that of the four weeks
before by an effect that matters, in the way that the alarm said: it was true, and not planted by us. The others are
called false here, bank holidays among them.
"""

PLANTED = f"""
Into the rows of each scenario, every five days that are quiet by themselves, three days long; seen is an alarm of
that scenario on one of them. *Within reach*: the limits of the day before anything is planted, which stand in
`ops.drift` as `low` and `high`, say that it can be seen; at the limit itself chance decides. *Well within*: it is
{WELL} times as far off as they allow. A scenario of a few rows a day has wide limits, or is not judged at all, and says
so.
"""

FORECAST = """
Forecasts' own signals, of each scenario and task one series; coverage counts from the first such forecast that
matures. An expected error that falls is no drift, so that narrow intervals show in coverage:
"""

TOGETHER_WORDS = """
Who is told hears once of a scenario, whichever of its signals it was. All of them together, from the first day on which
forecasts are judged too; *false* are episodes in which nothing of the data lasted:
"""

KNOWN = """
The error that a forecast expects is E|actual - point| of its own distribution, from what is published of it (mean,
zero mass, five quantiles), before anything has happened: `marts.forecast_expected`, per method, scenario, task and
horizon. *Ratio*: the NMAE that came over the expected one, all days together; *of scenarios*: the least and the
largest. *Published / whole*: the expected error from what is published over that from all 43 levels. *Rank
correlation*: over days and scenarios with 20 forecasts. Forecasts of the baseline with the calibration of `score`,
learned on the first quarter and never again; of the network (100,000 windows, one seed) on the last five weeks, which
it did not see. `drift` tells the ratio of the forecasts that matured as `error over expected`.
"""


if __name__ == "__main__":
    main()
