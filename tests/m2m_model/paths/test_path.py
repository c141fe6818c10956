from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from m2m_model.data.features import Inputs
from m2m_model.data.panel import Panel
from m2m_model.data.served_by import SILENT, served_by
from m2m_model.forecasts.calibration import ABOVE, WAY, Clock, Pacing
from m2m_model.forecasts.coherence import coherent
from m2m_model.forecasts.distribution import Distribution
from m2m_model.forecasts.forecasts import Forecasts, forecast_baseline
from m2m_model.levels import LEVELS
from m2m_model.paths.path import PATH_SCHEMA, Habit, daily_path, path_figures
from m2m_model.training.serving import calibrate_baselines

HORIZONS = [(7,), (1, 7, 28), (3, 10)]


def with_horizons(panel: Panel, horizons: tuple[int, ...]) -> Panel:
    return replace(panel, spec=replace(panel.spec, horizons_days=horizons))


def random_pacing(panel: Panel, random: np.random.Generator) -> Pacing:
    """Nothing that any data would say."""
    spec = panel.spec

    def clock() -> Clock:
        power_S = np.sort(random.uniform(0, 1, len(WAY)))
        return Clock(tuple(power_S), tuple(map(tuple, random.uniform(0.1, 5, (len(WAY), len(ABOVE))))))

    def week() -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(random.dirichlet([0.3] * 7)) for _ in spec.tasks)

    clocks = tuple(tuple(clock() for _ in range(6)) for _ in spec.targets)
    return Pacing(week(), {"feed": week()}, (0.0, 0.05, 1.0), clocks)


def random_forecasts(panel: Panel, random: np.random.Generator) -> Forecasts:
    """Of all series, young and silent ones too: anything that is coherent."""
    series, targets = len(panel), len(panel.spec.targets)
    level_GNM = np.sort(random.lognormal(0, 2, (len(LEVELS), series, targets)), 0)
    p_zero_NM = random.choice([0.0, 0.01, 0.4, 0.97, 1.0], (series, targets))
    level_GNM = np.where(LEVELS[:, None, None] <= p_zero_NM, 0, level_GNM)
    mean_NM = level_GNM.mean(0) * random.choice([0.0, 1.0, 3.0], (series, targets))
    spread = coherent(Distribution(mean_NM, mean_NM, p_zero_NM, level_GNM), panel.spec)
    everyone = np.arange(series)
    method_NM = np.full((series, targets), "m2m", object)
    names = (panel.advertiser_N, panel.scenario_N, method_NM)
    return Forecasts(panel.last_day, everyone, *names, spread)


@pytest.mark.parametrize("horizons", HORIZONS)
@pytest.mark.parametrize("seed", range(5))
def test_paths_lead_to_their_totals_whatever_was_learned(panel: Panel, horizons: tuple[int, ...], seed: int) -> None:
    random, panel = np.random.default_rng(seed), with_horizons(panel, horizons)
    forecasts, pacing, spec = random_forecasts(panel, random), random_pacing(panel, random), panel.spec
    expected_THN, sum_THN, *level_QTHN = path_figures(forecasts, panel, pacing)
    spread, count = forecasts.distribution, len(horizons)
    assert np.isfinite([expected_THN, sum_THN, *level_QTHN]).all()
    assert (expected_THN >= 0).all()
    np.testing.assert_allclose(np.cumsum(expected_THN, 1), sum_THN, rtol=1e-9, atol=1e-12)
    for k, days in enumerate(horizons):
        np.testing.assert_array_equal(sum_THN[:, days - 1], spread.mean_NM.T[k::count])
        for found_THN, total_NM in zip(level_QTHN, (spread.p05_NM, spread.median_NM, spread.p95_NM), strict=True):
            np.testing.assert_array_equal(found_THN[:, days - 1], total_NM.T[k::count])
    p05, p50, p95 = level_QTHN
    assert ((p05 >= 0) & (p05 <= p50) & (p50 <= p95)).all()
    assert all((np.diff(found_THN, axis=1) >= 0).all() for found_THN in (sum_THN, *level_QTHN))
    day_H1 = 1 + np.arange(spec.horizon_days)[:, None]
    for t, task in enumerate(spec.tasks):
        if task.aggregate == "days":
            assert (expected_THN[t] <= 1 + 1e-9).all()
            for found_THN in level_QTHN:
                assert (found_THN[t] == np.rint(found_THN[t])).all()
                assert (found_THN[t] <= day_H1).all()
                assert count > 1 or (np.diff(found_THN[t], axis=0) <= 1).all()


def test_a_path_has_every_day_of_the_horizon_in_order(panel: Panel) -> None:
    random = np.random.default_rng(1)
    table = daily_path(random_forecasts(panel, random), panel, random_pacing(panel, random))
    assert table.schema.equals(PATH_SCHEMA)
    keys = list(zip(*(table[name].to_pylist() for name in PATH_SCHEMA.names[:4]), strict=True))
    assert keys == sorted(set(keys))
    days = {panel.last_day + timedelta(days=k) for k in range(1, 8)}
    assert len(keys) == len(panel) * len(panel.spec.tasks) * len(days)
    assert {key[3] for key in keys} == days
    none = daily_path(random_forecasts(panel, random)[:0], panel, Pacing.even(panel.spec))
    assert none.schema.equals(PATH_SCHEMA)
    assert none.num_rows == 0


@pytest.mark.filterwarnings("error")
def test_a_faulty_forecast_is_for_the_checks_to_see(panel: Panel) -> None:
    forecasts = random_forecasts(panel, np.random.default_rng(2))
    for wrong in (np.nan, -1.0, np.inf):
        spread = forecasts.distribution
        figures = {name: np.full_like(figure, wrong) for name, figure in vars(spread).items()}
        table = daily_path(replace(forecasts, distribution=Distribution(**figures)), panel, Pacing.even(panel.spec))
        assert table.num_rows == len(panel) * 3 * 7
        last = table["cumulated"].to_numpy().reshape(-1, 7)[:, -1]
        assert not ((last >= 0) & np.isfinite(last)).any()


