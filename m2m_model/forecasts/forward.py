"""The network over windows: the one loop that training, prediction and benchmarks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from m2m_model.data.features import Inputs
from m2m_model.data.spec import SequenceSpec
from m2m_model.forecasts.distribution import Distribution
from m2m_model.levels import MEDIAN
from m2m_model.network.model import M2M, Batch

BATCH_SIZE = 1024  # windows the network sees at once; more leave the cache (docs/scoring.md)


def choose_device() -> torch.device:
    """The accelerator of this process when there is one; else the CPU. The only place that decides."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def quick(device: torch.device) -> torch.autocast:
    """The precision of training: bfloat16 in a GPU's products, whose held-out loss is within 0.2 % of
    float32's (docs/gpu.md)."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


@torch.inference_mode()
def network_outputs(
    model: M2M, cut: Callable[[slice], Batch], windows: int, batch_size: int = BATCH_SIZE
) -> Iterator[tuple[slice, Batch, Tensor]]:
    """Batches of so many windows, which ``cut`` cuts: their rows, what the network read, what it said."""
    model.eval()
    for start in range(0, windows, batch_size):
        rows = slice(start, min(start + batch_size, windows))
        batch = cut(rows)
        yield rows, batch, model(batch)


def nothing(spec: SequenceSpec) -> Distribution:
    """What is said of no window."""
    return Distribution.point(np.zeros((0, len(spec.targets))))


def to_distribution(model: M2M, inputs: Inputs, batch: Batch, output_BMQ: Tensor) -> Distribution:
    """In the metrics' own units, on the CPU; the point is the median."""
    laws = model.likelihood.distribution(output_BMQ, batch.level_BM)
    mean_BM, zero_BM, level_GBM = (part.cpu().numpy() for part in laws)
    scale_M = np.asarray(inputs.target_scales)
    level_GBM = level_GBM * scale_M
    return Distribution(level_GBM[MEDIAN], mean_BM * scale_M, zero_BM, level_GBM)
