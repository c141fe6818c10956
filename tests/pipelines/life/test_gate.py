"""The gate: literal figures in, a decision out."""

from __future__ import annotations

import pytest

from pipelines.config import Gate
from pipelines.errors import DataError
from pipelines.life.gate import Decision, best_baseline
from pipelines.life.gate import decide as decide_each


def decide(figures: dict[str, float], gate: Gate) -> Decision:
    """Of the one horizon."""
    return decide_each({7: figures}, gate)


BASELINES = {"last_h_days": 0.50, "mean_28": 0.40, "same_weekdays": 0.60}


def test_better_than_champion_and_best_baseline_is_promoted() -> None:
    decision = decide(BASELINES | {"challenger": 0.39, "champion": 0.395}, Gate())
    assert decision.promoted
    assert (decision.baseline, decision.baseline_nmae) == ("mean_28", 0.40)


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"challenger": 0.41}, "NMAE 0.4100 is 1.025 of best baseline mean_28's 0.4000 (at most 1)"),
        ({"challenger": 0.39, "champion": 0.30}, "NMAE 0.3900 is 1.300 of champion's 0.3000 (at most 1)"),
        ({"challenger": float("nan")}, "nan"),
        ({"challenger": 0.1, "champion": float("nan")}, "champion"),
    ],
)
def test_worse_or_unknown_is_not_promoted_and_says_by_how_much(figures: dict[str, float], words: str) -> None:
    decision = decide(BASELINES | figures, Gate())
    assert not decision.promoted
    assert words in decision.reason


def test_the_first_version_needs_no_champion_and_ratios_are_settings() -> None:
    assert decide(BASELINES | {"challenger": 0.40}, Gate()).promoted
    assert decide(BASELINES | {"challenger": 0.43}, Gate(max_ratio_to_baseline=1.1)).promoted


def test_a_backtest_without_the_challenger_is_refused() -> None:
    with pytest.raises(DataError, match="expected the challenger"):
        decide(BASELINES, Gate())
    with pytest.raises(DataError, match="expected a baseline"):
        decide({"challenger": 0.1}, Gate())


def test_a_perfect_baseline_or_champion_has_no_ratio_and_is_not_beaten() -> None:
    perfect = decide({"last_h_days": 0.0, "challenger": 0.01}, Gate())
    assert not perfect.promoted
    assert "NMAE 0.0100 beside best baseline last_h_days's 0.0000, which has no ratio" in perfect.reason
    assert decide({"last_h_days": 0.0, "challenger": 0.0, "champion": 0.0}, Gate()).promoted
    assert not decide({"last_h_days": 0.5, "challenger": 0.01, "champion": 0.0}, Gate()).promoted


def test_every_bar_must_hold_over_every_horizon_and_the_words_name_the_one_that_did_not() -> None:
    good = {"last_h_days": 0.5, "mean_28": 0.6, "challenger": 0.4, "champion": 0.45}
    bad = {"last_h_days": 0.38, "mean_28": 0.3, "challenger": 0.31, "champion": 0.5}
    passed = decide_each({7: good, 28: good}, Gate())
    assert passed.promoted
    assert passed.reason.startswith("7-day NMAE 0.4000 is 0.800 of best baseline last_h_days's 0.5000 (at most 1)")
    failed = decide_each({7: good, 28: bad}, Gate())
    assert not failed.promoted
    assert failed.reason == "28-day NMAE 0.3100 is 1.033 of best baseline mean_28's 0.3000 (at most 1)"
    assert (failed.baseline, failed.challenger_nmae) == ("last_h_days", pytest.approx(0.355))
    assert not decide_each({7: good, 28: good | {"challenger": float("nan")}}, Gate()).promoted


def test_a_baseline_without_a_figure_is_never_the_best() -> None:
    nan = float("nan")
    assert best_baseline({"last_h_days": nan, "mean_28": 0.4}) == "mean_28"
    assert decide({"last_h_days": nan, "mean_28": 0.4, "challenger": 0.3}, Gate()).baseline == "mean_28"
    assert not decide({"last_h_days": nan, "challenger": 0.3}, Gate()).promoted
