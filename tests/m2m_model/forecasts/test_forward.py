import numpy as np
import pytest
import torch

from m2m_model.config import ModelConfig
from m2m_model.data.features import Inputs
from m2m_model.data.panel import Panel
from m2m_model.forecasts.forward import network_distribution, network_outputs
from m2m_model.network.model import M2M


@pytest.fixture(scope="module")
def model(inputs: Inputs) -> M2M:
    torch.manual_seed(0)
    return M2M(ModelConfig(width=16, experts=2), inputs)


def test_every_window_is_said_once_in_order_and_nothing_learns_from_it(
    model: M2M, inputs: Inputs, panel: Panel
) -> None:
    series, cutoffs, profile = np.arange(11)[::-1].copy(), np.arange(60, 71), inputs.profile(panel)
    model.train()
    said = list(network_outputs(model, inputs, panel, profile, series, cutoffs, torch.device("cpu"), batch_size=4))
    assert [(rows.start, len(output_BMQ)) for rows, _, output_BMQ in said] == [(0, 4), (4, 4), (8, 3)]
    assert not model.training
    assert not torch.is_inference_mode_enabled()  # between batches the caller's own mode holds
    assert all(output_BMQ.is_inference() for _, _, output_BMQ in said)
    windows = inputs.windows(panel, profile, series, cutoffs)
    level_BM = torch.cat([batch.level_BM for _, batch, _ in said])
    np.testing.assert_array_equal(level_BM.numpy(), windows.level_BM)


def test_no_window_is_no_row(model: M2M, inputs: Inputs, panel: Panel) -> None:
    nobody = np.zeros(0, np.int64)
    outputs = network_outputs(model, inputs, panel, inputs.profile(panel), nobody, nobody, torch.device("cpu"))
    found = network_distribution(model, inputs, outputs)
    assert found.mean_NM.shape == (0, len(inputs.spec.tasks))
