"""Which forecasts of a bucket may be worth explaining, and why those of some buckets that are moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import polars as pl
import pyarrow as pa

from m2m_model.arrays import Floats
from m2m_model.causes.changes import Means, anchored, by_model, by_rule, recalibrated, split
from m2m_model.causes.reasons import Amounts, reasons
from m2m_model.data.panel import Panel
from m2m_model.data.spec import SequenceSpec
from pipelines.life.cells import IN_CELL
from pipelines.life.evaluation import differs, load_forecaster
from pipelines.quality.explanations import CAUSES
from pipelines.warehouse.files import read_files
from pipelines.warehouse.published import Published
from pipelines.warehouse.sequences import SERIES, SequenceFiles
from pipelines.warehouse.store import Packed

TARGET = ["task", "horizon_days"]
KEY = [*SERIES, *TARGET]
MOVER, AT_RISK, CHANGE = "mover", "at_risk", "change"
BY = ["by", "by_before"]  # the baseline that serves the forecast's cell in the champion's place, now and the day before
ASKED = pl.Schema(
    {"kind": pl.String(), "bucket": pl.Int32(), **dict.fromkeys(SERIES, pl.String()), "task": pl.String()}
    | {"horizon_days": pl.Int32(), "size": pl.Float64()}
    | dict.fromkeys(["before", "after"], pl.Float64())
    | dict.fromkeys(BY, pl.String())
)
FOUND = pl.Schema(
    {name: ASKED[name] for name in ("kind", "bucket", *KEY, "before", "after", *BY)}
    | dict.fromkeys(CAUSES, pl.Float64())
    | {"rank": pl.Int32(), "cause": pl.String(), "words": pl.String(), "effect": pl.Float64()}
)


@dataclass(frozen=True)
class Served:
    """Who made a day's forecasts: a model's version, or the baseline that served for want of one; ``model`` is None
    where it cannot be opened any more."""

    version: str | None
    baseline: str
    model: Packed | None = None

    def means(self, spec: SequenceSpec) -> Means | None:
        """What it forecasts of a panel; None if it cannot be asked."""
        if self.version is None:
            return by_rule(self.baseline)
        return None if self.model is None or differs(self.model, spec) else by_model(load_forecaster(self.model))

    def in_cell(self, baseline: str | None) -> Served:
        """What serves a cell that a ``baseline`` serves in this one's place, if one does."""
        return Served(None, baseline) if baseline else self

    def same_as(self, other: Served) -> bool:
        return self.version == other.version and (self.version is not None or self.baseline == other.baseline)


@dataclass(frozen=True)
class Candidates:
    """What is looked through: the day's forecasts, those of the day before if there are any, who may leave."""

    today: Published
    before: Published | None
    risk: Published
    active_task: str | None
    top: int


def candidates(job: Candidates, bucket: int) -> pl.DataFrame:
    """Kernel of one bucket: its forecasts that moved the most, of each task and horizon, and its most valuable rows of
    churn_risk, of each horizon; rows of ``ASKED``."""
    today = _told(job.today, bucket, mean="after", by="by")
    found = [pl.DataFrame(schema=ASKED)]
    if job.before:
        before = _told(job.before, bucket, mean="before", by="by_before")
        moved = today.join(before, on=KEY).with_columns(size=(pl.col("after") - pl.col("before")).abs())
        found.append(_most(moved.filter(pl.col("size") > 0), TARGET, job.top).with_columns(kind=pl.lit(MOVER)))
    if job.active_task:
        risk = job.risk.rows(bucket, ["probability", "value_at_risk"])
        value = pl.col("value_at_risk").fill_null(pl.col("probability"))
        risk = risk.select(*SERIES, "horizon_days", task=pl.lit(job.active_task), size=value)
        risk = _most(risk.filter(pl.col("size") > 0), ["horizon_days"], job.top).join(today, on=KEY)
        found.append(risk.with_columns(kind=pl.lit(AT_RISK)))
    rows = pl.concat(found, how="diagonal_relaxed").with_columns(bucket=pl.lit(bucket, pl.Int32))
    return rows.select(ASKED.names()).cast(ASKED)


def _told(day: Published, bucket: int, mean: str, by: str) -> pl.DataFrame:
    """The means of a day, and the baseline that served a forecast's cell in the champion's place."""
    rows = day.rows(bucket, ["task", "mean", "method", "reason"])
    baseline = pl.when(pl.col("reason").str.starts_with(IN_CELL)).then(pl.col("method").str.strip_prefix("baseline:"))
    return rows.select(*KEY, pl.col("mean").alias(mean), baseline.alias(by))


def most(asked: pl.DataFrame, top: int) -> pl.DataFrame:
    """Of the candidates of all buckets those that are explained."""
    by_kind = (asked.filter(kind=kind) for kind in (MOVER, AT_RISK))
    return pl.concat(_most(rows, TARGET, top) for rows in by_kind)


def _most(rows: pl.DataFrame, by: list[str], top: int) -> pl.DataFrame:
    """The largest of each group, in order; of equal ones the first by key."""
    found = [part.top_k(top, by="size") for part in rows.partition_by(by)] if rows.height else [rows]
    ties = [part.filter(pl.col("size") >= pl.col("size").min()) for part in found]
    return pl.concat(ties).sort("size", *KEY, descending=[True, *[False] * len(KEY)])


