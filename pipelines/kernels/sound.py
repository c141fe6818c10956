"""Has a champion's forecast jumped, or its interval collapsed, since the day before? Cell by cell, a scenario's task
over a horizon.

Forecasts are held against what the data did meanwhile: a total moves with the last 28 days of the same series. A cell
jumps when it leaves them by a factor; one that comes back to them does not. Workers add up, and only sums per cell come
back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

import polars as pl

from m2m_model.data.panel import Panel
from m2m_model.forecasts.baselines import mean_28
from m2m_model.forecasts.forecasts import Forecasts
from pipelines.life.cells import CELL
from pipelines.quality.forecasts import KEY
from pipelines.warehouse.published import Published

LEVEL_JUMP, COLLAPSE = "level_jump", "interval_collapse"
SERIES = 20  # of a cell, on both days: the total of fewer moves by chance
WIDTH = 0.2  # of the mean: intervals that were narrower have nothing to collapse
OLDEST_DAYS = 7  # how far back the day before may be
_SUMS = ["series", "mean", "mean_before", "level", "level_before", "width", "width_before"]
BESIDE = pl.Schema(dict.fromkeys(CELL, pl.String()) | {"horizon_days": pl.Int32()} | dict.fromkeys(_SUMS, pl.Float64()))
_FIGURES = ["mean", "p05", "p95"]


@dataclass(frozen=True)
class DayBefore:
    """The forecasts of the newest day before."""

    day: date
    published: Published

    def beside(self, bucket: int, rows: pl.DataFrame, forecasts: Forecasts, panel: Panel) -> pl.DataFrame:
        """Of a bucket's series that were forecast on both days, the sums by cell.

        Args:
            rows: the forecasts in long form.
        """
        levels = {
            name: mean_28(panel, panel.index_of(day), forecasts.series_N).ravel()
            for name, day in (("level", forecasts.cutoff), ("level_before", self.day))
        }
        now = rows.select(*KEY, *_FIGURES).with_columns(pl.Series(name, of_X) for name, of_X in levels.items())
        both = now.join(self.published.rows(bucket, ["task", *_FIGURES]), on=KEY, suffix="_before")
        summed = both.group_by(CELL).agg(
            pl.len().alias("series"),
            pl.sum("mean", "mean_before", "level", "level_before"),
            width=(pl.col("p95") - pl.col("p05")).sum(),
            width_before=(pl.col("p95_before") - pl.col("p05_before")).sum(),
        )
        return summed.select(BESIDE.names()).cast(BESIDE)


def judged(parts: Iterable[pl.DataFrame], factor: float) -> pl.DataFrame:
    """The cells that can be judged, with the ``rule`` that each breaks, if it breaks one; by what factor (``found``),
    and that in words."""
    sums = pl.concat([pl.DataFrame(schema=BESIDE), *parts]).group_by(CELL).agg(pl.sum(*_SUMS)).sort(CELL)
    known = sums.filter(pl.col("series") >= SERIES, pl.col("level") > 0, pl.col("level_before") > 0)
    share, share_before = pl.col("mean") / pl.col("level"), pl.col("mean_before") / pl.col("level_before")
    wide, wide_before = pl.col("width") / pl.col("mean"), pl.col("width_before") / pl.col("mean_before")

    def beyond(now: pl.Expr, then: pl.Expr) -> pl.Expr:
        """By products, not ratios: a total may be 0."""
        return (now > factor * then) | (then > factor * now)

    # The forecast moved, and not with the data: where these alone moved, it had reasons not to follow.
    moved = beyond(pl.col("mean"), pl.col("mean_before")) & beyond(share, share_before)
    jumps = moved & (share.log().abs() > share_before.log().abs())
    narrow = (pl.col("mean_before") > 0) & (wide_before > WIDTH) & (wide_before > factor * wide)
    times, with_data = pl.col("mean") / pl.col("mean_before"), pl.col("level") / pl.col("level_before")
    jumped = "{} times the total of the day before, where their last 28 days are {} times"
    narrowed = "p05 to p95 is {} of the mean, {} the day before"
    words = pl.when(jumps).then(_format(jumped, times, with_data)).otherwise(_format(narrowed, wide, wide_before))
    of = pl.format("{} over {} days, {} series: ", "task", "horizon_days", pl.col("series").cast(pl.Int64))
    return known.select(
        *CELL,
        rule=pl.when(jumps).then(pl.lit(LEVEL_JUMP)).when(narrow).then(pl.lit(COLLAPSE)),
        found=pl.when(jumps).then(times).otherwise(wide / wide_before),
        words=of + words,
    )


def _format(words: str, *figures: pl.Expr) -> pl.Expr:
    return pl.format(words, *(figure.round_sig_figs(3) for figure in figures))
