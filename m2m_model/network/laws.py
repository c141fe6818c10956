"""What the network's output means: the loss on it and the distribution behind it. Apart from the network.

Totals and levels are in units of the task's scale, so that no task's unit dominates the sum. B rows, M tasks, Q
outputs of a task, C classes, G levels of ``LEVELS``, K bin edges.

``histogram`` is the default; ``negative_binomial`` and ``lognormal`` are the usual parametric choices, ``poisson`` is
the paper's. A ``days`` task has a finite support: classes 0..h under ``histogram``, a beta-binomial under the
parametric ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor, nn
from torch.nn import functional

from m2m_model.arrays import Floats
from m2m_model.config import Task
from m2m_model.data.features import LEVEL_FLOOR
from m2m_model.levels import LEVELS

_LOG_LIMIT = 30.0  # exp(30) is beyond any total; keeps a wild extrapolation finite
_IMPOSSIBLE = -1e9  # logit of a class that a task does not have
_SMALL = 1e-6


class Histogram(nn.Module):
    """Classes of a task: zero, then ``bins`` of log(total / recent level) whose edges are learned; 0..h for ``days``.

    The network says how likely the series repeats, doubles or ends, whatever its size. Within a bin the density of the
    logarithm is flat. ``edge_MK`` are bins + 1 edges, the outermost ones included.
    """

    def __init__(self, tasks: Sequence[Task], horizon_days: int, scales: Sequence[float], edge_MK: Floats) -> None:
        super().__init__()
        self.days = [task.aggregate == "days" for task in tasks]
        self.horizon_days, self.scales = horizon_days, list(scales)
        bins = edge_MK.shape[1] - 1
        self.outputs = max([1 + bins] * (not all(self.days)) + [1 + horizon_days] * any(self.days))
        self.register_buffer("edge_MK", torch.as_tensor(edge_MK, dtype=torch.float32))
        possible_M1 = torch.tensor([1 + (horizon_days if days else bins) for days in self.days]).unsqueeze(1)
        mask_MC = torch.where(torch.arange(self.outputs) < possible_M1, 0.0, _IMPOSSIBLE)
        self.register_buffer("mask_MC", mask_MC, persistent=False)
        self.register_buffer("level_G", torch.as_tensor(LEVELS), persistent=False)
        self.edge_MK: Tensor
        self.level_G: Tensor
        self.mask_MC: Tensor

    def classes(self, target_BM: Tensor, level_BM: Tensor) -> Tensor:
        """The class of each total, int64."""
        columns = []
        for m, days in enumerate(self.days):
            target_B = target_BM[:, m]
            if days:
                columns.append((target_B * self.scales[m]).round().long().clamp(0, self.horizon_days))
            else:
                ratio_B = torch.log(target_B.clamp_min(1e-30)) - torch.log(level_BM[:, m] + LEVEL_FLOOR)
                bin_B = torch.bucketize(ratio_B, self.edge_MK[m, 1:-1].contiguous(), right=True)
                columns.append(torch.where(target_B > 0, 1 + bin_B, 0))
        return torch.stack(columns, 1)

    def loss(self, output_BMQ: Tensor, target_BM: Tensor, level_BM: Tensor) -> Tensor:
        """Cross entropy (B, M)."""
        log_p_BMC = (output_BMQ + self.mask_MC).log_softmax(-1)
        return -log_p_BMC.gather(-1, self.classes(target_BM, level_BM).unsqueeze(-1)).squeeze(-1)

    def distribution(self, output_BMQ: Tensor, level_BM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (B, M), zero mass (B, M) and quantiles (G, B, M)."""
        p_BMC = (output_BMQ.double() + self.mask_MC).softmax(-1)
        cdf_BMC = p_BMC.cumsum(-1)
        level_G = self.level_G
        wanted_BMG = level_G.expand(*cdf_BMC.shape[:2], -1).contiguous()
        class_BMG = torch.searchsorted(cdf_BMC, wanted_BMG - 1e-9).clamp_max(self.outputs - 1)
        means, levels = [], []
        for m, days in enumerate(self.days):
            class_BG = class_BMG[:, m]
            if days:
                value_C = torch.arange(self.outputs, device=p_BMC.device, dtype=torch.float64) / self.scales[m]
                levels.append(value_C[class_BG])
                means.append((p_BMC[:, m] * value_C).sum(-1))
                continue
            edge_K = self.edge_MK[m].double()
            bins = len(edge_K) - 1
            level_B1 = (level_BM[:, m : m + 1] + LEVEL_FLOOR).double()
            low_BG = edge_K[(class_BG - 1).clamp(0, bins - 1)]
            high_BG = edge_K[class_BG.clamp(1, bins)]
            mass_BG = p_BMC[:, m].gather(1, class_BG)
            below_BG = cdf_BMC[:, m].gather(1, class_BG) - mass_BG
            share_BG = ((level_G - below_BG) / mass_BG.clamp_min(1e-12)).clamp(0, 1)
            value_BG = torch.exp(low_BG + share_BG * (high_BG - low_BG)) * level_B1
            levels.append(torch.where(class_BG == 0, 0.0, value_BG))
            width_K = edge_K.diff()
            # The mean of a log-uniform density between two edges.
            middle_K = torch.where(
                width_K > _SMALL, torch.exp(edge_K).diff() / width_K.clamp_min(_SMALL), edge_K[:-1].exp()
            )
            means.append((p_BMC[:, m, 1 : 1 + bins] * middle_K).sum(-1) * level_B1[:, 0])
        return torch.stack(means, 1), p_BMC[..., 0], torch.stack(levels).permute(2, 1, 0)


