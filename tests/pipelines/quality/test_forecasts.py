"""The rules of published forecasts: each on literal rows, and none broken by what the model package makes coherent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from m2m_model.config import Task
from m2m_model.data.spec import SequenceSpec
from m2m_model.forecasts.coherence import coherent
from m2m_model.forecasts.distribution import Distribution
from m2m_model.forecasts.metrics import named
from m2m_model.levels import LEVELS
from pipelines.quality.forecasts import KEY, broken, forecast_rules, in_words
from pipelines.quality.rules import count_rows

TASKS = (
    Task("active_days", "active", "days"),
    Task("clicks", "clicks", "sum"),
    Task("tap_days", "clicks", "days"),
    Task("views", "views", "sum"),
)
SPEC = SequenceSpec(("views", "clicks"), (), (), (), TASKS, (7,), 28, not_above=(("clicks", "views"),))
RULES = forecast_rules(SPEC)
FIGURES = ("point", "mean", "p05", "p25", "median", "p75", "p95")


def rows_of(**changed: dict[str, Any]) -> pl.DataFrame:
    """Two series of four tasks, sound but for the named columns of the first one's tasks."""
    usual = {"active_days": 5.0, "clicks": 9.0, "tap_days": 4.0, "views": 80.0}
    rows = []
    for advertiser in ("a", "b"):
        for task, value in usual.items():
            row = {"ds": None, "advertiser_id": advertiser, "scenario_id": "s", "task": task, "p_zero": 0.0}
            row["horizon_days"] = 7
            row |= dict.fromkeys(FIGURES, value)
            rows.append(row | (changed.get(task, {}) if advertiser == "a" else {}))
    return pl.DataFrame(rows, schema_overrides={"ds": pl.Date} | dict.fromkeys(FIGURES, pl.Float64)).sort(*KEY)


def names_broken(rows: pl.DataFrame) -> set[str]:
    return {rule.check.name for rule, _, _ in broken(count_rows(0, rows, RULES, KEY), RULES)}


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({}, None),
        ({"views": {"mean": float("nan")}}, "not_finite"),
        ({"views": {"point": None}}, "not_finite"),
        ({"clicks": {"p05": -0.1}}, "negative"),
        ({"clicks": {"p_zero": 1.2}}, "no_probability"),
        ({"active_days": {"median": 6.0}}, "crossing"),
        ({"active_days": {"p95": 8.0}}, "above_horizon"),
        ({"tap_days": {"point": 3.5}}, "not_whole"),
        ({"active_days": {"point": 0.0}, "tap_days": {"point": 0.0}}, "incoherent"),
        ({"tap_days": {"point": 0.0}}, "incoherent"),
        ({"clicks": {"point": 81.0}}, "above_larger"),
        ({"clicks": {"p95": 81.0}}, "above_larger"),
        ({"tap_days": {"mean": 5.5}}, "above_larger"),
    ],
)
def test_each_rule_finds_the_row_that_breaks_it(changed: dict[str, Any], rule: str | None) -> None:
    assert names_broken(rows_of(**changed)) == ({rule} if rule else set())


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({}, None),
        ({"mean": 79.0}, "falls_with_horizon"),
        ({"p95": 79.0, "median": 79.0, "p75": 79.0, "p25": 79.0, "p05": 79.0}, "falls_with_horizon"),
        ({"p_zero": 0.1}, "falls_with_horizon"),
    ],
)
def test_a_longer_horizon_that_has_less_is_found(changed: dict[str, Any], rule: str | None) -> None:
    """Whatever another series or task has: a's 14 days of views beside its 7."""
    spec = replace(SPEC, horizons_days=(7, 14))
    later = rows_of().with_columns(horizon_days=pl.lit(14))
    at = (pl.col("advertiser_id") == "a") & (pl.col("task") == "views")
    later = later.with_columns(pl.when(at).then(value).otherwise(name).alias(name) for name, value in changed.items())
    rows = pl.concat([rows_of().with_columns(pl.col("horizon_days").cast(pl.Int32)), later]).sort(*KEY)
    rules = forecast_rules(spec)
    found = broken(count_rows(0, rows, rules, KEY), rules)
    assert {one.check.name for one, _, _ in found} == ({rule} if rule else set())
    assert all(example == "(a, s, views, 14)" for _, _, example in found)


def test_days_are_held_against_their_own_horizon() -> None:
    spec = replace(SPEC, horizons_days=(4, 7))
    rows = pl.concat([rows_of(), rows_of().with_columns(horizon_days=pl.lit(4, pl.Int64))]).sort(*KEY)
    rules = forecast_rules(spec)
    found = {rule.check.name: count for rule, count, _ in broken(count_rows(0, rows, rules, KEY), rules)}
    assert found == {"above_horizon": 2}  # 5 active days out of 4, of each advertiser


def test_a_repeated_row_is_found() -> None:
    rows = rows_of()
    assert "duplicate_key" in names_broken(pl.concat([rows, rows.head(1)]).sort(*KEY))


def test_words_name_rule_count_and_one_forecast() -> None:
    rows = rows_of(clicks={"point": 81.0}, tap_days={"point": 4.5})
    words = in_words(broken(count_rows(0, rows, RULES, KEY), RULES))
    assert "not_whole in 1 forecasts, expected whole days, first (a, s, tap_days, 7)" in words
    assert "above_larger in 1 forecasts" in words


@pytest.mark.parametrize("horizons", [(7,), (1, 7, 14)])
@pytest.mark.parametrize("seed", range(20))
def test_what_is_made_coherent_breaks_no_rule(seed: int, horizons: tuple[int, ...]) -> None:
    """Both sides of the promise: the package keeps what the rules ask for, whatever comes in."""
    spec, rng = replace(SPEC, horizons_days=horizons), np.random.default_rng(seed)
    shape = 30, len(spec.targets)
    p_zero_NM = rng.random(shape) * rng.integers(0, 2, shape)
    level_GNM = np.sort(rng.gamma(0.4, 10, (len(LEVELS), *shape)), 0)
    found = coherent(Distribution(rng.gamma(0.4, 10, shape), level_GNM.mean(0), p_zero_NM, level_GNM), spec)
    figures = {name: getattr(found, f"{name}_NM").ravel() for name in (*FIGURES, "p_zero")}
    keys = {"advertiser_id": [f"a{n:02d}" for n in range(30) for _ in spec.targets], **named(spec.targets, 30)}
    rows = pl.DataFrame(keys | figures).with_columns(ds=pl.lit(None, pl.Date), scenario_id=pl.lit("s")).sort(*KEY)
    rules = forecast_rules(spec)
    assert broken(count_rows(0, rows, rules, KEY), rules) == []
