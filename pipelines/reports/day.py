"""A day as it was gathered for its report; no table of it grows with advertisers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

import polars as pl

from pipelines.reading.terminal import plural
from pipelines.reports.checks import Kept
from pipelines.reports.page import number


@dataclass(frozen=True)
class Measure:
    """A task as people read it. ``counted``: how its past is added up; see ``past_total``."""

    name: str
    unit: str
    money: bool = False

    def words(self, value: float | None) -> str:
        return "–" if value is None else f"{number(value)} {self.unit}".strip()


@dataclass(frozen=True)
class Commit:
    """What a stage published of the day: one table."""

    stage: str
    table: str
    ds: date
    run_id: str
    at: datetime
    snapshot_id: int
    rows: int
    size_bytes: int
    said: Mapping[str, str]  # the snapshot's properties, without m2m.


@dataclass(frozen=True)
class Cost:
    """A run; ``usual_s`` is the median of the stage's other runs that are kept."""

    stage: str
    run_id: str
    wall_s: float | None
    cpu_s: float | None
    peak_mib: float | None
    written_bytes: int
    usual_s: float | None


@dataclass(frozen=True)
class Day:
    """All that the page is made from. None: the table is not there, or has nothing of the day."""

    name: str
    ds: date
    config: str
    horizons: Sequence[int]
    measures: Sequence[Measure]
    lag_days: int
    commits: Sequence[Commit] = ()
    holes: Sequence[tuple[str, date, str]] = ()  # table, day, stage
    sources: Sequence[tuple[str, date | None, datetime | None]] = ()
    stages: Sequence[str] = ()  # those that the chain has
    judged: Sequence[Kept] = ()
    checks_page: Mapping[str, str] = field(default_factory=dict)  # of a run
    totals: pl.DataFrame | None = None
    past: pl.DataFrame | None = None  # ds, scenario_id, a column a task
    movers: pl.DataFrame | None = None
    at_risk: pl.DataFrame | None = None
    at_risk_sum: tuple[int, float, float | None] = (0, 0.0, None)  # series, expected to leave, value at risk
    reasons: pl.DataFrame | None = None
    quality: pl.DataFrame | None = None
    backtest: pl.DataFrame | None = None
    first_forecast: date | None = None
    promotions: pl.DataFrame | None = None
    turnover: pl.DataFrame | None = None
    drifted: pl.DataFrame | None = None
    costs: Sequence[Cost] = ()
    foot: str = ""
    address: str = ""

    @property
    def main(self) -> Measure:
        """The task that comes first: money, if there is any."""
        return next((measure for measure in self.measures if measure.money), self.measures[0])

    def command(self, stage: str, day: date | None = None) -> str:
        return f"m2m {stage} --config {self.config} --date {day or self.ds}"

    @property
    def runs(self) -> dict[str, str]:
        """Of each stage, the run that published last."""
        return {commit.stage: commit.run_id for commit in self.commits}


def served_by(day: Day) -> str | None:
    """The champion's version that the day was forecast with."""
    said = next((c.said for c in day.commits if c.table == "marts.forecast_daily"), {})
    version = said.get("input.model.champion")
    return None if version in (None, "None") else version


def promoted(day: Day, version: str) -> dict[str, object] | None:
    """The line by which a version became champion."""
    if day.promotions is None:
        return None
    rows = day.promotions.filter(challenger=version, promoted=True).sort("decided_at")
    return rows.row(-1, named=True) if rows.height else None


def promoted_on(day: Day, version: str | None) -> date | None:
    """The as-of date of its training."""
    line = promoted(day, version) if version else None
    return line["ds"] if line and isinstance(line["ds"], date) else None


def age(day: Day, version: str) -> str:
    """Of the data that it was trained on."""
    as_of = promoted_on(day, version)
    return f", {plural((day.ds - as_of).days, 'day')} old" if as_of else ""
