import math

import torch

from m2m_model.inputs import LEVEL_FLOOR
from m2m_model.likelihoods import level_weight, loss, mean, poisson_nll


def test_poisson_loss_on_three_literal_rows() -> None:
    rate, target = [0.5, 2.0, 10.0], [0.0, 3.0, 8.0]
    expected = [0.5, 2.0 - 3.0 * math.log(2.0), 10.0 - 8.0 * math.log(10.0)]
    found = poisson_nll(torch.tensor(rate).log()[:, None], torch.tensor(target)[:, None])
    torch.testing.assert_close(found[:, 0], torch.tensor(expected))


def test_loss_adds_over_tasks_and_averages_over_rows() -> None:
    log_rate, target = torch.tensor([[0.0, 1.0], [2.0, -1.0]]), torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    level = torch.tensor([[1.0, 4.0], [0.0, 2.0]])
    plain = poisson_nll(log_rate, target)
    torch.testing.assert_close(loss(log_rate, target, level, False), plain.sum() / 2)
    weighted = plain / (level + LEVEL_FLOOR).sqrt()
    torch.testing.assert_close(loss(log_rate, target, level, True), weighted.sum() / 2)
    torch.testing.assert_close(level_weight(level), 1 / (level + LEVEL_FLOOR).sqrt())


def test_the_loss_is_least_at_the_target() -> None:
    target = torch.tensor([[3.0]])
    losses = [float(poisson_nll(torch.tensor([[rate]]).log(), target)) for rate in (2.5, 3.0, 3.5)]
    assert losses[1] == min(losses)


def test_a_wild_rate_stays_finite() -> None:
    assert torch.isfinite(mean(torch.tensor([1e6, -1e6]))).all()
    assert torch.isfinite(poisson_nll(torch.tensor([1e6, -1e6]), torch.tensor([1.0, 1.0]))).all()
