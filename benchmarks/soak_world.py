"""The platform that the soak lives with: what really happened on each day, what its files say of it, and when.

Rows are those of examples/simulated; this adds how they arrive. Everything follows from (days, seed, advertisers), so
that the audit knows the truth without a note of what was done. Days are numbers here: 0 is the last day of the first
load, 1 the first that is lived; files and tables have dates.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.measure import ROOT

EXAMPLE = ROOT / "examples" / "simulated"
sys.path.insert(0, str(EXAMPLE))

from simulation import (  # noqa: E402 - its folder is no package
    INDUSTRIES,
    SCENARIOS,
    TIERS,
    Block,
    Simulation,
    simulate_block,
)

FIRST_LOAD = 84  # days, so that a model can be trained on the first one that is lived
KEY = ["ds", "advertiser_id", "scenario_id"]
AMOUNTS = ["impressions", "clicks", "spend", "conversions"]
BORN = "video"  # the scenario that opens while the days are lived

HAPPENS = {
    "late": "rows of the last days come late",
    "hole": "no file comes",
    "bad": "the file fails its checks",
    "restated": "the file of an old day is changed",
    "crash": "a stage is killed",
    "born": f"{BORN} opens",
    "worse": "a worse challenger",
    "weak": "somebody makes the worse one champion",
    "rollback": "somebody takes the champion back",
    "executor": "an executor is lost",
}
# What happens, and when, in a quarter; what is shorter has what comes until then.
QUARTER: Mapping[str, tuple[int, ...]] = {
    "late": (4, 33, 61, 80),
    "hole": (9,),
    "bad": (15,),
    "restated": (21, 69),
    "crash": (26, 47, 57, 73),
    "born": (31,),
    "worse": (38,),
    "weak": (44,),
    "rollback": (51,),
    "executor": (64,),
}
# Ten days have one of each, but for the lost executor: a cluster takes as long to start as two days to live.
SHORT: Mapping[str, tuple[int, ...]] = {
    "worse": (2,),
    "late": (2,),
    "hole": (3,),
    "born": (4,),
    "bad": (6,),
    "weak": (7,),
    "restated": (9,),
    "rollback": (9,),
    "crash": (8, 10),
    "executor": (),
}
LATE_BY, FILLED_AFTER, MENDED_AFTER = 3, 2, 1  # days: rows of so many come late; a hole is filled; a bad day is mended
LATE_SHARE = 0.1  # of the rows of such a day, and as many arrive with too low figures


def planned(days: int) -> dict[str, tuple[int, ...]]:
    """The days of each kind of event in ``days`` that are lived."""
    chosen = SHORT if days < 30 else QUARTER
    return {kind: tuple(day for day in on if day <= days) for kind, on in chosen.items()}


@dataclass(frozen=True)
class World:
    """``restated_back``: how many days before its event the day lies whose file is changed."""

    days: int
    advertisers: int = 250
    seed: int = 1
    first_day: date = date(2024, 1, 1)
    restated_back: int = 4

    @cached_property
    def events(self) -> dict[str, tuple[int, ...]]:
        return planned(self.days)

    def date_of(self, day: int) -> date:
        return self.first_day + timedelta(days=FIRST_LOAD - 1 + day)

    @property
    def first(self) -> int:
        """The first day of the first load."""
        return 1 - FIRST_LOAD

    @cached_property
    def _settings(self) -> Simulation:
        whole = FIRST_LOAD + self.days
        opens = (self.events["born"][0] - self.first) / whole if self.events["born"] else 2.0
        scenarios = tuple(replace(each, opens=opens if each.name == BORN else 0.0) for each in SCENARIOS)
        return Simulation(self.advertisers, whole, self.seed, self.first_day, scenarios)

    @cached_property
    def _block(self) -> Block:
        return simulate_block(self._settings, 0)

    def happened(self, day: int) -> pl.DataFrame:
        """The performance rows of a day, before anybody corrected them."""
        rows = self._block.performance[day - self.first]
        return self._named(day, rows)

    def truth(self, day: int) -> pl.DataFrame:
        """The rows of a day as they stand in the end: one per advertiser and scenario."""
        corrected = any(event - self.restated_back == day for event in self.events["restated"])
        rows = self.happened(day)
        return rows.with_columns(spend=pl.col("spend").mul(1.25).round(2)) if corrected else rows

    def arrivals(self, day: int) -> Iterator[tuple[str, pl.DataFrame]]:
        """The files that come in the morning after a day, below the raw folder; one may replace an older one."""
        ds, events = self.date_of(day), self.events
        if day in events["bad"]:
            nth = pl.int_range(pl.len())
            wrong = pl.when(nth % 7 == 0).then(float("nan")).otherwise(pl.col("spend"))
            yield f"performance/{ds}/first.parquet", self._first(day).with_columns(spend=wrong)
        elif day not in events["hole"]:
            yield f"performance/{ds}/first.parquet", self._first(day)
        yield f"behavior/{ds}/all.parquet", self._named(day, self._block.behavior[day - self.first])
        for kind, after in (("hole", FILLED_AFTER), ("bad", MENDED_AFTER)):
            if (missed := day - after) in events[kind]:
                yield f"performance/{self.date_of(missed)}/first.parquet", self._first(missed)
        if day in events["late"]:
            for of in range(day - LATE_BY, day):
                rows = self.happened(of).filter(self._is_late(of) | self._is_low(of))
                yield f"performance/{self.date_of(of)}/late.parquet", self._delivered(rows, day)
        if day in events["restated"]:
            of = day - self.restated_back
            yield f"performance/{self.date_of(of)}/first.parquet", self._delivered(self.truth(of), of)
        if day == self.first or day in events["born"]:
            yield "scenario/all.parquet", self._scenarios(day)
        if day == self.first:
            yield "advertiser/all.parquet", self._profiles()

    def _first(self, day: int) -> pl.DataFrame:
        """What is delivered of a day when it ends: some rows are missing, and some too low, where more comes late."""
        rows = self.happened(day)
        if any(day < event <= day + LATE_BY for event in self.events["late"]):
            low = self._is_low(day)
            rows = rows.with_columns(
                spend=pl.when(low).then((0.8 * pl.col("spend")).round(2)).otherwise("spend"),
                clicks=pl.when(low).then(pl.col("clicks") * 4 // 5).otherwise("clicks"),
                conversions=pl.when(low).then(0).otherwise("conversions"),
            ).filter(~self._is_late(day))
        return self._delivered(rows, day)

    def _chance(self, day: int) -> pl.Series:
        random = np.random.default_rng([self.seed, day - self.first])
        return pl.Series(random.random(self.happened(day).height))

    def _is_late(self, day: int) -> pl.Series:
        return self._chance(day) < LATE_SHARE

    def _is_low(self, day: int) -> pl.Series:
        return self._chance(day).is_between(LATE_SHARE, 2 * LATE_SHARE)

    def _delivered(self, rows: pl.DataFrame, day: int) -> pl.DataFrame:
        return rows.with_columns(delivered_on=pl.lit(self.date_of(day)))

    def _named(self, day: int, rows: Mapping[str, np.ndarray]) -> pl.DataFrame:
        """Rows of the simulation with dates and ids."""
        names = [scenario.name for scenario in SCENARIOS]
        return pl.DataFrame(
            {
                "ds": pl.repeat(self.date_of(day), len(rows["scenario"]), eager=True),
                "advertiser_id": [f"a{number:04d}" for number in rows["advertiser"]],
                "scenario_id": [names[code] if code >= 0 else None for code in rows["scenario"]],
                **{name: column for name, column in rows.items() if name not in ("advertiser", "scenario")},
            }
        )

    def _scenarios(self, day: int) -> pl.DataFrame:
        there = [each for each in SCENARIOS if each.name != BORN or day > self.first]
        columns = {"scenario_id": "name", "placement": "placement", "format": "format"}
        return pl.DataFrame({name: [getattr(each, of) for each in there] for name, of in columns.items()})

    def _profiles(self) -> pl.DataFrame:
        who = self._block.profiles
        return pl.DataFrame(
            {
                "advertiser_id": [f"a{number:04d}" for number in who["advertiser"]],
                "registered_on": [self.first_day + timedelta(days=int(number)) for number in who["registered"]],
                "industry": [INDUSTRIES[code] for code in who["industry"]],
                "tier": [TIERS[code] for code in who["tier"]],
            }
        )

    def deliver(self, raw: Path, day: int) -> None:
        """Write the files that come in the morning after a day."""
        for name, rows in self.arrivals(day):
            (raw / name).parent.mkdir(parents=True, exist_ok=True)
            rows.write_parquet(raw / name)


def deployed(world: World, folder: Path) -> Path:
    """The configuration of the platform in ``folder``: that of examples/simulated, with a small model."""
    shutil.copytree(EXAMPLE / "sql", folder / "sql")
    text = (EXAMPLE / "pipeline.toml").read_text(encoding="utf-8")
    short = world.days < 30
    horizon = 3 if short else 7  # so that some forecasts of ten days mature
    dataset = f"buckets = 2\nhorizon_days = {horizon}\nlate_days = {LATE_BY}\nmature_days = {LATE_BY}"
    for old, new in (('name = "simulated"', 'name = "soak"'), ("buckets = 8", dataset)):
        assert old in text
        text = text.replace(old, new)
    path = folder / "pipeline.toml"
    windows = "min_steps = 40\nmax_windows = 2_500" if short else "min_steps = 120\nmax_windows = 8_000"
    path.write_text(text + SETTINGS.format(windows=windows), encoding="utf-8")
    return path


SETTINGS = """
[history]
window_days = 28
keep_days = 84

[model]
width = 16
heads = 2
experts = 2
bins = 8

[training]
epochs = 4
{windows}
batch_size = 64
validation_cutoffs = 2
boosted = false

[backtest]
cutoffs = 3

# Of some hundred series with a heavy tail chance alone makes more than a tenth.
[gate]
max_ratio_to_baseline = 1.2

[explain]
top = 10

[spark]
master = "local[2]"
"""