class Parametric(nn.Module):
    """Distributions with closed forms; quantiles are scipy's.

    ``poisson``: lambda. ``negative_binomial``: mean and dispersion, of the total in its own units. ``lognormal``: zero
    mass, location and width of the logarithm. The parametric two give a ``days`` task a beta-binomial.
    """

    def __init__(
        self, name: str, tasks: Sequence[Task], horizon_days: int, scales: Sequence[float], exposure_offset: bool
    ) -> None:
        super().__init__()
        self.names = ["beta_binomial" if name != "poisson" and t.aggregate == "days" else name for t in tasks]
        self.horizon_days, self.scales, self.exposure_offset = horizon_days, list(scales), exposure_offset
        self.outputs = 1 if name == "poisson" else 3 if name == "lognormal" else 2

    def location(self, output_BM: Tensor, level_BM: Tensor) -> Tensor:
        """log of the expected total; with ``exposure_offset`` relative to the recent level."""
        if self.exposure_offset:
            output_BM = output_BM + torch.log(level_BM + LEVEL_FLOOR)
        return output_BM.clamp(-_LOG_LIMIT, _LOG_LIMIT)

    def loss(self, output_BMQ: Tensor, target_BM: Tensor, level_BM: Tensor) -> Tensor:
        """Negative log likelihood (B, M); constants of the data are left out."""
        columns = []
        for m, name in enumerate(self.names):
            out_BQ, target_B, scale = output_BMQ[:, m], target_BM[:, m], self.scales[m]
            log_mean_B = self.location(out_BQ[:, 0], level_BM[:, m])
            if name == "poisson":
                columns.append(poisson_nll(log_mean_B, target_B))
            elif name == "negative_binomial":
                columns.append(negative_binomial_nll(log_mean_B.exp() * scale, out_BQ[:, 1], target_B * scale))
            elif name == "lognormal":
                columns.append(zero_inflated_lognormal_nll(log_mean_B, out_BQ[:, 1], out_BQ[:, 2], target_B))
            else:
                days_B = (target_B * scale).round().clamp(0, self.horizon_days)
                columns.append(beta_binomial_nll(out_BQ[:, 0], out_BQ[:, 1], days_B, self.horizon_days))
        return torch.stack(columns, 1)

    def distribution(self, output_BMQ: Tensor, level_BM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (B, M), zero mass (B, M) and quantiles (G, B, M)."""
        means, zeros, levels = [], [], []
        level_G1 = LEVELS[:, None]
        for m, name in enumerate(self.names):
            out_BQ, scale = output_BMQ[:, m].double(), self.scales[m]
            mean_B = self.location(out_BQ[:, 0], level_BM[:, m].double()).exp().cpu().numpy()
            extra_BQ = out_BQ.cpu().numpy()
            if name == "lognormal":
                zero_B, width_B = 1 / (1 + np.exp(-extra_BQ[:, 1])), _width(out_BQ[:, 2]).cpu().numpy()
                inner_GB = np.clip((level_G1 - zero_B) / np.maximum(1 - zero_B, 1e-12), 0, 1 - 1e-12)
                value_GB = np.where(inner_GB > 0, mean_B * np.exp(width_B * stats.norm.ppf(inner_GB)), 0.0)
                mean_B = (1 - zero_B) * mean_B * np.exp(np.minimum(width_B**2 / 2, _LOG_LIMIT))
            else:
                if name == "poisson":
                    deviation_B = np.sqrt(mean_B * scale)
                    zero_B, value_GB = whole_quantiles(
                        partial(_poisson_cdf, mean_B * scale), mean_B * scale, deviation_B
                    )
                elif name == "negative_binomial":
                    size_B, total_B = _size(out_BQ[:, 1]).cpu().numpy(), mean_B * scale
                    deviation_B = np.sqrt(total_B + total_B**2 / size_B)
                    cdf = partial(_negative_binomial_cdf, total_B, size_B)
                    zero_B, value_GB = whole_quantiles(cdf, total_B, deviation_B)
                else:
                    alpha_B, beta_B = (t.cpu().numpy() for t in _beta(out_BQ[:, 0], out_BQ[:, 1]))
                    day_K1 = np.arange(self.horizon_days + 1)[:, None]
                    cdf_KB = stats.betabinom(self.horizon_days, alpha_B, beta_B).pmf(day_K1).cumsum(0)
                    mean_B = self.horizon_days * alpha_B / (alpha_B + beta_B) / scale
                    zero_B = cdf_KB[0]
                    value_GB = np.minimum((cdf_KB < level_G1[:, None] - 1e-12).sum(1), self.horizon_days).astype(float)
                value_GB = value_GB / scale
            means.append(mean_B)
            zeros.append(zero_B)
            levels.append(value_GB)
        stacked = (np.stack(means, 1), np.stack(zeros, 1), np.stack(levels, 2))
        mean_BM, zero_BM, level_GBM = (torch.from_numpy(array).to(output_BMQ.device) for array in stacked)
        return mean_BM, zero_BM, level_GBM


Likelihood = Histogram | Parametric


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


def poisson_nll(log_rate_B: Tensor, target_B: Tensor) -> Tensor:
    """lambda - y log lambda (paper, "Loss")."""
    return torch.exp(log_rate_B) - target_B * log_rate_B


def negative_binomial_nll(mean_B: Tensor, raw_size_B: Tensor, target_B: Tensor) -> Tensor:
    """NB2: variance mean + mean^2 / size; totals need not be whole."""
    size_B = _size(raw_size_B)
    log_total_B = torch.log(size_B + mean_B)
    chosen_B = torch.lgamma(target_B + size_B) - torch.lgamma(size_B) - torch.lgamma(target_B + 1)
    return -(
        chosen_B + size_B * (size_B.log() - log_total_B) + target_B * (mean_B.clamp_min(1e-12).log() - log_total_B)
    )


def zero_inflated_lognormal_nll(
    location_B: Tensor, zero_logit_B: Tensor, raw_width_B: Tensor, target_B: Tensor
) -> Tensor:
    """A mass at zero, and a lognormal above it with median exp(location)."""
    width_B = _width(raw_width_B)
    log_target_B = target_B.clamp_min(1e-30).log()
    gap_B = (log_target_B - location_B) / width_B
    positive_B = 0.5 * gap_B**2 + width_B.log() + 0.5 * float(np.log(2 * np.pi)) + log_target_B
    return torch.where(target_B > 0, positive_B + functional.softplus(zero_logit_B), functional.softplus(-zero_logit_B))


def beta_binomial_nll(mean_logit_B: Tensor, raw_size_B: Tensor, days_B: Tensor, horizon_days: int) -> Tensor:
    """Days active out of ``horizon_days``, with a beta-distributed daily probability."""
    alpha_B, beta_B = _beta(mean_logit_B, raw_size_B)
    n = torch.tensor(float(horizon_days), dtype=days_B.dtype, device=days_B.device)

    def log_beta(a: Tensor, b: Tensor) -> Tensor:
        return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)

    chosen_B = torch.lgamma(n + 1) - torch.lgamma(days_B + 1) - torch.lgamma(n - days_B + 1)
    return -(chosen_B + log_beta(days_B + alpha_B, n - days_B + beta_B) - log_beta(alpha_B, beta_B))


def level_weight(level_BM: Tensor, loss: str) -> Tensor:
    """Square root of the level: giants count more, and do not decide everything.

    The Poisson loss has the level itself as its weight already, which this turns into the root.
    """
    root_BM = (level_BM + LEVEL_FLOOR).sqrt()
    return 1 / root_BM if loss == "poisson" else root_BM


def histogram_edges(ratios: Sequence[Floats], bins: int) -> Floats:
    """(M, bins + 1) edges at the quantiles of each task's log ratios, the outermost at 0.1 and 99.9 %."""
    rows = []
    for ratio_X in ratios:
        if len(ratio_X) == 0:
            rows.append(np.linspace(-1.0, 1.0, bins + 1))
            continue
        level = np.concatenate([[0.001], np.arange(1, bins) / bins, [0.999]])
        # Whole-number totals of small series repeat: equal edges would make bins that nothing can fall into.
        rows.append(np.maximum.accumulate(np.quantile(ratio_X, level) + 1e-4 * np.arange(bins + 1)))
    return np.stack(rows).astype(np.float32)


def _size(raw_B: Tensor) -> Tensor:
    return functional.softplus(raw_B) + 1e-3


def _width(raw_B: Tensor) -> Tensor:
    return functional.softplus(raw_B + 0.5) + 1e-2


def _beta(mean_logit_B: Tensor, raw_size_B: Tensor) -> tuple[Tensor, Tensor]:
    size_B = functional.softplus(raw_size_B + 1.0) + 1e-2
    mean_B = torch.sigmoid(mean_logit_B).clamp(1e-4, 1 - 1e-4)
    return mean_B * size_B, (1 - mean_B) * size_B
