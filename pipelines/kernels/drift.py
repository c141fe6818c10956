"""One bucket of what drift is judged by: counts of each day and scenario that add up over buckets.

N series, S scenarios, T days, P metrics, F behaviors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl
import pyarrow as pa

from m2m_model.arrays import Bools, Floats, Ints, Numbers, Strings
from m2m_model.data.grid import NOTHING, from_grid
from m2m_model.data.panel import CHUNK, Panel
from m2m_model.data.spec import SequenceSpec
from m2m_model.forecasts.expected import expected_error
from pipelines.config import ALL_SCENARIOS
from pipelines.life.cells import CELL
from pipelines.warehouse.files import DataFile, read_files
from pipelines.warehouse.sequences import SequenceFiles

PAST = 28  # days before a day that tell who is new on it, and each series' own level
JUDGED = 59  # days of counts: eight weeks, and the three days that are held against them
DAYS = JUDGED + PAST
REGULAR_DAYS, REGULAR_ROWS, SKIPPED = 14, 7, 3  # of the days before the last three, so many have a row of a regular
LEAST = 3  # days above 0 that a level of its own is known from
CLIP = 2.5  # log ratio: no single series moves a scenario's level by more than this
VALUES = 1000  # of an attribute in a bucket; one with more is an id
UNKNOWN = "(unknown)"

SUMS = pl.Schema(
    {
        "counter": pl.String(),
        "ds": pl.Date(),
        "scenario_id": pl.String(),
        "name": pl.String(),
        "task": pl.String(),
        "horizon_days": pl.Int32(),
        "value": pl.Float64(),
    }
)
Counts = dict[tuple[str, str | None], Floats]
KEYS = tuple(name for name in SUMS if name != "value")
_QUANTILES = ["p05", "p25", "median", "p75", "p95"]
# The log of each point of the grid; of nothing and of zero it is never asked.
_LOG = np.log(np.maximum(from_grid(np.arange(NOTHING + 1)), np.float32(1e-30))).astype(np.float32)


@dataclass(frozen=True)
class Looking:
    """What is looked at, as every bucket needs it; ``before`` are the series of an earlier day: their attributes."""

    sequences: SequenceFiles
    forecasts: Mapping[int, Sequence[DataFile]]
    forecast_schema: pa.Schema
    before: Mapping[int, Sequence[DataFile]]


def look(job: Looking, bucket: int) -> pl.DataFrame:
    """Kernel of one bucket: rows of ``SUMS``."""
    sequences = job.sequences
    panel = sequences.panel(bucket, min(DAYS, sequences.days))
    parts = [of_days(panel), expected(read_files(job.forecasts.get(bucket, ()), job.forecast_schema))]
    names = [*sequences.spec.advertiser_attributes, *sequences.spec.scenario_attributes]
    if before := job.before.get(bucket):
        then = read_files(before, sequences.schema, ["scenario_id", *names])
        rows_N = (panel.performance_NTP[:, -SKIPPED:] != NOTHING).any(-1).sum(1)
        keys = pl.from_arrow(panel.keys)
        assert isinstance(keys, pl.DataFrame)
        now = keys.with_columns(rows=pl.Series(rows_N.astype(np.float64))).filter(pl.col("rows") > 0)
        parts += [categories("then", then, names), categories("now", now, names)]
    return pl.concat(parts).with_columns(ds=pl.col("ds").fill_null(sequences.as_of))


def of_days(panel: Panel) -> pl.DataFrame:
    """The counts of a panel's last ``JUDGED`` days as rows of ``SUMS``."""
    blocks = panel.performance_NTP, panel.behavior_NTF
    scenarios, counted = counts(*blocks, panel.scenario_N, panel.spec)
    first = max(PAST, panel.days - JUDGED)
    days = [panel.first_day + timedelta(days=t) for t in range(first, panel.days)]
    rows = [_none()]
    for (counter, name), value_ST in counted.items():
        found_ST = value_ST[:, first:]
        at_S, at_T = np.nonzero(found_ST)
        if len(at_S):
            said = {
                "scenario_id": [scenarios[s] for s in at_S],
                "ds": [days[t] for t in at_T],
                "value": found_ST[at_S, at_T],
            }
            rows.append(_row(pl.DataFrame(said), counter=counter, name=name))
    return pl.concat(rows)


