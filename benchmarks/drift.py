"""How often drift is called though nothing was planted, and how soon planted drifts are seen. Writes docs/drift.md.

    python -m benchmarks.drift [--sequences FOLDER]

The counts of each day and scenario are made of the real rows as the stage `drift` makes them, and its rules judge every
day of the history that has seven weeks before it, as if the stage had run each day. Then drifts are planted into the
rows themselves, into each scenario at dates a few days apart, and the same code looks again.

N series, n those of one scenario, S scenarios, T days, P metrics, F behaviors.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks import newcomers  # which makes the simulation importable
from benchmarks.results import DATA, sequences
from m2m_model.arrays import Bools, Floats, Ints
from m2m_model.data.grid import NOTHING, from_grid, to_grid
from m2m_model.data.panel import Panel
from pipelines.config import ALL_SCENARIOS, load_config
from pipelines.kernels.drift import JUDGED, PAST, UNKNOWN, counts
from pipelines.quality.drift import (
    CRITICAL,
    DRIFT,
    EARLY,
    FEW,
    LEAST_DAYS,
    NO_DAY,
    TOGETHER,
    Judged,
    new_categories,
    of_day,
)

from simulation import simulate_block  # isort: skip

ROOT = Path(__file__).resolve().parents[1]
EPISODE_DAYS = 7  # alarms that are not farther apart are one
EVERY = 5  # days between the dates of plants
FIRST = PAST + LEAST_DAYS + TOGETHER


@dataclass(frozen=True)
class Bed:
    """A data set, and what the rules find in it as it is."""

    name: str
    panel: Panel

    @cached_property
    def counted(self) -> tuple[list[str], dict[tuple[str, str | None], Floats]]:
        panel = self.panel
        return together(*counts(panel.performance_NTP, panel.behavior_NTF, panel.scenario_N, panel.spec))

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
        spec = self.panel.spec
        keys = pl.from_arrow(self.panel.keys)
        assert isinstance(keys, pl.DataFrame)
        known, rows_N = row_NT[:, : day - 6].any(1), row_NT[:, -TOGETHER:].sum(1)
        if not row_NT[:, -1].any():
            return
        then, now = [], []
        for name in (*spec.advertiser_attributes, *spec.scenario_attributes):
            rows = keys.select("scenario_id", attribute=pl.lit(name), category=pl.col(name).fill_null(UNKNOWN))
            rows = rows.with_columns(rows=pl.Series(rows_N.astype(float)))
            then.append(rows.filter(pl.Series(known)))
            rows = rows.filter(pl.col("rows") > 0)
            now += [rows, rows.with_columns(scenario_id=pl.lit(ALL_SCENARIOS))]
        if now:
            yield from new_categories(pl.concat(then), pl.concat(now))

    def alarms(self, scenario: str) -> list[int]:
        return [day for day, said in self.found.items() if any(name == scenario and bad(j) for name, j in said)]

    @property
    def money(self) -> int:
        """Which metric is planted into."""
        metric = next(task.metric for task in self.panel.spec.tasks if task.aggregate == "sum")
        return self.panel.spec.metrics.index(metric)


def bad(judged: Judged) -> bool:
    return judged.verdict in (DRIFT, CRITICAL)


def together(scenarios: list[str], counted: dict) -> tuple[list[str], dict]:  # type: ignore[type-arg]
    """With all scenarios together as the last."""
    return [*scenarios, ALL_SCENARIOS], {
        key: np.concatenate([value_ST, value_ST.sum(0, keepdims=True)]) for key, value_ST in counted.items()
    }


def upto(counted: dict, day: int) -> dict:  # type: ignore[type-arg]
    return {key: value_ST[:, max(PAST, day + 1 - JUDGED) : day + 1] for key, value_ST in counted.items()}


def episodes(days: list[int]) -> int:
    return sum(1 for before, day in zip([-EPISODE_DAYS - 1, *days], days, strict=False) if day - before > EPISODE_DAYS)


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


def times(factor: float, everywhere: bool = False) -> Callable[[Block], None]:
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
    new_nT = row_nT[:, first : block.at] & (
        seen_nT[:, first : block.at] - seen_nT[:, first - PAST : block.at - PAST] == 1
    )
    usual = new_nT.sum() / (block.at - first)
    days, (_, T, P) = range(block.at, row_nT.shape[1]), block.point_nTP.shape
    for day in days:
        some, born = np.flatnonzero(row_nT[:, day]), block.random.poisson(2 * usual)
        if len(some) and born:
            new_nTP = np.full((born, T, P), NOTHING, block.point_nTP.dtype)
            new_nTP[:, day:] = block.point_nTP[block.random.choice(some, born), day:]
            block.point_nTP = np.concatenate([block.point_nTP, new_nTP])
            nothing = np.full((born, *block.behavior_nTF.shape[1:]), NOTHING, block.behavior_nTF.dtype)
            block.behavior_nTF = np.concatenate([block.behavior_nTF, nothing])


def vanish(share: float) -> Callable[[Block], None]:
    def plant(block: Block) -> None:
        block.point_nTP[block.random.random(len(block.point_nTP)) < share, block.at :] = NOTHING

    return plant


PLANTS: dict[str, tuple[Callable[[Block], None], str]] = {
    "all metrics x 1.5": (times(1.5, True), "level of"),
    "all metrics x 0.6": (times(0.6, True), "level of"),
    "money x 1.5": (times(1.5), "level of"),
    "money x 0.6": (times(0.6), "level of"),
    "zeros + 20 points": (more_zeros, "zeros of"),
    "newcomers x 3": (more_newcomers, "new advertisers"),
    "15 % vanish": (vanish(0.15), "gone advertisers"),
    "money in other units (x 100)": (times(100), "level of"),
    "a scenario silent": (vanish(1.0), "rows"),
}


def planted(bed: Bed, name: str, scenario: int, day: int) -> int | None:
    """On which of the three days after a plant it is called; None: on none."""
    panel, (scenarios, counted) = bed.panel, bed.counted
    start, end = max(0, day - JUDGED - PAST), day + TOGETHER
    rows = panel.scenario_N.astype(str) == scenarios[scenario]
    seed = [len(bed.name), sorted(PLANTS).index(name), scenario, day]
    of = slice(start, end)
    block = Block(
        panel.performance_NTP[rows, of].copy(), panel.behavior_NTF[rows, of], day - start, bed.money,
        np.random.default_rng(seed),
    )  # fmt: skip
    PLANTS[name][0](block)
    names = np.full(len(block.point_nTP), scenarios[scenario], object)
    _, own = counts(block.point_nTP, block.behavior_nTF, names, panel.spec)
    pair = {key: np.concatenate([own[key], counted[key][-1:, of]]) for key in own}
    for late in range(TOGETHER):
        said = of_day([scenarios[scenario], ALL_SCENARIOS], upto(pair, day - start + late))
        if any(who == scenarios[scenario] and bad(judged) for who, judged in said):
            return late + 1
    return None


def detections(bed: Bed) -> pl.DataFrame:
    rows, (scenarios, counted) = [], bed.counted
    for number, scenario in enumerate(scenarios[:-1]):
        loud = set(bed.alarms(scenario))
        for day in range(FIRST + EPISODE_DAYS, bed.panel.days - TOGETHER, EVERY):
            if loud & set(range(day - EPISODE_DAYS, day + TOGETHER)) or not counted["rows", None][number, day]:
                continue
            judged = {j.signal: j for who, j in bed.found[day] if who == scenario}
            for name, (_, signal) in PLANTS.items():
                own = [
                    j for s, j in judged.items() if s == f"{signal} {bed.panel.spec.metrics[bed.money]}" or s == signal
                ]
                can = any(j.verdict not in (FEW, EARLY, NO_DAY) for j in own)
                seen = planted(bed, name, number, day) if can else None
                rows.append((bed.name, scenario, name, can, seen))
    return pl.DataFrame(rows, ["set", "scenario", "plant", "judged", "day"], orient="row")


def quiet(bed: Bed) -> pl.DataFrame:
    months = len(bed.found) / (365.25 / 12)
    rows = []
    for scenario in bed.counted[0]:
        of = sorted({j.signal for said in bed.found.values() for who, j in said if who == scenario and bad(j)})
        alarms = bed.alarms(scenario)
        words = ", ".join(of) or "-"
        rows.append(
            (bed.name, scenario, len(bed.found), len(alarms), episodes(alarms), episodes(alarms) / months, words)
        )
    names = ["set", "scenario", "days judged", "days with an alarm", "episodes", "episodes a month", "signals"]
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
    yield Bed("simulated", newcomers.panel_of(simulate_block(newcomers.WORLD, 0), config.sequence_spec))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sequences", type=Path, help="a folder that keeps the sequences of the real sets between runs"
    )
    folder, started = parser.parse_args().sequences, time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        made = list(beds(folder or Path(scratch)))
    for bed in made:
        pl.Config.set_tbl_rows(100)
        pl.Config.set_fmt_str_lengths(100)
        pl.Config.set_tbl_cols(20)
        pl.Config.set_tbl_width_chars(200)
        print(quiet(bed), f"{time.monotonic() - started:.0f} s")
        d = detections(bed)
        print(
            d.group_by("plant", "scenario", maintain_order=True)
            .agg(
                n=pl.len(),
                judged=pl.sum("judged"),
                seen=(pl.col("day").is_not_null() & pl.col("judged")).sum(),
                day=pl.mean("day"),
            )
            .sort("plant", "scenario"),
            f"{time.monotonic() - started:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
