import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

from m2m_model.config import Task
from m2m_model.data.features import LEVEL_FLOOR
from m2m_model.levels import LEVELS, MEDIAN
from m2m_model.network.laws import (
    Histogram,
    Parametric,
    _negative_binomial_cdf,
    _poisson_cdf,
    beta_binomial_nll,
    histogram_edges,
    level_weight,
    negative_binomial_nll,
    poisson_nll,
    whole_quantiles,
    zero_inflated_lognormal_nll,
)

TASKS = (Task("spend", "spend", "sum"), Task("active_days", "active", "days"))
SCALES = (20.0, 3.0)


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def test_poisson_loss_on_three_literal_rows() -> None:
    rate, target = [0.5, 2.0, 10.0], [0.0, 3.0, 8.0]
    expected = [0.5, 2.0 - 3.0 * math.log(2.0), 10.0 - 8.0 * math.log(10.0)]
    torch.testing.assert_close(poisson_nll(torch.tensor(rate).log(), torch.tensor(target)), torch.tensor(expected))


def test_negative_binomial_is_scipys() -> None:
    mean, raw, target = torch.tensor([0.5, 3.0, 40.0]), torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([0.0, 4.0, 31.0])
    size = np.array([softplus(value) + 1e-3 for value in raw.tolist()])
    expected = -stats.nbinom.logpmf(target.numpy(), size, size / (size + mean.numpy()))
    np.testing.assert_allclose(negative_binomial_nll(mean, raw, target).numpy(), expected, rtol=1e-4)


def test_zero_inflated_lognormal_is_scipys() -> None:
    location, logit, raw = torch.tensor([0.3, -1.0]), torch.tensor([0.5, -2.0]), torch.tensor([0.2, 1.0])
    zero, width = 1 / (1 + np.exp(-logit.numpy())), np.array([softplus(v + 0.5) + 1e-2 for v in raw.tolist()])
    nothing = zero_inflated_lognormal_nll(location, logit, raw, torch.zeros(2)).numpy()
    np.testing.assert_allclose(nothing, -np.log(zero), rtol=1e-5)
    target = np.array([2.5, 0.1], np.float32)
    law = stats.lognorm(width, scale=np.exp(location.numpy()))
    found = zero_inflated_lognormal_nll(location, logit, raw, torch.from_numpy(target)).numpy()
    np.testing.assert_allclose(found, -np.log(1 - zero) - law.logpdf(target), rtol=1e-4)


def test_beta_binomial_is_scipys() -> None:
    logit, raw, days = torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([0.0, 1.0, -2.0]), torch.tensor([0.0, 3.0, 7.0])
    mean, size = 1 / (1 + np.exp(-logit.numpy())), np.array([softplus(v + 1) + 1e-2 for v in raw.tolist()])
    expected = -stats.betabinom.logpmf(days.numpy(), 7, mean * size, (1 - mean) * size)
    np.testing.assert_allclose(beta_binomial_nll(logit, raw, days, 7).numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["negative_binomial", "lognormal", "poisson"])
def test_parametric_quantiles_agree_with_draws(name: str) -> None:
    torch.manual_seed(0)
    head = Parametric(name, TASKS, 7, SCALES, exposure_offset=True)
    output_BMQ, level_BM = torch.randn(3, 2, head.outputs) * 0.5, torch.tensor([[0.1, 0.5], [1.0, 1.0], [30.0, 2.0]])
    mean_BM, p_zero_BM, level_GBM = head.distribution(output_BMQ, level_BM)
    assert (level_GBM.diff(dim=0) >= 0).all()
    assert ((p_zero_BM >= 0) & (p_zero_BM <= 1)).all()
    # Zero exactly where the mass of zero reaches, and the mean between the outer quantiles.
    for level, quantile_BM in zip(LEVELS, level_GBM, strict=True):
        assert ((quantile_BM == 0) == (p_zero_BM >= level - 1e-9)).all()
    assert ((mean_BM >= level_GBM[0]) & (mean_BM <= level_GBM[-1])).all()


def histogram(ratios: list[float]) -> Histogram:
    edges = histogram_edges([np.array(ratios), np.zeros(0)], 4)
    return Histogram(TASKS, 7, SCALES, edges)


def test_a_histogram_knows_zero_repetition_and_whole_days() -> None:
    head = histogram([-2.0, -1.0, 0.0, 1.0, 2.0])
    assert head.outputs == 8
    level_BM = torch.full((3, 2), 1.0)
    target_BM = torch.tensor([[0.0, 0.0], [1.0 + LEVEL_FLOOR, 5 / 3.0], [1e9, 7 / 3.0]])
    classes = head.classes(target_BM, level_BM)
    assert classes[:, 1].tolist() == [0, 5, 7]
    assert classes[0, 0] == 0
    assert classes[2, 0] == 4
    assert 1 <= classes[1, 0] <= 4


def test_the_histograms_loss_is_cross_entropy_without_impossible_classes() -> None:
    head = histogram([-2.0, -1.0, 0.0, 1.0, 2.0])
    output_BMQ = torch.randn(3, 2, 8, generator=torch.manual_seed(0))
    level_BM, target_BM = torch.ones(3, 2), torch.tensor([[0.0, 0.0], [0.9, 1.0], [3.0, 2.0]])
    classes = head.classes(target_BM, level_BM)
    found = head.loss(output_BMQ, target_BM, level_BM)
    for row in range(3):
        spend = output_BMQ[row, 0, :5].log_softmax(-1)
        assert found[row, 0] == pytest.approx(-float(spend[classes[row, 0]]), rel=1e-5)
        days = output_BMQ[row, 1].log_softmax(-1)
        assert found[row, 1] == pytest.approx(-float(days[classes[row, 1]]), rel=1e-5)


