from collections.abc import Callable

import numpy as np
import pytest
import torch

from m2m_model.config import ModelConfig
from m2m_model.data.features import Inputs
from m2m_model.data.panel import Panel
from m2m_model.forecasts.forward import network_outputs, nothing
from m2m_model.network.model import M2M, Batch


@pytest.fixture(scope="module")
def model(inputs: Inputs) -> M2M:
    torch.manual_seed(0)
    return M2M(ModelConfig(width=16, experts=2), inputs)


def test_every_window_is_said_once_in_order_and_nothing_learns_from_it(
    model: M2M, inputs: Inputs, panel: Panel, windows_of: Callable[..., Batch]
) -> None:
    series, cutoffs = np.arange(11)[::-1].copy(), np.arange(60, 71)

    def cut(rows: slice) -> Batch:
        return windows_of(inputs, panel, series[rows], cutoffs[rows])

    model.train()
    said = list(network_outputs(model, cut, len(series), batch_size=4))
    assert [(rows.start, len(output_BMQ)) for rows, _, output_BMQ in said] == [(0, 4), (4, 4), (8, 3)]
    assert not model.training
    assert not torch.is_inference_mode_enabled()  # between batches the caller's own mode holds
    assert all(output_BMQ.is_inference() for _, _, output_BMQ in said)
    windows = cut(slice(None))
    level_BM = torch.cat([batch.level_BM for _, batch, _ in said])
    assert torch.equal(level_BM, windows.level_BM)


def test_no_window_is_no_row(model: M2M, inputs: Inputs) -> None:
    def cut(rows: slice) -> Batch:
        raise AssertionError(rows)

    assert list(network_outputs(model, cut, 0)) == []
    assert nothing(inputs.spec).mean_NM.shape == (0, len(inputs.spec.tasks))
