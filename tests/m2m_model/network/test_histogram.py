import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode

from m2m_model.config import Task
from m2m_model.data.features import LEVEL_FLOOR
from m2m_model.data.spec import targets_of
from m2m_model.levels import LEVELS, MEDIAN
from m2m_model.network.histogram import Histogram, histogram_edges

TARGETS = targets_of([Task("spend", "spend", "sum"), Task("active_days", "active", "days")], [7])
SCALES = (20.0, 3.0)


def histogram(ratios: list[float]) -> Histogram:
    edges = histogram_edges([np.array(ratios), np.zeros(0)], 4)
    return Histogram(TARGETS, SCALES, edges)


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


def test_a_ratio_on_an_edge_is_in_the_bin_above_it() -> None:
    edges = histogram_edges([np.array([-2.0, -1.0, 0.0, 1.0, 2.0]), np.array([0.0, 3.0, 5.0])], 4)
    head = Histogram((TARGETS[0], *targets_of([Task("clicks", "clicks", "sum")], [7])), SCALES, edges)
    ratio_BM = torch.cat([head.edge_MK.T, head.edge_MK.T - 0.05, head.edge_MK.T + 0.05])
    level_BM = torch.ones_like(ratio_BM)
    target_BM = torch.exp(ratio_BM) * (1 + LEVEL_FLOOR)
    ratio_BM = torch.log(target_BM) - torch.log(level_BM + LEVEL_FLOOR)
    expected = [
        torch.bucketize(ratio_BM[:, m].clone(), head.edge_MK[m, 1:-1].clone(), right=True) + 1 for m in range(2)
    ]
    assert torch.equal(head.classes(target_BM, level_BM), torch.stack(expected, 1))
    assert head.classes(target_BM, level_BM).unique().tolist() == [1, 2, 3, 4]


class _LookedUp(TorchDispatchMode):
    """The tables that bucketize and searchsorted were given."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[torch.Tensor] = []

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = str(func)
        if "bucketize" in name or "searchsorted" in name:
            self.tables.append(args[1 if "bucketize" in name else 0])
        return func(*args, **(kwargs or {}))


def test_no_table_that_is_looked_up_is_a_part_of_another() -> None:
    """Compiled for a GPU before PyTorch 2.13, a look-up forgets where in its storage a table begins."""
    head = histogram([-2.0, -1.0, 0.0, 1.0, 2.0])
    output_BMQ, level_BM = torch.randn(3, 2, 8), torch.ones(3, 2)
    with _LookedUp() as seen:
        head.loss(output_BMQ, torch.rand(3, 2), level_BM)
        head.distribution(output_BMQ, level_BM)
    assert seen.tables
    assert not [table for table in seen.tables if table.storage_offset()]


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
    head = Histogram(TARGETS, (1.0, 1.0), edges)
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
