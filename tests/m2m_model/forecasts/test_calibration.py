import json

import numpy as np
import pytest
from scipy import stats

from m2m_model.config import Task
from m2m_model.data.activity import EDGES, GROUPS, YOUNG
from m2m_model.data.spec import targets_of
from m2m_model.forecasts.calibration import LevelCalibration, ResidualQuantiles, Table
from m2m_model.forecasts.cells import GROUP_ROWS
from m2m_model.forecasts.distribution import Distribution
from m2m_model.forecasts.metrics import share_between
from m2m_model.levels import LEVELS, MEDIAN

TARGETS = targets_of([Task("spend", "spend", "sum"), Task("active_days", "active", "days")], [7])
CLICKS = targets_of([Task("clicks", "clicks", "sum")], [7])


def one_group(rows: int, tasks: int = 2) -> np.ndarray:
    return np.full((rows, tasks), 2)


def simulate(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Forecasts that are right on average, and actuals spread around them; days 0..7. All equally active."""
    rng = np.random.default_rng(seed)
    forecast_NM = np.stack([np.exp(rng.normal(2, 1.5, rows)), rng.uniform(0, 7, rows)], 1)
    spend_N = forecast_NM[:, 0] * rng.gamma(1.5, 1 / 1.5, rows)
    actual_NM = np.stack([spend_N, rng.binomial(7, forecast_NM[:, 1] / 7)], 1)
    scenario_N = np.where(rng.random(rows) < 0.7, "a", "b").astype(object)
    return forecast_NM, actual_NM.astype(float), scenario_N, one_group(rows)


def test_coverage_on_rows_that_were_not_fitted() -> None:
    calibration = ResidualQuantiles.fit(*simulate(6000, 1), TARGETS)
    forecast_NM, actual_NM, scenario_N, group_NM = simulate(6000, 2)
    spread = calibration.apply(forecast_NM, scenario_N, group_NM)
    inside_90 = ((spread.p05_NM <= actual_NM) & (actual_NM <= spread.p95_NM)).mean(0)
    inside_50 = ((spread.p25_NM <= actual_NM) & (actual_NM <= spread.p75_NM)).mean(0)
    assert inside_90[0] == pytest.approx(0.90, abs=0.03)
    assert inside_50[0] == pytest.approx(0.50, abs=0.05)
    assert 0.88 <= inside_90[1] <= 1.0  # whole days cover at least what is asked
    np.testing.assert_allclose(spread.mean_NM.mean(0), actual_NM.mean(0), rtol=0.1)


def test_the_median_beats_the_mean_on_absolute_error() -> None:
    calibration = ResidualQuantiles.fit(*simulate(6000, 1), TARGETS)
    forecast_NM, actual_NM, scenario_N, group_NM = simulate(6000, 2)
    median_NM = calibration.apply(forecast_NM, scenario_N, group_NM).median_NM
    assert np.abs(actual_NM - median_NM)[:, 0].mean() < np.abs(actual_NM - forecast_NM)[:, 0].mean()


def test_never_crossing_never_negative_days_within_the_horizon() -> None:
    calibration = ResidualQuantiles.fit(*simulate(800, 1), TARGETS)
    wild = np.array([[0.0, 0.0], [1e9, 9.0], [-3.0, -1.0], [1e-9, 6.9]])
    spread = calibration.apply(wild, np.array(["a", "b", "new", "a"], object), one_group(4))
    stack = np.stack(spread.quantiles)
    assert (np.diff(stack, axis=0) >= 0).all()
    assert (stack >= 0).all()
    assert (stack[:, :, 1] <= 7).all()
    assert (spread.mean_NM[:, 1] <= 7).all()


def test_small_and_unseen_scenarios_use_the_pooled_cell() -> None:
    forecast_NM, actual_NM, scenario_N, group_NM = simulate(2000, 1)
    scenario_N[:10] = "tiny"
    calibration = ResidualQuantiles.fit(forecast_NM, actual_NM, scenario_N, group_NM, TARGETS)
    assert set(calibration.cells.scenarios) == {"a", "b"}
    tiny = calibration.apply(forecast_NM[:5], np.full(5, "tiny", object), group_NM[:5])
    unseen = calibration.apply(forecast_NM[:5], np.full(5, "unseen", object), group_NM[:5])
    np.testing.assert_array_equal(tiny.median_NM, unseen.median_NM)


def test_survives_json() -> None:
    calibration = ResidualQuantiles.fit(*simulate(1000, 1), TARGETS)
    again = ResidualQuantiles.from_dict(json.loads(json.dumps(calibration.to_dict())))
    assert again == calibration


def test_no_rows_give_the_point_back() -> None:
    calibration = ResidualQuantiles.fit(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0, object), one_group(0), TARGETS)
    spread = calibration.apply(np.array([[3.5, 2.0]]), np.array(["a"], object), one_group(1))
    assert all(quantile_NM.tolist() == [[3.5, 2.0]] for quantile_NM in spread.quantiles)
    assert ResidualQuantiles.from_dict(json.loads(json.dumps(calibration.to_dict()))) == calibration


def test_half_of_a_shift_shared_by_all_series_is_kept() -> None:
    forecast_NM, actual_NM, scenario_N, group_NM = simulate(6000, 1)
    plain = ResidualQuantiles.fit(forecast_NM, actual_NM, scenario_N, group_NM, TARGETS).apply(
        forecast_NM, scenario_N, group_NM
    )
    doubled = ResidualQuantiles.fit(forecast_NM, 2 * actual_NM, scenario_N, group_NM, TARGETS).apply(
        forecast_NM, scenario_N, group_NM
    )
    ratio = doubled.mean_NM[:, 0].sum() / plain.mean_NM[:, 0].sum()
    assert ratio == pytest.approx(2**0.5, rel=0.03)


def test_forecasts_and_actuals_of_zero() -> None:
    zeros = np.zeros((500, 2))
    calibration = ResidualQuantiles.fit(zeros, zeros, np.full(500, "a", object), one_group(500), TARGETS)
    spread = calibration.apply(zeros[:2], np.full(2, "a", object), one_group(2))
    assert np.stack([spread.mean_NM, *spread.quantiles]).max() == 0


def network_like(rows: int, seed: int, width: float) -> tuple[Distribution, np.ndarray]:
    """Zero-heavy totals, and forecasts of them whose spread above zero is ``width`` times the true one."""
    rng = np.random.default_rng(seed)
    size_N, zero_N = np.exp(rng.normal(1, 1, rows)), rng.uniform(0.05, 0.8, rows)
    actual_N = np.where(rng.random(rows) < zero_N, 0.0, size_N * np.exp(rng.normal(0, 0.6, rows)))
    inner_GN = np.clip((LEVELS[:, None] - zero_N) / (1 - zero_N), 1e-12, 1 - 1e-12)
    level_GN = np.where(LEVELS[:, None] <= zero_N, 0.0, size_N * np.exp(width * 0.6 * stats.norm.ppf(inner_GN)))
    level_GNM = level_GN[:, :, None]
    return Distribution(level_GNM[MEDIAN], level_GNM.mean(0), zero_N[:, None], level_GNM), actual_N[:, None]


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
def test_levels_hold_what_they_say_on_rows_that_were_not_fitted(width: float) -> None:
    """Conformal: whatever the network's own spread, 50 % and 90 % within two points on new rows."""
    forecast, actual_NM = network_like(8000, 1, width)
    calibration = LevelCalibration.fit(
        forecast, actual_NM, np.full(8000, "a", object), one_group(8000, 1), np.arange(8000) % 4
    )
    fresh, fresh_actual_NM = network_like(8000, 2, width)
    served = calibration.apply(fresh, np.full(8000, "a", object), one_group(8000, 1))
    assert share_between(served, fresh_actual_NM, 0.25, 0.75).mean() == pytest.approx(0.5, abs=0.02)
    assert share_between(served, fresh_actual_NM, 0.05, 0.95).mean() == pytest.approx(0.9, abs=0.02)
    assert (np.diff(served.level_GNM, axis=0) >= 0).all()
    assert served.p_zero_NM.mean() == pytest.approx((fresh_actual_NM == 0).mean(), abs=0.03)


def test_what_cutoffs_disagree_on_is_shrunk_away() -> None:
    forecast, actual_NM = network_like(4000, 1, 1.0)
    cutoff_N, scenario_N = np.arange(4000) % 2, np.full(4000, "a", object)
    opposite_NM = np.where(cutoff_N[:, None] == 0, actual_NM * 1.5, actual_NM / 1.5)
    moved = LevelCalibration.fit(forecast, opposite_NM, scenario_N, one_group(4000, 1), cutoff_N)
    np.testing.assert_allclose(moved.cells.pooled_MK[0][2][MEDIAN], 0.5, atol=0.02)
    agreed = LevelCalibration.fit(forecast, actual_NM * 1.5, scenario_N, one_group(4000, 1), cutoff_N)
    assert agreed.cells.pooled_MK[0][2][MEDIAN] > 0.55


def test_level_calibration_survives_json_and_no_rows_change_nothing() -> None:
    forecast, actual_NM = network_like(1000, 1, 0.7)
    scenario_N = np.full(1000, "a", object)
    calibration = LevelCalibration.fit(forecast, actual_NM, scenario_N, one_group(1000, 1), np.arange(1000) % 3)
    assert LevelCalibration.from_dict(json.loads(json.dumps(calibration.to_dict()))) == calibration
    nothing = LevelCalibration.fit(forecast[:0], actual_NM[:0], scenario_N[:0], one_group(0, 1), np.zeros(0))
    np.testing.assert_allclose(
        nothing.apply(forecast, scenario_N, one_group(1000, 1)).level_GNM, forecast.level_GNM, atol=1e-9
    )


def test_the_mean_has_no_bias_on_the_rows_that_it_was_learned_from() -> None:
    """What follows a first day is a tenth of what the rule says, and more where more was: no drift, so all is kept."""
    rng = np.random.default_rng(1)
    rule_NM = np.exp(rng.normal(1, 1, (900, 2)))
    actual_NM = np.where(rng.random((900, 2)) < 0.85, 0.0, rule_NM**1.3 / 4)
    group_NM = rng.integers(0, 2, (900, 2))
    targets = (TARGETS[0], *CLICKS)
    scenario_N = np.full(900, "a", object)
    calibration = ResidualQuantiles.fit(rule_NM, actual_NM, scenario_N, group_NM, targets, shift_kept=1.0)
    found = calibration.apply(rule_NM, scenario_N, group_NM)
    np.testing.assert_allclose(found.mean_NM.sum(0), actual_NM.sum(0))
    np.testing.assert_allclose(found.p_zero_NM.mean(0), (actual_NM == 0).mean(0), atol=0.02)


def clicks_of_weeks(seed: int) -> tuple[np.ndarray, ...]:
    """Eight weeks and the next one, of three kinds of series with like totals: clicks nearly every day, clicks on few
    days, and such as have just begun to end. Last week, next week, activity group, the kind, the least week."""
    rng = np.random.default_rng(seed)
    kind_N = rng.choice(3, 900, p=[0.5, 0.35, 0.15])
    rate_N1 = np.exp(rng.uniform(np.log(8), np.log(40), (900, 1)))
    daily_ND = rng.poisson(rate_N1 / 7, (900, 63)).astype(float)
    busy_ND = rng.random((900, 63)) < 0.15
    daily_ND[kind_N == 1] = np.where(busy_ND, np.round(rate_N1), 0)[kind_N == 1]
    ends_N = rng.integers(35, 70, 900)
    daily_ND[(kind_N == 2)[:, None] & (np.arange(63) >= ends_N[:, None])] = 0
    week_NW = daily_ND.reshape(900, 9, 7).sum(2)
    group_N = np.digitize((daily_ND[:, 28:56] > 0).mean(1), EDGES)
    return week_NW[:, 7], week_NW[:, 8], group_N, kind_N, week_NW[:, :8].min(1)


def test_a_steady_series_is_not_told_that_it_may_do_nothing() -> None:
    """13 to 18 clicks a week, week after week, among series of such totals that click now and then or end."""
    last_N, next_N, group_N, kind_N, least_N = clicks_of_weeks(1)
    scenario_N = np.full(900, "a", object)
    fitted = ResidualQuantiles.fit(
        last_N[:, None], next_N[:, None], scenario_N, group_N[:, None], CLICKS, shift_kept=1.0
    )
    last_N, next_N, group_N, kind_N, least_N = clicks_of_weeks(2)
    found = fitted.apply(last_N[:, None], scenario_N, group_N[:, None])
    steady_N = (kind_N == 0) & (last_N >= 13) & (last_N <= 18)
    assert steady_N.sum() > 30
    assert (found.p_zero_NM[steady_N] < 0.1).all()
    assert (found.p_zero_NM[steady_N] < 0.04).mean() > 0.8
    never_idle_N = (kind_N == 0) & (least_N >= 5)
    assert never_idle_N.sum() > 200
    assert (found.p05_NM[never_idle_N] > 0).mean() > 0.9
    pooled = ResidualQuantiles.fit(
        last_N[:, None], next_N[:, None], scenario_N, one_group(900, 1), CLICKS, shift_kept=1.0
    ).apply(last_N[:, None], scenario_N, one_group(900, 1))
    assert (pooled.p05_NM[never_idle_N] > 0).mean() < 0.5
    # Neither is who clicks now and then told that he surely will.
    for k in range(GROUPS):
        rows = group_N == k
        if rows.sum() >= GROUP_ROWS:
            assert found.p_zero_NM[rows].mean() == pytest.approx((next_N[rows] == 0).mean(), abs=0.12)


def test_a_table_interpolates_as_numpy_does_and_makes_no_figure_of_nan() -> None:
    """Cells of one point and of equal ones too; a fault of a network must stay in sight."""
    random = np.random.default_rng(0)
    for points in ([1.0], [0.0, 0.0, 1.0], [0.0, 0.5, 0.5, 0.5, 1.0], [1.0, 1.0]):
        values = random.random((3, len(points)))
        table = Table.of([([0.0, 0.2, 0.9, 1.0, 1.0, 2.0], random.random((3, 6))), (points, values)])
        number_X = np.array([-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 2.0])
        expected = np.stack([np.interp(number_X, points, value_J) for value_J in values], -1)
        np.testing.assert_allclose(table.at(np.ones(len(number_X), int), number_X), expected)
        assert np.isnan(table.at(np.ones(1, int), np.array([np.nan]))).all()


def test_the_mean_of_young_series_is_moved_by_what_young_series_did() -> None:
    random = np.random.default_rng(1)
    said_NM = random.gamma(2.0, 2.0, (600, 1))
    young_N = np.arange(600) % 3 == 0
    actual_NM = said_NM * np.where(young_N, 0.25, 1.0)[:, None]
    group_NM = np.where(young_N, YOUNG, 3)[:, None]
    names_N, cutoff_N = np.full(600, "s", object), np.arange(600) % 4
    calibration = LevelCalibration.fit(Distribution.point(said_NM), actual_NM, names_N, group_NM, cutoff_N)
    mean_NM = calibration.apply(Distribution.point(said_NM), names_N, group_NM).mean_NM
    np.testing.assert_allclose(mean_NM[~young_N], said_NM[~young_N])
    np.testing.assert_allclose(mean_NM[young_N], said_NM[young_N] * 0.5)  # half of a shift is believed
    assert LevelCalibration.from_dict(json.loads(json.dumps(calibration.to_dict()))) == calibration
