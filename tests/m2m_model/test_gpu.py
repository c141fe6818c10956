"""On a GPU: the same model, trained, compiled and served there. Where there is none the CPU runs the same lines."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from m2m_model.config import ModelConfig, TrainConfig
from m2m_model.data.features import Inputs, fit_inputs
from m2m_model.data.panel import Panel
from m2m_model.data.spec import KnownFuture
from m2m_model.data.statistics import PanelStatistics
from m2m_model.forecasts import forecaster
from m2m_model.forecasts.forecaster import Forecaster
from m2m_model.network.model import M2M, Learned
from m2m_model.network.windows import Days, Windows
from m2m_model.training.loop import train_rank

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

TRAIN = TrainConfig(epochs=2, min_steps=12, max_windows=1000, batch_size=64, refit=True)


@pytest.fixture(scope="module", params=["one horizon", "two horizons and a plan"])
def panel(request: pytest.FixtureRequest, panel: Panel, values: tuple[np.ndarray, np.ndarray]) -> Panel:
    if request.param == "one horizon":
        return panel
    spec = replace(panel.spec, horizons_days=(1, 7), known_future=(KnownFuture("budget", "money", of="spend"),))
    achieved, acted = values
    budget_NTP = np.repeat(10 * np.nan_to_num(achieved[:, :, 1:2]), len(spec.plans), 2)
    return Panel.of_values(spec, panel.last_day, achieved, acted, panel.registered_N, panel.keys, budget_NTP)


@pytest.fixture(scope="module")
def inputs(panel: Panel, last_day: date) -> Inputs:
    return fit_inputs(PanelStatistics.of(panel, last_day - timedelta(days=30)), bins=8)


def test_trained_on_a_gpu_the_model_forecasts_the_same_on_a_cpu(
    panel: Panel, inputs: Inputs, last_day: date, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = panel.save(tmp_path / "shard")
    held_out_from = last_day - timedelta(days=14)
    result = train_rank([shard], tmp_path / "run", inputs, ModelConfig(width=16), TRAIN, held_out_from)
    assert all(np.isfinite(epoch.train_loss) for epoch in result.epochs)
    on_gpu = Forecaster.load(result.model_folder)
    monkeypatch.setattr(forecaster, "choose_device", lambda: torch.device("cpu"))
    on_cpu = Forecaster.load(result.model_folder)
    devices = [next(each.model.parameters()).device.type for each in (on_gpu, on_cpu)]
    assert devices == [DEVICE.type, "cpu"]
    found, expected = (each.predict(panel, held_out_from).distribution for each in (on_gpu, on_cpu))
    np.testing.assert_allclose(found.mean_NM, expected.mean_NM, rtol=1e-3, atol=1e-4)


def test_the_same_seed_gives_the_same_weights_on_one_gpu(
    panel: Panel, inputs: Inputs, last_day: date, tmp_path: Path
) -> None:
    shard = panel.save(tmp_path / "shard")
    held_out_from = last_day - timedelta(days=14)
    weights = []
    for run in ("one", "two"):
        result = train_rank([shard], tmp_path / run, inputs, ModelConfig(width=16), TRAIN, held_out_from)
        weights.append((result.model_folder / "weights.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_compiled_on_a_gpu_the_loss_and_the_forecasts_are_the_same(
    panel: Panel, inputs: Inputs, last_day: date
) -> None:
    cutoff = panel.days - 20
    days, cut = Days.of(panel, inputs.profile(panel), DEVICE), Windows(inputs, DEVICE)
    series_B = torch.arange(len(panel), device=DEVICE)
    cutoff_B = torch.full_like(series_B, cutoff)
    windows = cut.of(days.runs(series_B, cutoff_B))
    target_BM = days.totals_after(series_B, cutoff_B) / cut.scale_X
    parts = (part.cpu().numpy() for part in (windows.dense_BD, windows.level_BM, target_BM))
    learned = Learned.of(*parts, 8)
    torch.manual_seed(0)
    network = M2M(ModelConfig(width=16, ratio_bins=8), inputs, learned).to(DEVICE).eval()

    def step() -> tuple[Tensor, ...]:
        batch = cut.of(days.runs(series_B, cutoff_B))
        loss = network.loss(batch, days.totals_after(series_B, cutoff_B) / cut.scale_X)
        return loss, *network.likelihood.distribution(network(batch), batch.level_BM)

    results = []
    compiled = torch.compile(step, dynamic=False) if DEVICE.type == "cuda" else step
    for form in (step, compiled):
        loss, *laws = form()
        gradients = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
        results.append([loss, *laws, *(gradient for gradient in gradients if gradient is not None)])
    torch._dynamo.reset()
    assert len(results[0]) == len(results[1])
    for eager, other in zip(*results, strict=True):
        torch.testing.assert_close(other, eager, rtol=1e-3, atol=1e-4)
