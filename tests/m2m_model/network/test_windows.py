"""Windows equal those that plain numpy cuts from the values, on the CPU and, where there is one, on the GPU."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from m2m_model.config import Task
from m2m_model.data.features import Inputs, fit_inputs
from m2m_model.data.grid import NOTHING, from_grid, to_grid
from m2m_model.data.panel import Panel
from m2m_model.data.spec import SequenceSpec
from m2m_model.data.statistics import PanelStatistics
from m2m_model.data.targets import targets_at
from m2m_model.network.model import Batch
from m2m_model.network.windows import Days, Runs, Windows
from tests.m2m_model.network.reference import reference_windows

ON_GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))
DEVICES = ["cpu", ON_GPU]
CODES = ("performance_BLP", "behavior_BLF", "registered_BL", "scenario_B")
CODES += ("scenario_attributes_BS", "advertiser_attributes_BA")


@dataclass(frozen=True)
class Made:
    """A panel, and the values that it was made of."""

    panel: Panel
    performance_NTP: np.ndarray
    behavior_NTF: np.ndarray

    @classmethod
    def of(
        cls, spec: SequenceSpec, last_day: date, performance: np.ndarray, behavior: np.ndarray, *rest: object
    ) -> "Made":
        return cls(Panel.of_values(spec, last_day, performance, behavior, *rest), performance, behavior)  # type: ignore[arg-type]


def random_panel(seed: int, days: int, window_days: int, metrics: int, behaviors: int, series: int = 40) -> Made:
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
        horizons_days=(1 + seed % 9,),
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
    return Made.of(spec, date(2024, 5, 1 + seed), block(metrics), block(behaviors), registered_N, table)


def assert_equal_windows(made: Made, inputs: Inputs, series: np.ndarray, cutoff: np.ndarray, device: str) -> None:
    there = torch.device(device)
    days = Days.of(made.panel, inputs.profile(made.panel), there)
    found = Windows(inputs, there).of(days.runs(torch.tensor(series, device=there), torch.tensor(cutoff, device=there)))
    expected = reference_windows(inputs, *vars(made).values(), series, cutoff)
    assert expected.keys() == vars(found).keys()
    for name, array in expected.items():
        other = getattr(found, name).cpu().numpy()
        if name in CODES:
            np.testing.assert_array_equal(other, array, err_msg=name)
        else:
            np.testing.assert_allclose(other, array, rtol=1e-5, atol=1e-5, err_msg=name)


def test_the_level_of_a_horizon_is_that_of_a_window_which_has_it_alone_and_all_else_is_the_longest_ones() -> None:
    made = random_panel(2, 90, 28, 2, 1)
    series, cutoff = torch.arange(40), torch.full((40,), 70)

    def cut(horizons: tuple[int, ...]) -> Batch:
        panel = replace(made.panel, spec=replace(made.panel.spec, horizons_days=horizons))
        inputs = fit_inputs(PanelStatistics.of(panel, panel.last_day), bins=4)
        days = Days.of(panel, inputs.profile(panel), torch.device("cpu"))
        return Windows(inputs, torch.device("cpu")).of(days.runs(series, cutoff))

    several, alone = cut((3, 7)), {days: cut((days,)) for days in (3, 7)}
    tasks = len(made.panel.spec.tasks)
    levels = several.level_BM.view(40, tasks, 2)
    torch.testing.assert_close(levels[..., 1], alone[7].level_BM)
    # The scale of 3 days is learned of the cutoffs that have a label over 7.
    ratio = levels[..., 0] / alone[3].level_BM.clamp_min(1e-9)
    assert ((ratio - ratio.median(0).values).abs() < 1e-4)[alone[3].level_BM > 0].all()
    torch.testing.assert_close(several.dense_BD, alone[7].dense_BD)


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
def test_windows_are_those_that_numpy_cuts_from_the_values(
    seed: int, days: int, window_days: int, metrics: int, behaviors: int, device: str
) -> None:
    made = random_panel(seed, days, window_days, metrics, behaviors)
    inputs = fit_inputs(PanelStatistics.of(made.panel, made.panel.last_day), bins=4 + 8 * seed)
    inputs = replace(inputs, target_scales=tuple(1.5 + m for m in range(len(made.panel.spec.tasks))))
    random = np.random.default_rng(seed)
    edge = np.array([0, 0, days - 1, days - 1, days // 2])
    series = np.concatenate([np.array([0, 1, 2, 39, 5]), random.integers(0, len(made.panel), 300)])
    cutoff = np.concatenate([edge, random.integers(0, days, 300)])
    assert_equal_windows(made, inputs, series, cutoff, device)


@pytest.mark.parametrize("device", DEVICES)
def test_targets_are_those_of_evaluation(panel: Panel, inputs: Inputs, device: str) -> None:
    series, cutoff = np.arange(len(panel)), np.arange(len(panel)) + 50
    days = Days.of(panel, inputs.profile(panel), torch.device(device))
    found = days.totals_after(torch.tensor(series, device=device), torch.tensor(cutoff, device=device)).cpu()
    np.testing.assert_allclose(found, targets_at(panel, series, cutoff), rtol=1e-5)


def test_a_saved_panel_cuts_the_same_and_stays_in_its_files(tmp_path: Path) -> None:
    made = random_panel(0, 120, 56, 3, 2)
    inputs = fit_inputs(PanelStatistics.of(made.panel, made.panel.last_day))
    opened = Panel.open(made.panel.save(tmp_path / "panel"))
    assert_equal_windows(replace(made, panel=opened), inputs, np.arange(40), np.arange(40) + 60, "cpu")
    days = Days.of(opened, inputs.profile(opened), torch.device("cpu"))
    assert days.performance_XP.data_ptr() == opened.performance_XP.ctypes.data


def test_runs_of_two_panels_make_one_batch(panel: Panel, inputs: Inputs) -> None:
    cpu = torch.device("cpu")
    days, cut = Days.of(panel, inputs.profile(panel), cpu), Windows(inputs, cpu)
    series, cutoff = torch.arange(20), torch.arange(20) + 40
    parts = [days.runs(series[rows], cutoff[rows]) for rows in (slice(7), slice(7, 20))]
    one, other = cut.of(Runs.concatenate(parts)), cut.of(days.runs(series, cutoff))
    for name, tensor in vars(one).items():
        assert torch.equal(tensor, getattr(other, name)), name


@pytest.fixture
def made(spec: SequenceSpec) -> Callable[[Callable[[np.ndarray], None]], Made]:
    """The spec's data with its values changed."""

    def build(change: Callable[[np.ndarray], None]) -> Made:
        random = np.random.default_rng(5)
        performance = random.lognormal(1, 1, (60, 120, 2)).astype(np.float32)
        performance[random.random(performance.shape[:2]) < 0.4] = np.nan
        change(performance)
        names = ["advertiser_id", "scenario_id", *spec.advertiser_attributes, *spec.scenario_attributes]
        keys = pa.table({name: [f"{name}-{row % 7}" for row in range(60)] for name in names})
        behavior = np.full((60, 120, 1), np.nan, np.float32)
        return Made.of(spec, date(2024, 5, 1), performance, behavior, np.full(60, -100, np.int32), keys)

    return build


