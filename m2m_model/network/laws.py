"""The usual laws of a total, one class each, and the paper's: the loss on the network's output and the distribution
behind it. Apart from the network.

Totals and levels are in units of the target's scale, so that no task's unit and no horizon dominates the sum. B rows, M
targets (a task over a horizon), Q outputs of a target, G levels of ``LEVELS``. ``loss`` is the negative log likelihood
(B,), constants of the data left out; ``figures`` are the mean (B,), the zero mass (B,) and the quantiles (G, B).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Protocol

import numpy as np
import torch
from scipy import special
from torch import Tensor, nn
from torch.nn import functional

from m2m_model.arrays import Floats
from m2m_model.data.features import LEVEL_FLOOR
from m2m_model.data.spec import Target
from m2m_model.levels import LEVELS

_LOG_LIMIT = 30.0  # exp(30) is beyond any total; keeps a wild extrapolation finite
_LEVEL_G1 = LEVELS[:, None]

Figures = tuple[Floats, Floats, Floats]


class Law(Protocol):
    """What one target's outputs stand for."""

    outputs: ClassVar[int]

    def loss(self, output_BQ: Tensor, target_B: Tensor, level_B: Tensor) -> Tensor: ...

    def figures(self, output_BQ: Tensor, level_B: Tensor) -> Figures: ...


@dataclass(frozen=True)
class Total:
    """What the laws of a sum share: its location, which is relative to the recent level with ``exposure_offset``."""

    scale: float
    exposure_offset: bool

    def log_mean(self, output_BQ: Tensor, level_B: Tensor) -> Tensor:
        """log of the expected total, from the first output."""
        output_B = output_BQ[:, 0]
        if self.exposure_offset:
            output_B = output_B + torch.log(level_B + LEVEL_FLOOR)
        return output_B.clamp(-_LOG_LIMIT, _LOG_LIMIT)


class Poisson(Total):
    """lambda, relative to the scale. The paper's loss."""

    outputs: ClassVar[int] = 1

    def loss(self, output_BQ: Tensor, target_B: Tensor, level_B: Tensor) -> Tensor:
        """lambda - y log lambda (paper, "Loss")."""
        log_rate_B = self.log_mean(output_BQ, level_B)
        return torch.exp(log_rate_B) - target_B * log_rate_B

    def figures(self, output_BQ: Tensor, level_B: Tensor) -> Figures:
        mean_B = _numbers(self.log_mean(output_BQ, level_B).exp())
        total_B = mean_B * self.scale
        zero_B, value_GB = whole_quantiles(partial(_poisson_cdf, total_B), total_B, np.sqrt(total_B))
        return mean_B, zero_B, value_GB / self.scale


class NegativeBinomial(Total):
    """Mean and dispersion of the total in its own units; it need not be whole. NB2: variance mean + mean^2 / size."""

    outputs: ClassVar[int] = 2

    @staticmethod
    def size(output_BQ: Tensor) -> Tensor:
        return functional.softplus(output_BQ[:, 1]) + 1e-3

    def loss(self, output_BQ: Tensor, target_B: Tensor, level_B: Tensor) -> Tensor:
        mean_B, size_B = self.log_mean(output_BQ, level_B).exp() * self.scale, self.size(output_BQ)
        total_B = target_B * self.scale
        log_total_B = torch.log(size_B + mean_B)
        chosen_B = torch.lgamma(total_B + size_B) - torch.lgamma(size_B) - torch.lgamma(total_B + 1)
        return -(
            chosen_B + size_B * (size_B.log() - log_total_B) + total_B * (mean_B.clamp_min(1e-12).log() - log_total_B)
        )

    def figures(self, output_BQ: Tensor, level_B: Tensor) -> Figures:
        mean_B, size_B = _numbers(self.log_mean(output_BQ, level_B).exp()), _numbers(self.size(output_BQ))
        total_B = mean_B * self.scale
        cdf = partial(_negative_binomial_cdf, total_B, size_B)
        zero_B, value_GB = whole_quantiles(cdf, total_B, np.sqrt(total_B + total_B**2 / size_B))
        return mean_B, zero_B, value_GB / self.scale


