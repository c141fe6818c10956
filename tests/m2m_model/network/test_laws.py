import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from m2m_model.config import Task
from m2m_model.data.features import LEVEL_FLOOR
from m2m_model.data.spec import targets_of
from m2m_model.levels import LEVELS
from m2m_model.network.laws import (
    TOTALS,
    BetaBinomial,
    Law,
    Lognormal,
    NegativeBinomial,
    PerTask,
    Poisson,
    _negative_binomial_cdf,
    _poisson_cdf,
    level_weight,
    whole_quantiles,
)

TARGETS = targets_of([Task("spend", "spend", "sum"), Task("active_days", "active", "days")], [7])
SCALES = (20.0, 3.0)


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def loss(law: Law, target: list[float], *outputs: Tensor) -> np.ndarray:
    """Of rows whose recent level is 1."""
    return law.loss(torch.stack(outputs, 1), torch.tensor(target), torch.ones(len(target))).numpy()


def test_poisson_loss_on_three_literal_rows() -> None:
    rate, target = [0.5, 2.0, 10.0], [0.0, 3.0, 8.0]
    expected = [0.5, 2.0 - 3.0 * math.log(2.0), 10.0 - 8.0 * math.log(10.0)]
    np.testing.assert_allclose(loss(Poisson(1.0, False), target, torch.tensor(rate).log()), expected, rtol=1e-5)


def test_negative_binomial_is_scipys() -> None:
    mean, raw, target = torch.tensor([0.5, 3.0, 40.0]), torch.tensor([-1.0, 0.0, 2.0]), [0.0, 4.0, 31.0]
    size = np.array([softplus(value) + 1e-3 for value in raw.tolist()])
    expected = -stats.nbinom.logpmf(target, size, size / (size + mean.numpy()))
    np.testing.assert_allclose(loss(NegativeBinomial(1.0, False), target, mean.log(), raw), expected, rtol=1e-4)
    scaled = [total / 20 for total in target]
    np.testing.assert_allclose(loss(NegativeBinomial(20.0, False), scaled, (mean / 20).log(), raw), expected, rtol=1e-4)


def test_zero_inflated_lognormal_is_scipys() -> None:
    location, logit, raw = torch.tensor([0.3, -1.0]), torch.tensor([0.5, -2.0]), torch.tensor([0.2, 1.0])
    zero, width = 1 / (1 + np.exp(-logit.numpy())), np.array([softplus(v + 0.5) + 1e-2 for v in raw.tolist()])
    nothing = loss(Lognormal(1.0, False), [0.0, 0.0], location, logit, raw)
    np.testing.assert_allclose(nothing, -np.log(zero), rtol=1e-5)
    target = [2.5, 0.1]
    expected = -np.log(1 - zero) - stats.lognorm(width, scale=np.exp(location.numpy())).logpdf(target)
    np.testing.assert_allclose(loss(Lognormal(1.0, False), target, location, logit, raw), expected, rtol=1e-4)


def test_beta_binomial_is_scipys() -> None:
    logit, raw, days = torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([0.0, 1.0, -2.0]), [0.0, 3.0, 7.0]
    mean, size = 1 / (1 + np.exp(-logit.numpy())), np.array([softplus(v + 1) + 1e-2 for v in raw.tolist()])
    expected = -stats.betabinom.logpmf(days, 7, mean * size, (1 - mean) * size)
    np.testing.assert_allclose(loss(BetaBinomial(1.0, 7), days, logit, raw), expected, rtol=1e-4)


def test_an_exposure_offset_is_relative_to_the_recent_level() -> None:
    level_B, one_B = torch.tensor([0.1, 5.0]), torch.zeros(2, 1)
    found = Poisson(1.0, True).log_mean(one_B, level_B).exp()
    torch.testing.assert_close(found, level_B + LEVEL_FLOOR)
    torch.testing.assert_close(Poisson(1.0, False).log_mean(one_B, level_B), torch.zeros(2))


@pytest.mark.parametrize("name", TOTALS)
def test_parametric_quantiles_agree_with_draws(name: str) -> None:
    torch.manual_seed(0)
    head = PerTask(name, TARGETS, SCALES, exposure_offset=True)
    output_BMQ, level_BM = torch.randn(3, 2, head.outputs) * 0.5, torch.tensor([[0.1, 0.5], [1.0, 1.0], [30.0, 2.0]])
    mean_BM, p_zero_BM, level_GBM = head.distribution(output_BMQ, level_BM)
    assert (level_GBM.diff(dim=0) >= 0).all()
    assert ((p_zero_BM >= 0) & (p_zero_BM <= 1)).all()
    # Zero exactly where the mass of zero reaches, and the mean between the outer quantiles.
    for level, quantile_BM in zip(LEVELS, level_GBM, strict=True):
        assert ((quantile_BM == 0) == (p_zero_BM >= level - 1e-9)).all()
    assert ((mean_BM >= level_GBM[0]) & (mean_BM <= level_GBM[-1])).all()


def test_level_weights_are_the_root_of_the_level() -> None:
    level = torch.tensor([[1.0, 4.0]])
    root = (level + LEVEL_FLOOR).sqrt()
    torch.testing.assert_close(level_weight(level, "histogram"), root)
    # The Poisson loss grows with the level by itself.
    torch.testing.assert_close(level_weight(level, "poisson"), 1 / root)


def test_a_wild_output_stays_finite() -> None:
    for name in TOTALS:
        head = PerTask(name, TARGETS, SCALES, exposure_offset=True)
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
