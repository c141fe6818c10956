"""The gate: literal figures in, a decision out."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from pipelines.config import Gate
from pipelines.errors import DataError
from pipelines.life.gate import (
    FAILED,
    FEW,
    MISSING,
    NO_BAR,
    PASSED,
    WORSE,
    Decision,
    best_baseline,
    decide,
    for_people,
    in_order,
)

BASELINES = {"last_h_days": 0.50, "mean_28": 0.40, "same_weekdays": 0.60}
SURE = 0.01  # a spread that leaves no doubt


def pair(
    own: float | None,
    theirs: float | None,
    other: str = "champion",
    scenario: str = "*",
    task: str = "*",
    days: int = 7,
    spread: float = SURE,
    n: int = 1000,
) -> dict[str, object]:
    known = own is not None and theirs is not None
    ratio = None if not known else 1.0 if own == theirs == 0 else np.inf if theirs == 0 else own / theirs  # type: ignore[operator]
    low, high = (None, None) if ratio is None else (ratio * np.exp(-1.96 * spread), ratio * np.exp(1.96 * spread))
    return {
        "other": other, "scenario_id": scenario, "task": task, "horizon_days": days, "n": n, "nmae": own,
        "other_nmae": theirs, "ratio": ratio, "ratio_low": low, "ratio_high": high, "spread": spread,
    }  # fmt: skip


def gate(*pairs: dict[str, object], rules: Gate | None = None, broken: dict[str, str] | None = None) -> Decision:
    schema = {"nmae": pl.Float64, "other_nmae": pl.Float64, "ratio": pl.Float64, "ratio_low": pl.Float64}
    schema |= {"ratio_high": pl.Float64, "spread": pl.Float64}
    return decide(pl.DataFrame(list(pairs), schema_overrides=schema, strict=False), rules or Gate(), broken)


def test_better_than_champion_and_best_baseline_is_promoted() -> None:
    decision = gate(pair(0.39, 0.395), pair(0.39, 0.40, "mean_28"))
    assert decision.promoted
    assert (decision.baseline, decision.baseline_nmae, decision.champion_nmae) == ("mean_28", 0.40, 0.395)
    assert "NMAE 0.3900 is 0.975 of best baseline mean_28's 0.4000" in decision.reason


@pytest.mark.parametrize(
    ("own", "champion", "baseline", "words"),
    [
        (0.41, None, 0.40, "NMAE 0.4100 is 1.025 of best baseline mean_28's 0.4000 (95 %: 1.01 .. 1.05; at most 1 "),
        (0.39, 0.30, 0.40, "NMAE 0.3900 is 1.300 of champion's 0.3000 (95 %: 1.27 .. 1.33; not surely above 1 times)"),
        (None, 0.30, 0.40, "NMAE nan beside best baseline mean_28's 0.4000"),
        (0.10, float("nan"), 0.40, "NMAE 0.1000 beside champion's nan"),
    ],
)  # fmt: skip
def test_worse_or_unknown_is_not_promoted_and_says_by_how_much(
    own: float | None, champion: float | None, baseline: float, words: str
) -> None:
    pairs = [pair(own, baseline, "mean_28")]
    if champion is not None:
        pairs.append(pair(own, None if np.isnan(champion) else champion))
    decision = gate(*pairs)
    assert not decision.promoted
    assert words in decision.reason


def test_what_may_be_chance_beside_the_champion_refuses_nobody() -> None:
    bars = pair(0.39, 0.40, "mean_28")
    assert gate(pair(0.39, 0.38, spread=0.05), bars).promoted
    assert not gate(pair(0.39, 0.38, spread=0.005), bars).promoted


def test_the_first_version_needs_no_champion_and_ratios_are_settings() -> None:
    assert gate(pair(0.40, 0.40, "mean_28")).promoted
    assert gate(pair(0.43, 0.40, "mean_28"), rules=Gate(max_ratio_to_baseline=1.1)).promoted
    assert gate(pair(0.43, 0.40), pair(0.43, 0.5, "mean_28"), rules=Gate(max_ratio_to_champion=1.1)).promoted


@pytest.mark.parametrize(
    ("cell", "verdict"),
    [
        (pair(0.50, 0.40, scenario="search", task="clicks"), FAILED),
        (pair(0.50, 0.40, task="clicks"), FAILED),
        (pair(0.50, 0.40, scenario="search", task="clicks", spread=0.2), PASSED),  # may be chance
        (pair(0.415, 0.40, scenario="search", task="clicks"), PASSED),  # too small to matter
        (pair(0.50, 0.40, scenario="search", task="clicks", n=299), FEW),
        (pair(0.30, 0.40, scenario="search", task="clicks"), PASSED),
        (pair(None, 0.40, scenario="search", task="clicks"), MISSING),
        (pair(0.01, 0.0, scenario="search", task="clicks"), FAILED),
        (pair(0.0, 0.0, scenario="search", task="clicks"), PASSED),
        (pair(0.50, 0.40, "mean_28", "search", "clicks"), WORSE),
    ],
)
def test_a_cell_fails_if_it_is_worse_surely_and_by_much(cell: dict[str, object], verdict: str) -> None:
    decision = gate(pair(0.30, 0.31), pair(0.30, 0.40, "mean_28"), cell)
    (found,) = decision.cells.filter(task="clicks")["verdict"]
    assert found == verdict
    assert decision.promoted == (verdict not in (FAILED, MISSING))
    if verdict == FAILED and cell["other_nmae"]:
        assert "clicks: NMAE 0.5000 is 1.250 of champion's 0.4000 (95 %: 1.23 .. 1.27; " in decision.reason


def test_of_many_cells_some_look_worse_by_chance() -> None:
    """Twenty scenarios of the same model: one is 1.9 standard errors above the tolerance, as one in twenty is."""
    overall = (pair(0.30, 0.30), pair(0.30, 0.40, "mean_28"))
    unlucky = pair(0.40 * np.exp(0.1 * 1.9) * 1.021, 0.40, scenario="s0", task="clicks", spread=0.1)
    alone = gate(*overall, unlucky, rules=Gate(tolerance=0))
    others = [pair(0.40, 0.40, scenario=f"s{n}", task="clicks", spread=0.1) for n in range(1, 20)]
    assert alone.promoted == (unlucky["ratio_low"] <= 1)  # type: ignore[operator]
    assert gate(*overall, unlucky, *others, rules=Gate(tolerance=0)).promoted
    sure = pair(0.60, 0.40, scenario="s0", task="clicks", spread=0.05)
    assert not gate(*overall, sure, *others).promoted


def test_a_champion_whose_forecasts_broke_rules_is_no_bar_and_such_a_challenger_no_champion() -> None:
    pairs = (pair(0.39, 0.30), pair(0.39, 0.40, "mean_28"))
    decision = gate(*pairs, broken={"champion": "negative: found 1"})
    assert decision.promoted
    assert decision.cells.filter(other="champion")["verdict"].to_list() == [NO_BAR]
    refused = gate(pair(0.1, 0.40, "mean_28"), broken={"challenger": "negative: found 1"})
    assert not refused.promoted
    assert "its forecasts break rules" in refused.reason


def test_a_backtest_without_pairs_is_refused() -> None:
    with pytest.raises(DataError, match="expected the challenger beside a baseline"):
        gate(pair(0.1, 0.2))
    with pytest.raises(DataError, match="expected a baseline"):
        best_baseline({"challenger": 0.1})


def test_a_perfect_baseline_or_champion_has_no_ratio_and_is_not_beaten() -> None:
    perfect = gate(pair(0.01, 0.0, "last_h_days"))
    assert not perfect.promoted
    assert "NMAE 0.0100 beside best baseline last_h_days's 0.0000, which has no ratio" in perfect.reason
    assert gate(pair(0.0, 0.0, "last_h_days"), pair(0.0, 0.0)).promoted
    assert not gate(pair(0.01, 0.5, "last_h_days"), pair(0.01, 0.0)).promoted


def test_every_bar_must_hold_over_every_horizon_and_the_words_name_the_one_that_did_not() -> None:
    good = [pair(0.4, 0.5, "last_h_days", days=days) for days in (7, 28)]
    assert gate(*good).reason.startswith("7-day NMAE 0.4000 is 0.800 of best baseline last_h_days's 0.5000")
    failed = gate(good[0], pair(0.31, 0.30, "last_h_days", days=28))
    assert not failed.promoted
    assert failed.reason.startswith("28-day NMAE 0.3100 is 1.033 of best baseline last_h_days's 0.3000")


def test_the_best_baseline_is_the_lowest_and_no_nan() -> None:
    assert best_baseline(BASELINES) == "mean_28"
    assert best_baseline({"last_h_days": 0.5, "mean_28": float("nan")}) == "last_h_days"


def test_a_person_sees_the_means_first_then_what_failed_then_what_is_worse() -> None:
    rows = [
        pair(0.39, 0.38, spread=0.05),
        pair(0.39, 0.41, "mean_28"),
        pair(0.5, 0.5, scenario="feed", task="spend"),
        pair(0.9, 0.5, "mean_28", scenario="feed", task="spend"),
        pair(0.9, 0.5, scenario="search", task="spend"),
        pair(None, 0.5, scenario="a", task="spend"),
    ]
    found = in_order(gate(*rows).cells)
    assert found.filter("first")["scenario_id"].to_list() == ["*", "*", "a", "search", "feed"]
    shown = for_people(found)
    assert shown["verdict"].to_list() == ["passed", "passed", "no figure", "failed", "worse", "passed"]
    assert shown["scenario task"].to_list()[-2:] == ["feed spend", "feed spend"]
    assert shown.row(3, named=True)["95 %"] == "1.77..1.84"
