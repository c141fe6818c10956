"""What must hold of every published forecast: counted by score before it commits, and by the backtest for the gate."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import reduce

import polars as pl

from m2m_model.data.spec import SequenceSpec
from m2m_model.forecasts.coherence import binding_days, larger_targets
from pipelines.quality.rules import Rule, critical_rules, repeated

TABLE = "marts.forecast_daily"
KEY = ("advertiser_id", "scenario_id", "task", "horizon_days")
_QUANTILES = ("p05", "p25", "median", "p75", "p95")
_TOTALS = ("point", "mean", *_QUANTILES)
_VALUES = (*_TOTALS, "p_zero")


def forecast_rules(spec: SequenceSpec) -> list[Rule]:
    """The rules, for rows in order of ``KEY``; all of a series' tasks are in one frame."""
    # What binds a task does so over each horizon alike.
    targets = spec.targets[spec.longest]
    days = pl.col("task").is_in([target.name for target in targets if target.aggregate == "days"])
    series = ["advertiser_id", "scenario_id", *(["horizon_days"] if len(spec.horizons_days) > 1 else [])]

    def of(task: str, figure: str) -> pl.Expr:
        """That figure of another task of the same series and horizon."""
        return pl.col(figure).filter(pl.col("task") == task).first().over(series)

    above = [
        (pl.col("task") == targets[m].name) & (any_of(pl.col(name) > of(targets[k].name, name) for name in _TOTALS))
        for m, others in enumerate(larger_targets(targets, spec.not_above))
        for k in others
    ]
    idle = [
        (pl.col("task") == target.name) & (pl.col("point") > 0) & (of(targets[k].name, "point") == 0)
        for m, target in enumerate(targets)
        if target.aggregate == "sum"
        for k in binding_days(targets, m)
    ]
    whole = ("point", *_QUANTILES)
    broken = distribution_rules() | {
        "above_horizon": (
            f"days <= {spec.horizon_days if len(spec.horizons_days) == 1 else 'horizon_days'}",
            days & any_of(pl.col(name) > pl.col("horizon_days") for name in _TOTALS),
        ),
        "not_whole": ("whole days", days & any_of(pl.col(name) != pl.col(name).round() for name in whole)),
        "incoherent": ("no total without an active day", any_of(idle)),
        "above_larger": ("no total above one that it is part of ([checks] not_above, active days)", any_of(above)),
        "duplicate_key": (f"one row per ({', '.join(KEY)})", repeated(KEY)),
    }
    if len(spec.horizons_days) > 1:
        longer = repeated(KEY[:-1])
        falls = any_of(pl.col(name) < pl.col(name).shift(1) for name in _TOTALS) | (
            pl.col("p_zero") > pl.col("p_zero").shift(1)
        )
        words = "no total below that of a shorter horizon, nor a p_zero above it"
        broken["falls_with_horizon"] = (words, longer & falls)
    return critical_rules(broken)


def distribution_rules() -> dict[str, tuple[str, pl.Expr]]:
    """What no published distribution may be, of a series or of many: what is expected, and the rows that break it."""
    finite = pl.all_horizontal(pl.col(name).is_finite().fill_null(False) for name in _VALUES)
    crossing = any_of(pl.col(a) > pl.col(b) for a, b in itertools.pairwise(_QUANTILES))
    return {
        "not_finite": ("finite numbers", ~finite),
        "negative": ("at least 0", any_of(pl.col(name) < 0 for name in _VALUES)),
        "no_probability": ("p_zero <= 1", pl.col("p_zero") > 1),
        "crossing": (" <= ".join(_QUANTILES), crossing),
    }


def broken(report: pl.DataFrame, rules: Sequence[Rule]) -> list[tuple[Rule, int, str]]:
    """The rules that a report's rows break, how many do, and one of them."""
    found = []
    for rule in rules:
        rows = report.filter(pl.col("counter") == rule.check.counter, pl.col("value") > 0).sort("bucket")
        if rows.height:
            example = rows["example"].drop_nulls().first()
            found.append((rule, int(rows["value"].sum()), str(example)))
    return found


def in_words(found: Iterable[tuple[Rule, int, str]]) -> str:
    """Rule, count, what is expected, one that breaks it."""
    return "; ".join(
        f"{rule.check.name} in {count:,} forecasts, expected {rule.check.expected}, first {example}"
        for rule, count, example in found
    )


def any_of(masks: Iterable[pl.Expr]) -> pl.Expr:
    """Rows that any of the masks has."""
    return reduce(lambda one, other: one | other, masks, pl.lit(False))
