"""Plans as features: beside earlier ones and what was achieved, as known at the cutoff; holidays of countries."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from math import log

import numpy as np
import pyarrow as pa
import pytest
import torch

from m2m_model.config import KnownFuture, Task
from m2m_model.data.features import LEVEL_FLOOR, PLAN_FEATURES, fit_inputs
from m2m_model.data.grid import NOTHING, from_grid, to_grid
from m2m_model.data.holidays import holidays_ahead
from m2m_model.data.panel import Panel
from m2m_model.data.spec import Plan, SequenceSpec
from m2m_model.data.statistics import PanelStatistics
from m2m_model.network.plans import plan_features, values_of

DAYS, LAST_DAY = 80, date(2024, 3, 31)
SPEC = SequenceSpec(
    metrics=("clicks", "spend"),
    behaviors=(),
    advertiser_attributes=(),
    scenario_attributes=(),
    tasks=(Task("clicks", "clicks", "sum"),),
    horizons_days=(7,),
    window_days=28,
    known_future=(KnownFuture("budget", "money", of="spend"), KnownFuture("campaigns")),
)
KEYS = pa.table({"advertiser_id": ["a", "b", "c"], "scenario_id": ["s", "s", "s"]})


@pytest.fixture(scope="module")
def made() -> Callable[..., Panel]:
    """Each series spends 8 a day; its budget is 56 for the next week, but where told otherwise."""

    def build(change: Callable[[np.ndarray], None] = lambda future_NTC: None) -> Panel:
        performance_NTP = np.full((3, DAYS, 2), 8.0, np.float32)
        future_NTC = np.full((3, DAYS, 2), 56.0)
        future_NTC[:, :, 1] = np.nan
        change(future_NTC)
        return Panel.of_values(
            SPEC, LAST_DAY, performance_NTP, np.zeros((3, DAYS, 0)), np.zeros(3, np.int32), KEYS, future_NTC
        )

    return build


def features_of(panel: Panel, windows_of: Callable, cutoff: int, scale: Panel | None = None) -> np.ndarray:
    """(N, C, PLAN_FEATURES) as of a day."""
    inputs = fit_inputs(PanelStatistics.of(scale or panel, LAST_DAY), bins=4)
    dense_BD = windows_of(inputs, panel, np.arange(len(panel)), np.full(len(panel), cutoff)).dense_BD
    assert dense_BD.shape[1] == inputs.dense_features
    return dense_BD[:, -2 * PLAN_FEATURES :].view(len(panel), 2, PLAN_FEATURES).numpy()


def test_points_of_the_grid_become_values_and_nothing_is_nan() -> None:
    point = np.append(to_grid(np.array([0.0, 1.0, 3.7, 1e20])), NOTHING).astype(np.int16)
    found = values_of(torch.from_numpy(point)).numpy()
    np.testing.assert_array_equal(found[:4], from_grid(point[:4]))
    assert np.isnan(found[4])


def test_a_plan_is_read_beside_earlier_ones_and_beside_what_was_achieved(made: Callable, windows_of: Callable) -> None:
    def doubled(future_NTC: np.ndarray) -> None:
        future_NTC[1, 60, 0], future_NTC[2, 60, 0] = 112.0, np.nan

    found = features_of(made(doubled), windows_of, 60, scale=made())
    np.testing.assert_allclose(found[0, 0], [0, 0, 0, 0], atol=1e-5)
    step = log(2 + LEVEL_FLOOR) - log(1 + LEVEL_FLOOR)
    np.testing.assert_allclose(found[1, 0], [step, step, 0, 0], atol=1e-5)
    np.testing.assert_allclose(found[2, 0], [0, 0, 1, 0], atol=1e-5)  # no plan: as it always was
    np.testing.assert_allclose(found[:, 1], [[0, 0, 1, 1]] * 3, atol=1e-5)  # never any


def test_features_of_nothing_are_finite() -> None:
    nothing = torch.full((2,), torch.nan)
    for level in (None, torch.zeros(2)):
        assert plan_features(nothing, torch.full((2, 4), torch.nan), level).isfinite().all()


def test_plans_known_later_and_those_of_later_periods_change_nothing(made: Callable, windows_of: Callable) -> None:
    def later(future_NTC: np.ndarray) -> None:
        future_NTC[:, 61:] = 1e9

    def not_over(future_NTC: np.ndarray) -> None:
        future_NTC[:, 54:60] = 1e9  # known before the cutoff, for days that are not all over

    before = features_of(made(), windows_of, 60)
    for change in (later, not_over):
        np.testing.assert_array_equal(features_of(made(change), windows_of, 60, scale=made()), before)


def test_scales_are_learned_up_to_the_end_of_training(made: Callable) -> None:
    def later(future_NTC: np.ndarray) -> None:
        future_NTC[:, 41:] = 1e9

    one, other = (fit_inputs(PanelStatistics.of(panel, date(2024, 2, 21)), 4) for panel in (made(), made(later)))
    assert one.plan_scales == other.plan_scales
    assert one.plan_scales == pytest.approx((56, 1))


def test_a_panel_keeps_its_plans_in_its_file(made: Callable, tmp_path) -> None:
    panel = made()
    opened = Panel.open(panel.save(tmp_path / "panel"))
    assert opened.spec == panel.spec
    np.testing.assert_array_equal(opened.future_XC, panel.future_XC)


def test_a_long_horizon_looks_back_to_a_time_that_is_over() -> None:
    spec = replace(SPEC, horizons_days=(60,))
    assert list(spec.plans[0].past_days) == [60]
    assert spec.lookback_days == 61
    assert list(SPEC.plans[0].past_days) == [7, 14, 21, 28]
    assert list(Plan(KnownFuture("holidays", country="GB"), 7).past_days) == [7]
    assert replace(SPEC, known_future=()).lookback_days == 56


def test_holidays_are_counted_ahead_by_country() -> None:
    pytest.importorskip("holidays", reason="requirements.txt has it")
    keys = pa.table({"country": ["GB", "DE-BY", None, "nowhere"]})
    first, days = date(2023, 12, 18), 20
    of_attribute = Plan(KnownFuture("holidays", country_attribute="country"), 7)
    point_NT = holidays_ahead(of_attribute, keys, first, days)
    christmas = (date(2023, 12, 24) - first).days
    # 25 and 26 December in both; Britain has 1 January within the week of the 25th.
    assert from_grid(point_NT[:2, christmas]).tolist() == [2, 2]
    assert from_grid(point_NT[:2, christmas + 2]).tolist() == [1, 1]
    assert (point_NT[2:] == NOTHING).all()
    everywhere = holidays_ahead(Plan(KnownFuture("holidays", country="GB"), 7), keys, first, days)
    np.testing.assert_array_equal(np.broadcast_to(everywhere, (4, days))[0], point_NT[0])
    with pytest.raises(ValueError, match='country "XX"'):
        holidays_ahead(Plan(KnownFuture("holidays", country="XX"), 7), keys, first, days)
    shorter = holidays_ahead(of_attribute, keys, first + timedelta(days=5), days - 5)
    np.testing.assert_array_equal(shorter, point_NT[:, 5:])  # whatever day a panel begins on
