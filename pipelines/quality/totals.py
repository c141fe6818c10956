"""What must hold of every published total: within each, and between the parts of the platform."""

from __future__ import annotations

from datetime import date

import polars as pl

from m2m_model.totals.sums import ATTRIBUTE, PLATFORM, SCENARIO
from pipelines.quality.forecasts import distribution_rules
from pipelines.quality.rules import Check, Rule, critical_rules, repeated
from pipelines.spark.buckets import REPORT

TABLE = "marts.forecast_total"
_KEY = ("level", "name", "value", "task", "horizon_days")
_TOLERANCE = 1e-6  # of the platform's mean: the same sum in another order

NOT_THE_SUM = Check("not_the_sum", None, "not_the_sum", "parts whose means add up to the platform's", max_value=0)
INCOMPLETE = Check("incomplete", None, "incomplete", "every forecast in one advertiser's total", max_value=0)


def total_rules() -> list[Rule]:
    """The rules within each, for rows in key order."""
    return critical_rules(
        distribution_rules()
        | {
            "no_series": ("at least one series", pl.col("series") < 1),
            "duplicate_key": (f"one row per ({', '.join(_KEY)})", repeated(_KEY)),
        }
    )


def count_between(groups: pl.DataFrame, ds: date, in_advertisers: int, forecasts: int) -> pl.DataFrame:
    """Report of what must hold between totals. ``groups`` are all but the advertisers', which are of
    ``in_advertisers`` forecasts."""
    key = ["task", "horizon_days"]
    whole = groups.filter(level=PLATFORM).select(*key, whole="mean", every="series")
    of_parts = groups.filter(pl.col("level").is_in([SCENARIO, ATTRIBUTE])).group_by("level", "name", *key)
    parts = of_parts.agg(pl.sum("mean"), pl.sum("series")).join(whole, on=key, how="left")
    apart = (pl.col("mean") - pl.col("whole")).abs() > _TOLERANCE * pl.col("whole") + 1e-9
    wrong = parts.filter((apart | (pl.col("series") != pl.col("every"))).fill_null(True)).sort("level", "name", *key)
    example = str(wrong.row(0)) if wrong.height else None
    words = f"{in_advertisers} of {forecasts} forecasts"
    found = [
        (None, ds, None, NOT_THE_SUM.counter, float(wrong.height), example),
        (None, ds, None, INCOMPLETE.counter, float(abs(forecasts - in_advertisers)), words),
    ]
    return pl.DataFrame(found, schema=REPORT, orient="row")