def test_a_sure_histogram_gives_its_class_back() -> None:
    head = histogram([-2.0, -1.0, 0.0, 1.0, 2.0])
    output_BMQ = torch.full((2, 2, 8), -50.0)
    output_BMQ[0, :, 0] = 50.0  # nothing
    output_BMQ[1, 0, 2] = output_BMQ[1, 1, 5] = 50.0
    level_BM = torch.tensor([[1.0, 1.0], [3.0, 1.0]])
    mean_BM, p_zero_BM, level_GBM = head.distribution(output_BMQ, level_BM)
    assert p_zero_BM[0].tolist() == pytest.approx([1.0, 1.0])
    assert (level_GBM[:, 0] == 0).all()
    low, high = (math.exp(float(edge)) * (3.0 + LEVEL_FLOOR) for edge in head.edge_MK[0, 1:3])
    assert low <= level_GBM[MEDIAN, 1, 0] <= high
    assert low <= mean_BM[1, 0] <= high
    assert level_GBM[MEDIAN, 1, 1] * SCALES[1] == pytest.approx(5.0)


def test_a_histogram_learns_a_known_distribution() -> None:
    """30 % zeros and a lognormal above: its quantiles come back from the fitted classes."""
    rng = np.random.default_rng(0)
    ratio = np.where(rng.random(20_000) < 0.3, 0.0, np.exp(rng.normal(0, 0.5, 20_000)))
    edges = histogram_edges([np.log(ratio[ratio > 0]), np.zeros(0)], 30)
    head = Histogram(TASKS, 7, (1.0, 1.0), edges)
    level_BM = torch.ones(len(ratio), 2)
    target_BM = torch.from_numpy(np.stack([ratio * (1 + LEVEL_FLOOR), np.zeros_like(ratio)], 1)).float()
    counts = torch.bincount(head.classes(target_BM, level_BM)[:, 0], minlength=head.outputs).float()
    logits_BMQ = torch.stack([counts.clamp_min(1e-9).log(), torch.zeros(head.outputs)]).unsqueeze(0)
    mean_BM, p_zero_BM, level_GBM = head.distribution(logits_BMQ, torch.ones(1, 2))
    assert float(p_zero_BM[0, 0]) == pytest.approx(0.3, abs=0.01)
    wanted = np.where(LEVELS <= 0.3, 0.0, np.exp(0.5 * stats.norm.ppf(np.maximum(LEVELS - 0.3, 1e-9) / 0.7)))
    inner = (LEVELS > 0.35) & (LEVELS < 0.98)
    found = level_GBM[:, 0, 0].numpy() / (1 + LEVEL_FLOOR)
    np.testing.assert_allclose(found[inner], wanted[inner], rtol=0.05)
    assert float(mean_BM[0, 0]) / (1 + LEVEL_FLOOR) == pytest.approx(ratio.mean(), rel=0.02)


def test_level_weights_are_the_root_of_the_level() -> None:
    level = torch.tensor([[1.0, 4.0]])
    root = (level + LEVEL_FLOOR).sqrt()
    torch.testing.assert_close(level_weight(level, "histogram"), root)
    # The Poisson loss grows with the level by itself.
    torch.testing.assert_close(level_weight(level, "poisson"), 1 / root)


def test_a_wild_output_stays_finite() -> None:
    for name in ("negative_binomial", "lognormal", "poisson"):
        head = Parametric(name, TASKS, 7, SCALES, exposure_offset=True)
        wild = torch.full((1, 2, head.outputs), 1e4)
        assert torch.isfinite(head.loss(wild, torch.ones(1, 2), torch.ones(1, 2))).all(), name
        assert torch.isfinite(head.loss(-wild, torch.zeros(1, 2), torch.ones(1, 2))).all(), name


def test_quantiles_of_counts_are_scipys_exactly_where_small_and_within_a_percent_elsewhere() -> None:
    mean_B = np.array([0.0, 1e-6, 0.3, 2.0, 17.0, 160.0, 3e4])
    size_B = np.array([1.0, 0.5, 0.7, 3.0, 0.4, 2.0, 1.5])
    laws = {
        partial(_poisson_cdf, mean_B): (stats.poisson(mean_B), np.sqrt(mean_B)),
        partial(_negative_binomial_cdf, mean_B, size_B): (
            stats.nbinom(size_B, size_B / (size_B + mean_B)),
            np.sqrt(mean_B + mean_B**2 / size_B),
        ),
    }
    for cdf, (law, deviation_B) in laws.items():
        zero_B, value_GB = whole_quantiles(cdf, mean_B, deviation_B)
        expected_GB = law.ppf(LEVELS[:, None])
        np.testing.assert_allclose(zero_B, law.pmf(0))
        small = expected_GB < 60
        np.testing.assert_array_equal(value_GB[small], np.maximum(expected_GB[small], 0))
        np.testing.assert_allclose(value_GB[~small], expected_GB[~small], rtol=0.015)
