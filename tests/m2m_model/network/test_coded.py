"""A coded panel cuts the windows that numpy cuts, on the CPU and, where there is one, on the GPU."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from m2m_model.config import Task
from m2m_model.data.features import Inputs, fit_inputs
from m2m_model.data.panel import Panel
from m2m_model.data.spec import SequenceSpec
from m2m_model.data.statistics import PanelStatistics
from m2m_model.data.targets import targets_at
from m2m_model.network.coded import CodedPanel
from m2m_model.network.model import Batch

ON_GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))
DEVICES = ["cpu", ON_GPU]
CODES = ("performance_BLP", "behavior_BLF", "registered_BL", "scenario_B")
CODES += ("scenario_attributes_BS", "advertiser_attributes_BA")


def random_panel(seed: int, days: int, window_days: int, metrics: int, behaviors: int, series: int = 40) -> Panel:
    """Gaps, zeros, negative and large values, whole numbers, late registrations, values before them."""
    random = np.random.default_rng(seed)
    names = tuple(f"metric_{k}" for k in range(metrics))
    tasks = (Task("total", names[-1], "sum"), Task("days", names[0], "days"), Task("active", "active", "days"))
    spec = SequenceSpec(
        metrics=names,
        behaviors=tuple(f"behavior_{k}" for k in range(behaviors)),
        advertiser_attributes=("industry",),
        scenario_attributes=(),
        tasks=tasks[: 1 + seed % 3],
        horizon_days=1 + seed % 9,
        window_days=window_days,
        eligible_days=28,
    )

    def block(columns: int) -> np.ndarray:
        value_NTC = random.lognormal(1, 2, (series, days, columns))
        value_NTC[::2] = np.round(value_NTC[::2])
        kind_NTC = random.choice(5, value_NTC.shape, p=[0.3, 0.55, 0.13, 0.01, 0.01])
        choices = [value_NTC, np.full_like(value_NTC, np.nan), 0 * value_NTC, -value_NTC, 1e6 + 0 * value_NTC]
        return np.choose(kind_NTC, choices).astype(np.float32)

    keys = {"advertiser_id": 1 + series // 3, "scenario_id": 3, "industry": 4}
    table = pa.table({name: [f"{name}-{row % size}" for row in range(series)] for name, size in keys.items()})
    registered_N = random.integers(-100, days + 5, series).astype(np.int32)
    return Panel(spec, date(2024, 5, 1 + seed), block(metrics), block(behaviors), registered_N, table)


def assert_equal_windows(panel: Panel, inputs: Inputs, series: np.ndarray, cutoff: np.ndarray, device: str) -> None:
    coded = CodedPanel.of(panel, inputs, torch.device(device))
    found = coded.windows(torch.tensor(series, device=device), torch.tensor(cutoff, device=device))
    expected = Batch.of(inputs.windows(panel, inputs.profile(panel), series, cutoff), torch.device("cpu"))
    for name, tensor in vars(expected).items():
        other = getattr(found, name).cpu()
        if name in CODES:
            assert torch.equal(other.to(tensor.dtype), tensor), name
        else:
            torch.testing.assert_close(
                other, tensor, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("seed", "days", "window_days", "metrics", "behaviors"),
    [
        (0, 120, 56, 3, 2),
        (1, 90, 28, 1, 0),
        (2, 20, 28, 2, 1),
        (3, 150, 70, 4, 6),
        (4, 200, 7, 2, 1),
        (5, 57, 56, 1, 1),
    ],
)
def test_a_coded_panel_cuts_the_windows_that_numpy_cuts(
    seed: int, days: int, window_days: int, metrics: int, behaviors: int, device: str
) -> None:
    panel = random_panel(seed, days, window_days, metrics, behaviors)
    inputs = fit_inputs(PanelStatistics.of(panel, panel.last_day), bins=4 + 8 * seed)
    inputs = replace(inputs, task_scales=tuple(1.5 + m for m in range(len(panel.spec.tasks))))
    random = np.random.default_rng(seed)
    edge = np.array([0, 0, days - 1, days - 1, days // 2])
    series = np.concatenate([np.array([0, 1, 2, 39, 5]), random.integers(0, len(panel), 300)])
    cutoff = np.concatenate([edge, random.integers(0, days, 300)])
    assert_equal_windows(panel, inputs, series, cutoff, device)


@pytest.mark.parametrize("device", DEVICES)
def test_targets_are_those_of_training(panel: Panel, inputs: Inputs, device: str) -> None:
    series, cutoff = np.arange(len(panel)), np.arange(len(panel)) + 50
    coded = CodedPanel.of(panel, inputs, torch.device(device))
    found = coded.targets(torch.tensor(series, device=device), torch.tensor(cutoff, device=device)).cpu()
    expected = targets_at(panel, series, cutoff) / np.asarray(inputs.task_scales)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_saved_panel_is_coded_block_by_block(
    panel: Panel, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2m_model.network.coded.BLOCK", {"cpu": 7})
    opened = Panel.open(panel.save(tmp_path / "panel"))
    assert_equal_windows(opened, inputs, np.arange(60), np.arange(60) + 60, "cpu")


def test_a_value_on_an_edge_has_numpys_code(panel: Panel, inputs: Inputs) -> None:
    """Edges are powers of a 16th of a doubling; whole numbers lie on them, and one rounding of log1p moves the code."""
    powers = np.float32(2.0) ** np.arange(-8, 24, dtype=np.float32)
    edges = tuple(np.log1p(powers.astype(np.float64)).tolist())
    inputs = replace(inputs, metric_edges=(edges, edges[:1]), behavior_edges=((),))
    near = np.concatenate([powers, np.nextafter(powers, 0), np.nextafter(powers, np.inf)])
    values = panel.performance_NTP.copy()
    values[0, : len(near), 0] = near
    series, cutoff = np.zeros(4, np.int64), np.array([27, 55, 83, 100])
    assert_equal_windows(replace(panel, performance_NTP=values), inputs, series, cutoff, "cpu")


def test_a_large_day_does_not_swallow_the_small_ones_after_it(panel: Panel, inputs: Inputs) -> None:
    values = panel.performance_NTP.copy()
    values[:, 0] = 1e30
    changed = replace(panel, performance_NTP=values)
    assert_equal_windows(changed, inputs, np.arange(60), np.full(60, 100), "cpu")


def test_more_codes_than_a_byte_holds_are_refused(panel: Panel, inputs: Inputs) -> None:
    many = replace(inputs, metric_edges=(tuple(float(k) for k in range(253)), ()))
    with pytest.raises(ValueError, match=r"257 codes a metric.*lower bins"):
        CodedPanel.of(panel, many, torch.device("cpu"))
