"""What must hold of every published path: within it, and against the forecasts that it leads to."""

from __future__ import annotations

import itertools
from datetime import date

import polars as pl

from m2m_model.data.spec import SequenceSpec
from pipelines.quality.forecasts import any_of
from pipelines.quality.rules import Check, Rule, critical_rules, repeated
from pipelines.spark.buckets import REPORT

TABLE = "marts.forecast_path"
KEY = ("advertiser_id", "scenario_id", "task", "day")
_SUMS = ("cumulated", "cumulated_p05", "cumulated_p50", "cumulated_p95")
_TOTALS = ("mean", "p05", "median", "p95")  # of the forecast, what the sums of the last day are
_TOLERANCE = 1e-6  # of a figure: the same sum in another order

_AGAINST = [
    Rule(Check(name, None, name, expected, max_value=0), pl.lit(False))
    for name, expected in (
        ("not_the_total", "sums that on the last day of each horizon are its mean and quantiles"),
        ("incomplete", "every day of every forecast, once"),
    )
]


def path_rules(spec: SequenceSpec) -> list[Rule]:
    """The rules within each, for rows in order of ``KEY``, and last those that ``count_against`` counts."""
    values = ("expected", *_SUMS)
    finite = pl.all_horizontal(pl.col(name).is_finite().fill_null(False) for name in values)
    days = pl.col("task").is_in([task.name for task in spec.tasks if task.aggregate == "days"])
    so_far = (pl.col("day") - pl.col("ds")).dt.total_days()
    whole = any_of(pl.col(name) != pl.col(name).round() for name in _SUMS[1:])
    falls = any_of(pl.col(name) < pl.col(name).shift(1) for name in _SUMS)
    before = pl.when(repeated(KEY[:-1])).then(pl.col("cumulated").shift(1)).otherwise(0.0)
    sums = (pl.col("cumulated") - before - pl.col("expected")).abs() > _TOLERANCE * pl.col("cumulated") + 1e-9
    crossing = any_of(pl.col(low) > pl.col(high) for low, high in itertools.pairwise(_SUMS[1:]))
    within = critical_rules(
        {
            "not_finite": ("finite numbers", ~finite),
            "negative": ("at least 0", any_of(pl.col(name) < 0 for name in values)),
            "crossing": (" <= ".join(_SUMS[1:]), crossing),
            "other_days": (
                "one row a day, day after day",
                repeated(KEY[:-1]) & (pl.col("day").diff().dt.total_days() != 1),
            ),
            "not_the_sum": ("sums of what is expected", sums),
            "falls": ("sums that do not fall from day to day", repeated(KEY[:-1]) & falls),
            "no_probability": ("a day of days <= 1", days & (pl.col("expected") > 1 + _TOLERANCE)),
            "above_days": ("days <= days so far", days & any_of(pl.col(n) > so_far + _TOLERANCE for n in _SUMS)),
            "not_whole": ("whole days", days & whole),
        }
    )
    return [*within, *_AGAINST]


def count_against(bucket: int, paths: pl.DataFrame, forecasts: pl.DataFrame, ds: date) -> pl.DataFrame:
    """Report of a bucket's paths against its forecasts: every day is there, and on the last day of each horizon the
    sums are that total's mean and quantiles."""
    on, last_day = list(KEY), pl.lit(ds) + pl.duration(days=pl.col("horizon_days"))
    due = forecasts.select(*KEY[:-1], *_TOTALS, "horizon_days", day=last_day)
    expected = int(due.filter(pl.col("horizon_days") == pl.col("horizon_days").max())["horizon_days"].sum())
    ends = paths.filter(pl.col("day").is_in(due["day"].unique().implode()))
    both = due.join(ends.select(*on, *_SUMS), on=on, how="left")
    apart = any_of(
        ((pl.col(total) - pl.col(found)).abs() > _TOLERANCE * pl.col(total).abs() + 1e-9).fill_null(True)
        for total, found in zip(_TOTALS, _SUMS, strict=True)
    )
    wrong = both.filter(apart)
    example = str(wrong.select(*on, *_TOTALS, *_SUMS).row(0)) if wrong.height else None
    not_the_total, incomplete = (rule.check.counter for rule in _AGAINST)
    found = [
        (bucket, ds, None, incomplete, float(abs(expected - paths.height)), f"{paths.height} of {expected} days"),
        (bucket, ds, None, not_the_total, float(wrong.height), example),
    ]
    return pl.DataFrame(found, schema=REPORT, orient="row")