@dataclass(frozen=True)
class Explaining:
    """One explaining, as every worker needs it. ``profiles`` are the sequences of the day before, for the attributes of
    then."""

    sequences: SequenceFiles
    profiles: Published
    day_before: date | None
    asked: pl.DataFrame
    served: Served
    served_before: Served | None


def explain(job: Explaining, buckets: Sequence[int]) -> pl.DataFrame:
    """Kernel of some buckets at once: each change by cause, each forecast's reasons; rows of ``FOUND``. What has no
    sequence any more is left out."""
    sequences, spec = job.sequences, job.sequences.spec
    asked = job.asked.filter(pl.col("bucket").is_in(buckets))
    days = spec.lookback_days + ((sequences.as_of - job.day_before).days if job.day_before else 0)
    rows, profiles = [], []
    for (bucket,), of_bucket in asked.group_by("bucket"):
        advertisers = of_bucket["advertiser_id"].unique().to_list()
        rows.append(sequences.rows(bucket, days, advertisers))
        attributes = [*spec.advertiser_attributes, *spec.scenario_attributes]
        profile = read_files(job.profiles.files.get(bucket, ()), job.profiles.schema, [*SERIES, *attributes])
        profiles.append(profile.filter(pl.col("advertiser_id").is_in(advertisers)))
    if not rows:
        return pl.DataFrame(schema=FOUND)
    table = pl.concat(rows).to_arrow()
    panel = Panel.from_sequences(table, spec, sequences.as_of, days)
    place = pl.DataFrame({name: panel.keys[name].to_pylist() for name in SERIES}, dict.fromkeys(SERIES, pl.String))
    target = pl.DataFrame(
        [(t.name, t.horizon_days) for t in spec.targets], {"task": pl.String, "horizon_days": pl.Int32}, orient="row"
    )
    asked = (
        asked.join(place.with_row_index("n"), on=SERIES).join(target.with_row_index("m"), on=TARGET).sort("kind", *KEY)
    )
    found = [pl.DataFrame(schema=FOUND)]
    found += [
        _reasons(job.served.in_cell(by), panel, table, part)
        for (by,), part in asked.group_by("by", maintain_order=True)
    ]
    movers = asked.filter(kind=MOVER)
    if movers.height and job.day_before and job.served_before:
        then = replace(panel, keys=_profile_of_then(panel, pl.concat(profiles)))
        for (by, by_before), part in movers.group_by(BY, maintain_order=True):
            served, before = job.served.in_cell(by), job.served_before.in_cell(by_before)
            found.append(_changes(served, panel, then, part, job.day_before, before))
    return pl.concat(found, how="diagonal_relaxed").select(FOUND.names()).cast(FOUND)


def _reasons(served: Served, panel: Panel, table: pa.Table, asked: pl.DataFrame) -> pl.DataFrame:
    means, rule = served.means(panel.spec), None if served.version else served.baseline
    if means is None:
        return pl.DataFrame(schema=FOUND)
    places = list(asked.select("n", "m").iter_rows())
    said = reasons(panel, Amounts.of(table, panel), places, means, asked["after"].to_list() if rule else None, rule)
    rows = [
        (*of, rank, reason.cause, reason.words, reason.effect)
        for of, of_one in zip(asked.select("kind", "bucket", *KEY).iter_rows(), said, strict=True)
        for rank, reason in enumerate(of_one, 1)
    ]
    names = ("kind", "bucket", *KEY, "rank", "cause", "words", "effect")
    return pl.DataFrame(rows, {name: FOUND[name] for name in names}, orient="row")


def _changes(
    served: Served, panel: Panel, then: Panel, movers: pl.DataFrame, day: date, before: Served
) -> pl.DataFrame:
    spec, n_X, m_X = panel.spec, movers["n"].to_numpy(), movers["m"].to_numpy()

    def published(column: str) -> Floats:
        mean_NM = np.full((len(panel), len(spec.targets)), np.nan)
        mean_NM[n_X, m_X] = movers[column].to_numpy()
        return mean_NM

    before_NM, after_NM = published("before"), published("after")
    old, new, mixed = before.means(spec), served.means(spec), None
    same = before.version is not None and before.same_as(served)
    if old and before.version is None:
        old = anchored(old, then, day, before_NM)
        mixed = old if before.same_as(served) else None
    elif old and new and before.model and served.model:
        mixed = by_model(recalibrated(load_forecaster(served.model), load_forecaster(before.model)))
    if new and served.version is None:
        new = anchored(new, panel, panel.last_day, after_NM)
    parts = split(before_NM, after_NM, then, panel, day, old, new, mixed, same)
    causes = (parts.restated_NM, parts.new_days_NM, parts.model_NM, parts.calibration_NM)
    columns = [pl.Series(name, cause_NM[n_X, m_X]) for name, cause_NM in zip(CAUSES, causes, strict=True)]
    return movers.with_columns(*columns, kind=pl.lit(CHANGE)).drop("n", "m", "size")


def _profile_of_then(panel: Panel, profiles: pl.DataFrame) -> pa.Table:
    """The panel's keys with the attributes that its series had on an earlier day; of those that it did not have, the
    present ones."""
    keys = pl.from_arrow(panel.keys)
    assert isinstance(keys, pl.DataFrame)
    return keys.update(profiles, on=SERIES, include_nulls=True).to_arrow().cast(panel.keys.schema)
