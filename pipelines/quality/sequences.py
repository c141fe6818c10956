"""What must hold of sequences before they are published: their parts, their series, and the history behind them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta

import polars as pl

from pipelines import chain
from pipelines.config import Config
from pipelines.quality.rules import Check, Rule, critical_rules, repeated, settable
from pipelines.spark.buckets import REPORT
from pipelines.warehouse.days import days_between
from pipelines.warehouse.sequences import SERIES

PROFILES = ("staged.advertiser", "staged.scenario")  # of which the newest up to the date count


def rules_of_week(config: Config) -> list[Rule]:
    """What must hold for every part of a week, whatever it was built from."""
    days, last = pl.col("day"), pl.col("ds").cast(pl.Int32)
    monday = last - (last + 3) % 7  # 1970-01-01 was a Thursday
    plans = config.sequence_spec.plan_columns
    # Day by day: differences of whole lists take six times as long.
    pairs = [(days.list.get(n, null_on_oob=True), days.list.get(n + 1, null_on_oob=True)) for n in range(6)]
    not_ascending = (days.list.len() > 7) | pl.any_horizontal(after <= before for before, after in pairs)
    broken = {
        "other_day": ("every day lies in its week", (days.list.max() > last) | (days.list.min() < monday)),
        "not_ascending": ("days ascend", not_ascending),
        "unequal_length": (
            "one value a day",
            pl.any_horizontal(pl.col(name).list.len() != days.list.len() for name in config.metric_names)
            | pl.any_horizontal(
                pl.lit(False),
                *(pl.col(name).list.len() != pl.col("behavior_day").list.len() for name in config.behavior_names),
                *(pl.col(name).list.len() != pl.col("plan_day").list.len() for name in plans),
            ),
        ),
        "duplicate_key": ("one row per (advertiser_id, scenario_id)", repeated(SERIES)),
    }
    return critical_rules(broken)


def rules_of_series(ds: date) -> list[Rule]:
    """What must hold for every series."""
    return critical_rules(
        {
            "registered_late": (f"registered_on not after {ds}", pl.col("registered_on") > ds),
            "duplicate_key": ("one row per (advertiser_id, scenario_id)", repeated(SERIES)),
        }
    )


def history_checks(config: Config) -> list[Check]:
    """Checks on the history as a whole, whose counters are ``completeness`` and ``late``."""
    fresh, whole = "performance_daily is staged up to the as-of date", "every day of the history was staged"
    known = "no series without attributes: a day up to the date was staged"
    return [
        settable(config, "freshness", fresh, counter="days_late"),
        settable(config, "day_completeness", whole, counter="missing_days"),
        *(
            settable(config, "attributes_known", known, name, f"late.{name}", severity="warning")
            for name in PROFILES
            if chain.has(config, name)
        ),
    ]


def completeness(config: Config, staged: dict[date, int], first: date, ds: date) -> pl.DataFrame:
    """Counters of the history as a whole: days never staged, and how old the newest is."""
    missing = [day for day in days_between(first, ds) if day not in staged]
    late = (ds - max(staged, default=first - timedelta(days=1))).days
    mend = f"python -m pipelines.stage_sources --config {config.path} --from {{}} --to {{}}"
    example = f"{missing[0]}; stage it with: {mend.format(missing[0], missing[-1])}" if missing else None
    rows = [
        (None, ds, None, "missing_days", float(len(missing)), example),
        (None, ds, None, "days_late", float(late), f"newest staged day: {max(staged, default=None)}"),
    ]
    return pl.DataFrame(rows, schema=REPORT, orient="row")


def late(config: Config, newest: Mapping[str, date | None], ds: date, series: int) -> pl.DataFrame:
    """Counter of the series whose attributes are unknown, because no profile was staged up to the date.

    A range stages profiles for its last day alone. What they say of a later day would tell a label's future to its
    features; the day an advertiser joined is a fact of the past, whenever it was told.

    Args:
        newest: the day of the profiles that count, for each table of them.
    """
    rows = []
    for name, of_day in newest.items():
        if of_day is None or of_day > ds:
            told = f"the oldest is of {of_day}" if of_day else "there is none"
            kept = ", registered_on alone is taken from it" if of_day and name == "staged.advertiser" else ""
            mend = f"python -m pipelines.stage_sources --config {config.path} --from {ds} --to {ds}"
            rows.append(
                (None, ds, None, f"late.{name}", float(series), f"{name}: {told}{kept}; stage the day with: {mend}")
            )
    return pl.DataFrame(rows, schema=REPORT, orient="row")
