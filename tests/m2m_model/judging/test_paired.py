"""The paired bootstrap: what it says of differences that are there, and of none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from m2m_model.judging.paired import REPLICATES, chance, compare, counts, discoveries, replicate_sums

NAMES = np.array([f"advertiser {n}" for n in range(4000)])


def test_an_advertiser_counts_as_poisson_says_and_the_same_wherever_it_stands() -> None:
    count_AR = counts(NAMES)
    assert (count_AR[:, 0] == 1).all()
    drawn = count_AR[:, 1:]
    assert drawn.mean() == pytest.approx(1, abs=0.01)
    assert drawn.var() == pytest.approx(1, abs=0.02)
    shares = np.bincount(drawn.ravel(), minlength=8)[:6] / drawn.size
    assert shares == pytest.approx(stats.poisson(1).pmf(np.arange(6)), abs=0.003)
    assert np.abs(np.corrcoef(drawn[:200])[np.triu_indices(200, 1)]).mean() < 0.08  # 0.056 of chance
    assert (counts(NAMES[::-1])[::-1] == count_AR).all()


def test_replicates_add_up_over_buckets() -> None:
    rng = np.random.default_rng(1)
    error_SM, scenario_S = rng.exponential(size=(len(NAMES), 2)), rng.choice(["a", "b"], len(NAMES))
    scenarios, whole = replicate_sums(error_SM, NAMES, scenario_S)
    halves = [
        replicate_sums(error_SM[part], NAMES[part], scenario_S[part])[1] for part in (slice(0, 900), slice(900, None))
    ]
    assert scenarios.tolist() == ["a", "b"]
    assert np.allclose(halves[0] + halves[1], whole)
    assert np.allclose(whole[0, :, 0], error_SM[scenario_S == "a"].sum(0))


def decided(effect: float, seed: int, series: int = 400) -> tuple[bool, bool]:
    """Whether the interval holds the true ratio, and whether the one is called worse than 2 % worse."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.normal(0, 1.5, series))  # a few advertisers are most of the money
    both = size[:, None] * np.exp(rng.normal(0, 0.4, (series, 2))) * [1 + effect, 1]
    names = np.array([f"{seed}-{n}" for n in range(series)])
    _, sums = replicate_sums(both, names, np.full(series, "all"))
    found = compare(sums[0, 0], sums[0, 1])
    p = float(chance(np.array([found.ratio]), np.array([found.spread]), 0.02)[0])
    return found.low <= 1 + effect <= found.high, p < 0.05 and found.low > 1.02


def test_intervals_hold_the_truth_as_often_as_they_say_and_large_differences_are_found() -> None:
    holds = [decided(0.1, seed)[0] for seed in range(200)]
    assert np.mean(holds) == pytest.approx(0.95, abs=0.06)
    assert np.mean([decided(0.0, seed)[1] for seed in range(200)]) <= 0.05
    assert np.mean([decided(0.35, seed)[1] for seed in range(100)]) > 0.9


def test_what_is_missing_perfect_or_equal_is_said_without_a_warning() -> None:
    one, none, gap = np.ones(REPLICATES + 1), np.zeros(REPLICATES + 1), np.full(REPLICATES + 1, np.nan)
    pairs = [(gap, one), (one, gap), (none, none), (one, none), (none, one), (one, one)]
    found = [compare(*pair) for pair in pairs]
    assert [each.ratio for each in found] == pytest.approx([np.nan, np.nan, 1, np.inf, 0, 1], nan_ok=True)
    ratio_X, spread_X = (np.array([getattr(each, name) for each in found]) for name in ("ratio", "spread"))
    assert chance(ratio_X, spread_X, 0.02) == pytest.approx([np.nan, np.nan, 1, 0, 1, 1], nan_ok=True)


def test_of_many_cells_few_are_called_by_chance() -> None:
    rng = np.random.default_rng(2)
    called = [discoveries(rng.uniform(size=40), 0.05).any() for _ in range(400)]
    assert np.mean(called) == pytest.approx(0.05, abs=0.03)
    assert discoveries(np.array([1e-6, 0.5, np.nan, 0.9]), 0.05).tolist() == [True, False, False, False]
    assert discoveries(np.array([]), 0.05).tolist() == []
