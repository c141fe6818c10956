"""What must hold of every published change and reason, counted by explain before it commits."""

from __future__ import annotations

import polars as pl

from pipelines.quality.rules import Rule, critical_rules, repeated

CAUSES = ("by_restated", "by_new_days", "by_model", "by_calibration")
KINDS = ("at_risk", "mover")
_KEY = ("advertiser_id", "scenario_id", "task", "horizon_days")
_TOLERANCE = 1e-6  # of the larger mean, or of 1


def change_rules() -> list[Rule]:
    """The rules on marts.forecast_change, for rows in key order."""
    figures = ("before", "after", *CAUSES)
    moved, most = pl.col("after") - pl.col("before"), pl.max_horizontal(pl.lit(1.0), "before", "after")
    rank = pl.col("rank").rank("ordinal").over("task", "horizon_days")
    return critical_rules(
        {
            "not_finite": ("finite numbers", ~pl.all_horizontal(pl.col(name).is_finite() for name in figures)),
            "not_the_change": (
                f"{' + '.join(CAUSES)} = after - before",
                (pl.sum_horizontal(CAUSES) - moved).abs() > _TOLERANCE * most,
            ),
            "not_earlier": ("compared_with before ds", pl.col("compared_with") >= pl.col("ds")),
            "rank": ("ranks 1, 2, ... of a task and horizon", pl.col("rank") != rank),
            "duplicate_key": (f"one row per ({', '.join(_KEY)})", repeated(_KEY)),
        }
    )


def reason_rules() -> list[Rule]:
    """The rules on marts.forecast_reason, for rows in key order."""
    key = (*_KEY, "kind", "rank")
    forecast = (*_KEY, "kind")
    place = pl.int_range(1, pl.len() + 1).over(forecast)
    size = pl.col("effect").abs()
    return critical_rules(
        {
            "not_finite": ("a finite effect", ~pl.col("effect").is_finite()),
            "no_words": ("a cause, and words for it", (pl.col("words") == "") | (pl.col("cause") == "")),
            "unknown_kind": (" or ".join(KINDS), ~pl.col("kind").is_in(KINDS)),
            "rank": ("ranks 1, 2, ... of a forecast", pl.col("rank") != place),
            "not_strongest_first": ("no cause stronger than the one before", size > size.shift(1).over(forecast)),
            "duplicate_key": (f"one row per ({', '.join(key)})", repeated(key)),
        }
    )