class Lognormal(Total):
    """A mass at zero, and a lognormal above it with median exp(location)."""

    outputs: ClassVar[int] = 3

    @staticmethod
    def width(output_BQ: Tensor) -> Tensor:
        return functional.softplus(output_BQ[:, 2] + 0.5) + 1e-2

    def loss(self, output_BQ: Tensor, target_B: Tensor, level_B: Tensor) -> Tensor:
        location_B, zero_logit_B, width_B = self.log_mean(output_BQ, level_B), output_BQ[:, 1], self.width(output_BQ)
        log_target_B = target_B.clamp_min(1e-30).log()
        gap_B = (log_target_B - location_B) / width_B
        positive_B = 0.5 * gap_B**2 + width_B.log() + 0.5 * float(np.log(2 * np.pi)) + log_target_B
        return torch.where(
            target_B > 0, positive_B + functional.softplus(zero_logit_B), functional.softplus(-zero_logit_B)
        )

    def figures(self, output_BQ: Tensor, level_B: Tensor) -> Figures:
        median_B, width_B = _numbers(self.log_mean(output_BQ, level_B).exp()), _numbers(self.width(output_BQ))
        zero_B = 1 / (1 + np.exp(-_numbers(output_BQ[:, 1])))
        inner_GB = np.clip((_LEVEL_G1 - zero_B) / np.maximum(1 - zero_B, 1e-12), 0, 1 - 1e-12)
        value_GB = np.where(inner_GB > 0, median_B * np.exp(width_B * special.ndtri(inner_GB)), 0.0)
        mean_B = (1 - zero_B) * median_B * np.exp(np.minimum(width_B**2 / 2, _LOG_LIMIT))
        return mean_B, zero_B, value_GB


@dataclass(frozen=True)
class BetaBinomial:
    """Days active out of ``horizon_days``, with a beta-distributed daily probability."""

    scale: float
    horizon_days: int
    outputs: ClassVar[int] = 2

    @staticmethod
    def beta(output_BQ: Tensor) -> tuple[Tensor, Tensor]:
        size_B = functional.softplus(output_BQ[:, 1] + 1.0) + 1e-2
        mean_B = torch.sigmoid(output_BQ[:, 0]).clamp(1e-4, 1 - 1e-4)
        return mean_B * size_B, (1 - mean_B) * size_B

    def loss(self, output_BQ: Tensor, target_B: Tensor, level_B: Tensor) -> Tensor:
        days_B = (target_B * self.scale).round().clamp(0, self.horizon_days)
        alpha_B, beta_B = self.beta(output_BQ)
        n = torch.tensor(float(self.horizon_days), dtype=days_B.dtype, device=days_B.device)

        def log_beta(a: Tensor, b: Tensor) -> Tensor:
            return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)

        chosen_B = torch.lgamma(n + 1) - torch.lgamma(days_B + 1) - torch.lgamma(n - days_B + 1)
        return -(chosen_B + log_beta(days_B + alpha_B, n - days_B + beta_B) - log_beta(alpha_B, beta_B))

    def figures(self, output_BQ: Tensor, level_B: Tensor) -> Figures:
        alpha_B, beta_B = map(_numbers, self.beta(output_BQ))
        day_K1 = np.arange(self.horizon_days + 1)[:, None]
        chosen_K1 = -np.log(self.horizon_days + 1) - special.betaln(self.horizon_days - day_K1 + 1, day_K1 + 1)
        log_odds_KB = special.betaln(day_K1 + alpha_B, self.horizon_days - day_K1 + beta_B)
        cdf_KB = np.exp(chosen_K1 + log_odds_KB - special.betaln(alpha_B, beta_B)).cumsum(0)
        mean_B = self.horizon_days * alpha_B / (alpha_B + beta_B) / self.scale
        value_GB = np.minimum((cdf_KB < _LEVEL_G1[:, None] - 1e-12).sum(1), self.horizon_days).astype(float)
        return mean_B, cdf_KB[0], value_GB / self.scale


TOTALS: Mapping[str, type[Poisson | NegativeBinomial | Lognormal]] = {
    "poisson": Poisson,
    "negative_binomial": NegativeBinomial,
    "lognormal": Lognormal,
}