def counts(
    performance_NTP: Ints, behavior_NTF: Ints, scenario_N: Strings, spec: SequenceSpec
) -> tuple[list[str], Counts]:
    """From points of the grid: the scenarios, and of each counter and what it is of (S, T) sums over their series.

    rows: with a row. new: of these, without one in the ``PAST`` days before. regular: with ``REGULAR_ROWS`` rows in
    ``REGULAR_DAYS`` days up to three days before; absent: of these, without a row; gone: without one in three days.
    zeros of a metric: rows of 0. known: rows above 0 whose series was above 0 on ``LEAST`` of the ``PAST`` days before;
    level: the sum of the logs of these over their own past, each within ``CLIP``. acts of a behavior: series that did
    it.
    """
    scenarios, of_N = np.unique(scenario_N.astype(str), return_inverse=True)
    found, (series, days) = Counts(), performance_NTP.shape[:2]
    started_T = np.arange(days) >= PAST

    for start in range(0, series, CHUNK):
        rows = slice(start, start + CHUNK)
        point_nTP, of_n = performance_NTP[rows], of_N[rows]
        order_n = np.argsort(of_n, kind="stable")
        starts = np.flatnonzero(np.diff(of_n[order_n], prepend=-1))
        here = of_n[order_n][starts]

        def add(counter: str, name: str | None, part_nT: Numbers | Bools) -> None:
            total_ST = found.setdefault((counter, name), np.zeros((len(scenarios), days)))
            total_ST[here] += np.add.reduceat(part_nT[order_n], starts, axis=0, dtype=np.float64)  # noqa: B023

        row_nT = (point_nTP != NOTHING).any(-1)
        add("rows", None, row_nT)
        add("new", None, row_nT & (_before(row_nT, PAST) == 0) & started_T)
        often_nT = _before(row_nT, REGULAR_DAYS + SKIPPED - 1) - _before(row_nT, SKIPPED - 1)
        regular_nT = often_nT >= REGULAR_ROWS
        add("regular", None, regular_nT)
        add("absent", None, regular_nT & ~row_nT)
        add("gone", None, regular_nT & ~row_nT & (_before(row_nT, SKIPPED - 1) == 0))
        for p, metric in enumerate(spec.metrics):
            point_nT = point_nTP[:, :, p]
            above_nT = (point_nT > 0) & (point_nT != NOTHING)
            log_nT = np.where(above_nT, _LOG[point_nT], np.float32(0))
            past_nT = _before(above_nT, PAST)
            usual_nT = _before(log_nT, PAST) / np.maximum(past_nT, 1)
            known_nT = above_nT & (past_nT >= LEAST)
            add("zeros", metric, point_nT == 0)
            add("known", metric, known_nT)
            add("level", metric, np.where(known_nT, np.clip(log_nT - usual_nT, -CLIP, CLIP), 0))
        for f, behavior in enumerate(spec.behaviors):
            point_nT = behavior_NTF[rows, :, f]
            add("acts", behavior, (point_nT > 0) & (point_nT != NOTHING))
    return list(scenarios), found


def _before(value_nT: Numbers | Bools, days: int) -> Floats:
    """The sum over so many days before each."""
    sum_nT = np.cumsum(value_nT, 1, dtype=np.float64)
    before_nT = np.pad(sum_nT, ((0, 0), (1, 0)))[:, :-1]
    late_nT = np.pad(before_nT, ((0, 0), (days, 0)))[:, : before_nT.shape[1]]
    return before_nT - late_nT


def expected(forecasts: pl.DataFrame) -> pl.DataFrame:
    """Of each method, scenario, task and horizon: how many forecasts, the sum of the errors that they expect, and that
    of their means."""
    if forecasts.is_empty():
        return _none()
    figure = {name: forecasts[name].to_numpy() for name in ("point", "mean", "p_zero", *_QUANTILES)}
    error = expected_error(figure["point"], figure["mean"], figure["p_zero"], [figure[name] for name in _QUANTILES])
    by = ["name", *CELL]
    name = pl.col("method").str.split("@").list.first()
    sums = forecasts.with_columns(name=name, error=pl.Series(error)).group_by(by)
    found = sums.agg(n=pl.len().cast(pl.Float64), error=pl.sum("error"), mean=pl.sum("mean"))
    return pl.concat(_row(found.select(*by, value=counter), counter=counter) for counter in ("n", "error", "mean"))


def categories(counter: str, series: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """How many rows of the last days, or series, have each value of each attribute (as ``task``), by scenario. An
    attribute with too many values is left out."""
    parts, count = [_none()], pl.sum("rows") if "rows" in series.columns else pl.len().cast(pl.Float64)
    for name in names:
        by = ["scenario_id", pl.col(name).fill_null(UNKNOWN).alias("task")]
        found = series.group_by(by).agg(value=count)
        if found["task"].n_unique() <= VALUES:
            parts.append(_row(found, counter=counter, name=name))
    return pl.concat(parts)


def with_all_scenarios(sums: pl.DataFrame) -> pl.DataFrame:
    """The same, and all scenarios together."""
    together = sums.group_by(name for name in KEYS if name != "scenario_id").agg(pl.sum("value"))
    return pl.concat([sums, _row(together.with_columns(scenario_id=pl.lit(ALL_SCENARIOS)))])


def _none() -> pl.DataFrame:
    return pl.DataFrame(schema=SUMS)


def _row(rows: pl.DataFrame, **said: str | None) -> pl.DataFrame:
    """Rows of ``SUMS`` of which the other columns are null."""
    rows = rows.with_columns(pl.lit(value, SUMS[name]).alias(name) for name, value in said.items())
    absent = [pl.lit(None, kind).alias(name) for name, kind in SUMS.items() if name not in rows.columns]
    return rows.with_columns(absent).select(SUMS.names()).cast(SUMS)
