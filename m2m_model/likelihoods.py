"""What the network's output means: the loss on it and the mean behind it. Apart from the network, so it can change.

All figures are in units of the task's scale, so that no task's unit dominates the sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from m2m_model.inputs import LEVEL_FLOOR

_LOG_LIMIT = 30.0  # exp(30) is beyond any total; keeps a wild extrapolation finite


def poisson_nll(log_rate_BM: Tensor, target_BM: Tensor) -> Tensor:
    """Poisson negative log likelihood without its constant, lambda - y log lambda (paper, "Loss"), per row and task."""
    log_rate_BM = log_rate_BM.clamp(-_LOG_LIMIT, _LOG_LIMIT)
    return torch.exp(log_rate_BM) - target_BM * log_rate_BM


def level_weight(level_BM: Tensor) -> Tensor:
    """Turns the Poisson loss's own weight, the level, into its square root: a few giants do not decide everything."""
    return (level_BM + LEVEL_FLOOR).rsqrt()


def loss(log_rate_BM: Tensor, target_BM: Tensor, level_BM: Tensor, level_weights: bool) -> Tensor:
    """Mean over rows of the sum over tasks."""
    loss_BM = poisson_nll(log_rate_BM, target_BM)
    if level_weights:
        loss_BM = loss_BM * level_weight(level_BM)
    return loss_BM.sum(1).mean()


def mean(log_rate_BM: Tensor) -> Tensor:
    """The expected total, in units of the task's scale."""
    return torch.exp(log_rate_BM.clamp(-_LOG_LIMIT, _LOG_LIMIT))