class PerTask(nn.Module):
    """One of ``TOTALS`` for every target; but one of ``days`` has a finite support and, save under the paper's Poisson,
    a beta-binomial."""

    def __init__(self, name: str, targets: Sequence[Target], scales: Sequence[float], exposure_offset: bool) -> None:
        super().__init__()
        self.laws: list[Law] = [
            BetaBinomial(scale, target.horizon_days)
            if name != "poisson" and target.aggregate == "days"
            else TOTALS[name](scale, exposure_offset)
            for target, scale in zip(targets, scales, strict=True)
        ]
        self.outputs = max(law.outputs for law in self.laws)

    def loss(self, output_BMQ: Tensor, target_BM: Tensor, level_BM: Tensor) -> Tensor:
        """(B, M)."""
        each = zip(self.laws, output_BMQ.unbind(1), target_BM.unbind(1), level_BM.unbind(1), strict=True)
        return torch.stack([law.loss(*figures) for law, *figures in each], 1)

    def distribution(self, output_BMQ: Tensor, level_BM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (B, M), zero mass (B, M) and quantiles (G, B, M)."""
        each = zip(self.laws, output_BMQ.double().unbind(1), level_BM.double().unbind(1), strict=True)
        means, zeros, levels = zip(*(law.figures(*figures) for law, *figures in each), strict=True)
        stacked = (np.stack(means, 1), np.stack(zeros, 1), np.stack(levels, 2))
        mean_BM, zero_BM, level_GBM = (torch.from_numpy(array).to(output_BMQ.device) for array in stacked)
        return mean_BM, zero_BM, level_GBM


def _numbers(tensor: Tensor) -> Floats:
    return np.asarray(tensor.cpu().numpy())


def whole_quantiles(cdf: Callable[[Floats], Floats], mean_B: Floats, deviation_B: Floats) -> tuple[Floats, Floats]:
    """P(0) (B,) and the least whole numbers k with cdf(k) >= each of ``LEVELS`` (G, B); ``cdf`` takes (.., B).

    SciPy's own search costs 4 ms a row. Here a geometric grid brackets each level, and halving ends within 1 % of k,
    exactly where k is small.
    """
    top_B = np.ceil(mean_B + 16 * deviation_B + 16)
    grid_KB = np.round(np.expm1(np.linspace(0, 1, QUANTILE_GRID)[:, None] * np.log1p(top_B)))
    below_KB = cdf(grid_KB)
    at_GB = np.stack([(below_KB < level).sum(0) for level in LEVELS]).clip(0, QUANTILE_GRID - 1)
    high_GB = np.take_along_axis(grid_KB, at_GB, 0)
    low_GB = np.where(at_GB > 0, np.take_along_axis(grid_KB, np.maximum(at_GB - 1, 0), 0), -1.0)
    for _ in range(QUANTILE_HALVINGS):
        middle_GB = np.floor((low_GB + high_GB) / 2)
        enough_GB = (cdf(middle_GB) >= LEVELS[:, None]) & (middle_GB > low_GB)
        high_GB = np.where(enough_GB, middle_GB, high_GB)
        low_GB = np.where(enough_GB, low_GB, np.maximum(middle_GB, low_GB))
    return below_KB[0], high_GB


QUANTILE_GRID, QUANTILE_HALVINGS = 64, 4


def _poisson_cdf(mean_B: Floats, k_xB: Floats) -> Floats:
    return np.asarray(np.where(k_xB < 0, 0.0, special.pdtr(np.maximum(k_xB, 0), mean_B)))


def _negative_binomial_cdf(mean_B: Floats, size_B: Floats, k_xB: Floats) -> Floats:
    success_B = size_B / (size_B + mean_B)
    return np.asarray(np.where(k_xB < 0, 0.0, special.betainc(size_B, np.maximum(k_xB, 0) + 1, success_B)))


def level_weight(level_BM: Tensor, loss: str) -> Tensor:
    """Square root of the level: giants count more, and do not decide everything.

    The Poisson loss has the level itself as its weight already, which this turns into the root.
    """
    root_BM = (level_BM + LEVEL_FLOOR).sqrt()
    return 1 / root_BM if loss == "poisson" else root_BM