def test_a_value_on_an_edge_begins_its_bin(made: Callable[..., Made], inputs: Inputs) -> None:
    powers = np.float32(2.0) ** np.arange(-8, 24, dtype=np.float32)
    near = np.concatenate([powers, np.nextafter(powers, np.float32(0)), np.nextafter(powers, np.float32(np.inf))])
    edges = tuple(powers.tolist())
    inputs = replace(inputs, metric_edges=(edges, edges[:1]), behavior_edges=((),))

    def change(values: np.ndarray) -> None:
        values[0, : len(near), 0] = near

    assert_equal_windows(made(change), inputs, np.zeros(4, np.int64), np.array([27, 55, 83, 100]), "cpu")


def test_a_large_day_does_not_swallow_the_small_ones_after_it(made: Callable[..., Made], inputs: Inputs) -> None:
    def change(values: np.ndarray) -> None:
        values[:, 0] = 1e30

    assert_equal_windows(made(change), inputs, np.arange(60), np.full(60, 100), "cpu")


def test_the_grid_keeps_order_and_every_edge() -> None:
    points = np.arange(1, NOTHING)
    values = from_grid(points)
    kept = values <= 1e30
    np.testing.assert_array_equal(to_grid(values[kept]), points[kept])
    below = np.nextafter(values[kept], np.float32(0))
    np.testing.assert_array_equal(to_grid(below), points[kept] - 1)
    odd = np.array([0.0, -0.0, -3.0, np.nan, np.inf, -np.inf, 1e300, 1e-300])
    largest = int(to_grid(np.array([1e30]))[0])
    assert to_grid(odd).tolist() == [0, 0, 0, NOTHING, largest, 0, largest, 0]


def test_more_codes_than_a_byte_holds_are_refused(inputs: Inputs) -> None:
    many = replace(inputs, metric_edges=(tuple(float(k) for k in range(253)), ()))
    with pytest.raises(ValueError, match=r"257 codes a metric.*lower bins"):
        Windows(many, torch.device("cpu"))