def test_a_row_does_not_depend_on_the_rest_of_its_panel(panel: Panel, take: Callable[[object], Panel]) -> None:
    pacing = random_pacing(panel, np.random.default_rng(3))
    whole, part = (forecast_baseline("mean_28", p, p.last_day, all_series=True) for p in (panel, take(slice(7, 30))))
    alone = daily_path(part, take(slice(7, 30)), pacing).to_pylist()
    together = {tuple(row.values())[:4]: row for row in daily_path(whole, panel, pacing).to_pylist()}
    assert alone
    assert all(row == together[tuple(row.values())[:4]] for row in alone)


@pytest.fixture(scope="module")
def weekly(panel: Panel, inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Panel, Inputs, Path, date]:
    """Search is busy on Mondays and closed on Sundays, all of feed's clicks are on other days than each other's."""
    random, weekday_T = np.random.default_rng(7), np.arange(panel.days) % 7  # a Monday is the first day
    busy_NT = np.where(weekday_T == 0, 30.0, np.where(weekday_T == 6, 0.0, 5.0))[None] * np.ones((len(panel), 1))
    feed_N = panel.scenario_N == "feed"
    busy_NT[feed_N] = np.where(weekday_T == (np.flatnonzero(feed_N) % 7)[:, None], 30.0, 3.0)
    clicks_NT = random.poisson(busy_NT).astype(float)
    performance_NTP = np.stack([clicks_NT, 0.5 * clicks_NT], 2)
    behavior_NTF = np.full((len(panel), panel.days, 1), np.nan)
    registered_N = np.where(np.arange(len(panel)) % 10 == 9, panel.days - 4, 0).astype(np.int32)
    performance_NTP[np.arange(panel.days)[None] < registered_N[:, None]] = np.nan
    performance_NTP[8, -40:] = np.nan
    made = Panel.of_values(panel.spec, panel.last_day, performance_NTP, behavior_NTF, registered_N, panel.keys)
    folder = made.save(tmp_path_factory.mktemp("weekly") / "p")
    return made, inputs, folder, made.last_day - timedelta(days=14)


def test_a_steady_pattern_of_weekdays_is_found(weekly: tuple[Panel, Inputs, Path, date]) -> None:
    panel, inputs, folder, held_out_from = weekly
    calibrations, _, pacings = calibrate_baselines([folder], inputs, held_out_from)
    pacing, clicks = pacings["mean_28"], 1
    monday, *others, sunday = pacing.scenarios["search"][clicks]
    assert monday == pytest.approx(30 / 55, abs=0.03)
    assert others == pytest.approx([5 / 55] * 5, abs=0.02)
    assert sunday == 0
    assert np.ptp(pacing.scenarios["feed"][clicks]) < 0.1  # all of them together
    assert pacing.own_T[clicks] == pytest.approx(0.1)  # but each is steady
    forecasts = forecast_baseline("mean_28", panel, panel.last_day, calibrations, all_series=True)
    share_HN = path_figures(forecasts, panel, pacing)[0, clicks]
    share_HN = share_HN / np.maximum(share_HN.sum(0), 1e-9)
    assert forecasts.series_N.tolist() == list(range(len(panel)))
    first = (panel.last_day.weekday() + 1) % 7
    young_N, silent_N = panel.registered_N > 0, served_by(panel, panel.days - 1) == SILENT
    for n in forecasts.series_N.tolist():
        at = (np.arange(7) + first) % 7
        if panel.scenario_N[n] == "search":
            np.testing.assert_allclose(share_HN[:, n], np.array(pacing.scenarios["search"][clicks])[at], atol=0.08)
        elif young_N[n]:  # it has no weekdays of its own
            np.testing.assert_allclose(share_HN[:, n], np.array(pacing.scenarios["feed"][clicks])[at], atol=0.01)
        elif not silent_N[n]:
            assert at[share_HN[:, n].argmax()] == n % 7
            assert share_HN[:, n].max() > 0.4
    assert young_N.any()
    habit = Habit.of(panel, panel.days - 1, np.arange(len(panel)))
    assert ((habit.active_TN > 0).all(0) == ~(young_N | silent_N)).all()
    assert silent_N.sum() == 1


def test_intervals_hold_what_comes_on_every_day(weekly: tuple[Panel, Inputs, Path, date]) -> None:
    panel, inputs, folder, held_out_from = weekly
    calibrations, _, pacings = calibrate_baselines([folder], inputs, held_out_from)
    inside = []
    for days in range(8):
        cutoff = held_out_from + timedelta(days=days - 1)
        forecasts = forecast_baseline("mean_28", panel, cutoff, calibrations)
        _, _, p05, _, p95 = path_figures(forecasts, panel, pacings["mean_28"])
        day = panel.index_of(cutoff)
        came_THN = np.cumsum(panel.daily_NTM[forecasts.series_N, day + 1 : day + 8].transpose(2, 1, 0), 1)
        inside.append(((p05 - 1e-6 <= came_THN) & (came_THN <= p95 + 1e-6)).mean(2))
    share_TH = np.mean(inside, 0)
    assert ((share_TH[:2] > 0.8) & (share_TH[:2] < 0.99)).all(), share_TH


def test_what_was_learned_survives_its_json(panel: Panel) -> None:
    pacing = random_pacing(panel, np.random.default_rng(4))
    assert Pacing.from_dict(pacing.to_dict()) == pacing
