"""The default law: how likely the series repeats, doubles or ends, whatever its size.

Totals and levels are in units of the target's scale. B rows, M targets (a task over a horizon), Q outputs of a target,
C classes, G levels of ``LEVELS``, K bin edges.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from m2m_model.arrays import Floats
from m2m_model.data.features import LEVEL_FLOOR
from m2m_model.data.spec import Target
from m2m_model.levels import LEVELS

_IMPOSSIBLE = -1e9  # logit of a class that a target does not have
_SMALL = 1e-6


class Histogram(nn.Module):
    """Classes of a target: zero, then ``bins`` of log(total / recent level) whose edges are learned; 0..h for ``days``.

    Within a bin the density of the logarithm is flat. ``edge_MK`` are bins + 1 edges, the outermost ones included.
    """

    def __init__(self, targets: Sequence[Target], scales: Sequence[float], edge_MK: Floats) -> None:
        super().__init__()
        self.most_days = [target.horizon_days if target.aggregate == "days" else 0 for target in targets]  # 0: a sum
        self.scales = list(scales)
        bins = edge_MK.shape[1] - 1
        classes = [1 + (most or bins) for most in self.most_days]
        self.outputs = max(classes)
        self.register_buffer("edge_MK", torch.as_tensor(edge_MK, dtype=torch.float32))
        possible_M1 = torch.tensor(classes).unsqueeze(1)
        mask_MC = torch.where(torch.arange(self.outputs) < possible_M1, 0.0, _IMPOSSIBLE)
        self.register_buffer("mask_MC", mask_MC, persistent=False)
        self.register_buffer("level_G", torch.as_tensor(LEVELS), persistent=False)
        self.edge_MK: Tensor
        self.level_G: Tensor
        self.mask_MC: Tensor

    def classes(self, target_BM: Tensor, level_BM: Tensor) -> Tensor:
        """The class of each total, int64."""
        columns = []
        for m, most in enumerate(self.most_days):
            target_B = target_BM[:, m]
            if most:
                columns.append((target_B * self.scales[m]).round().long().clamp(0, most))
            else:
                ratio_B = torch.log(target_B.clamp_min(1e-30)) - torch.log(level_BM[:, m] + LEVEL_FLOOR)
                # No bucketize: compiled for a GPU it forgot where a slice of edges begins (pytorch#160964, until 2.13).
                bin_B = (ratio_B.unsqueeze(1) >= self.edge_MK[m, 1:-1]).sum(1)
                columns.append(torch.where(target_B > 0, 1 + bin_B, 0))
        return torch.stack(columns, 1)

    def loss(self, output_BMQ: Tensor, target_BM: Tensor, level_BM: Tensor) -> Tensor:
        """Cross entropy (B, M)."""
        log_p_BMC = (output_BMQ + self.mask_MC).log_softmax(-1)
        return -log_p_BMC.gather(-1, self.classes(target_BM, level_BM).unsqueeze(-1)).squeeze(-1)

    def distribution(self, output_BMQ: Tensor, level_BM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (B, M), zero mass (B, M) and quantiles (G, B, M)."""
        p_BMC = (output_BMQ.double() + self.mask_MC).softmax(-1)
        cdf_BMC = _cumulative(p_BMC)
        level_G = self.level_G
        wanted_BMG = level_G.expand(*cdf_BMC.shape[:2], -1).contiguous()
        class_BMG = torch.searchsorted(cdf_BMC, wanted_BMG - 1e-9).clamp_max(self.outputs - 1)
        means, levels = [], []
        for m, most in enumerate(self.most_days):
            class_BG = class_BMG[:, m]
            if most:
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


def _cumulative(p_BMC: Tensor) -> Tensor:
    """Sums over the classes. A GPU scans across rows far faster than along them."""
    if p_BMC.is_cuda and not torch.compiler.is_compiling():
        return p_BMC.permute(2, 0, 1).contiguous().cumsum(0).permute(1, 2, 0).contiguous()
    return p_BMC.cumsum(-1)


def histogram_edges(ratios: Sequence[Floats], bins: int) -> Floats:
    """(M, bins + 1) edges at the quantiles of each target's log ratios, the outermost at 0.1 and 99.9 %."""
    rows = []
    for ratio_X in ratios:
        if len(ratio_X) == 0:
            rows.append(np.linspace(-1.0, 1.0, bins + 1))
            continue
        level = np.concatenate([[0.001], np.arange(1, bins) / bins, [0.999]])
        # Whole-number totals of small series repeat: equal edges would make bins that nothing can fall into.
        rows.append(np.maximum.accumulate(np.quantile(ratio_X, level) + 1e-4 * np.arange(bins + 1)))
    return np.stack(rows).astype(np.float32)
