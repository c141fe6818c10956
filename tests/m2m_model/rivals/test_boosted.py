from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from m2m_model.data.features import Inputs
from m2m_model.data.panel import Panel
from m2m_model.data.served_by import eligible
from m2m_model.data.targets import targets_Nm
from m2m_model.rivals import NAMES, boosted
from m2m_model.rivals.artifact import load_rivals, save_rivals
from m2m_model.rivals.boosted import (
    Boosted,
    features,
    fit,
    fit_boosted,
    nothing_below,
    refit,
    relative_features,
    training_cutoffs,
)


@pytest.fixture(scope="module")
def fitted(panel: Panel, inputs: Inputs) -> dict[str, Boosted]:
    return fit_boosted([panel], inputs, {0: training_cutoffs(panel, 90)})


def test_it_learns_and_survives_its_files(fitted: dict[str, Boosted], panel: Panel, tmp_path: Path) -> None:
    series = np.flatnonzero(eligible(panel, 95))
    actual_NM = targets_Nm(panel, 95, series)
    opened = load_rivals(save_rivals(fitted, tmp_path / "rivals"))
    for name, model in fitted.items():
        forecast_NM = model(panel, 95, series)
        assert (forecast_NM >= 0).all()
        assert (np.abs(actual_NM - forecast_NM).sum(0) / actual_NM.sum(0) < 0.6).all(), name
        np.testing.assert_array_equal(opened[name](panel, 95, series), forecast_NM)


@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "no list", "another list", "another version"])
def test_a_damaged_file_is_named(fitted: dict[str, Boosted], tmp_path: Path, damage: str) -> None:
    folder = save_rivals(fitted, tmp_path / "rivals")
    file = folder / ("rivals.json" if damage in ("no list", "another list", "another version") else "lightgbm_l1-1.txt")
    written = file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(written[: len(written) // 2])
    elif damage == "flip":
        middle = len(written) // 2
        file.write_bytes(written[:middle] + bytes([written[middle] ^ 1]) + written[middle + 1 :])
    else:
        other = written.replace(b'"format_version": 3', b'"format_version": 9')
        file.write_bytes({"no list": b"", "another list": b"[]"}.get(damage, other))
    found = {
        "no list": "rivals: Expecting value",
        "another list": "rivals: list indices",
        "another version": "format_version 9; this code reads 3",
    }
    with pytest.raises(ValueError, match=found.get(damage, r"lightgbm_l1-1\.txt")):
        load_rivals(folder)


def test_training_cutoffs_end_a_horizon_before_the_last_label(panel: Panel) -> None:
    cutoffs = training_cutoffs(panel, 90)
    assert cutoffs[0] == 90 - panel.spec.horizon_days
    assert len(training_cutoffs(panel, 10_000)) <= boosted.CUTOFFS
    assert training_cutoffs(panel, 10_000)[0] + panel.spec.horizon_days < panel.days


def test_features_read_nothing_after_the_cutoff(panel: Panel, changed, inputs: Inputs) -> None:
    def absurd(performance_NTP: np.ndarray, _: np.ndarray) -> None:
        performance_NTP[:, 71:] = 1e9

    series = np.arange(len(panel))
    found = features(changed(absurd), 70, series, inputs.scenarios)
    np.testing.assert_array_equal(found, features(panel, 70, series, inputs.scenarios))


def test_an_unknown_scenario_and_nobody(fitted: dict[str, Boosted], panel: Panel) -> None:
    model = fitted["lightgbm_l1"]
    keys = panel.keys.set_column(1, "scenario_id", [["brand new"] * len(panel)])
    assert np.isfinite(model(replace(panel, keys=keys), 95, np.arange(5))).all()
    assert model(panel, 95, np.zeros(0, np.int64)).shape == (0, 3)


def test_a_task_that_has_not_begun_is_forecast_as_nothing(changed, inputs: Inputs) -> None:
    def idle(performance_NTP: np.ndarray, _: np.ndarray) -> None:
        performance_NTP[..., 0] *= 0.0  # no clicks yet

    quiet = changed(idle)
    for model in fit_boosted([quiet], inputs, {0: training_cutoffs(quiet, 60)}).values():
        assert (model(quiet, 95, np.arange(5))[:, 1] == 0).all()


def test_more_rows_than_it_may_hold_are_thinned(panel: Panel, inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(boosted, "MAX_ROWS", 100)
    made = boosted.features
    monkeypatch.setattr(boosted, "features", lambda *a: taken.append(len(a[2])) or made(*a))
    fit_boosted([panel], inputs, {0: training_cutoffs(panel, 60)})
    assert 80 <= sum(taken) <= 100


def test_what_is_relative_to_the_level_reads_nothing_after_the_cutoff_and_no_other_series(
    panel: Panel, changed, take, inputs: Inputs
) -> None:
    def absurd(performance_NTP: np.ndarray, _: np.ndarray) -> None:
        performance_NTP[:, 71:] = 1e9

    floor_M = np.array([0.5, 1.0, 0.1])
    known = (70, np.arange(len(panel)), inputs.scenarios, floor_M)
    feature_NX, level_NM = relative_features(panel, *known)
    for one, other in zip(relative_features(changed(absurd), *known), (feature_NX, level_NM), strict=True):
        np.testing.assert_array_equal(one, other)
    alone_NX, _ = relative_features(take(slice(7, 8)), 70, np.arange(1), inputs.scenarios, floor_M)
    np.testing.assert_array_equal(alone_NX[0], feature_NX[7])


def test_a_series_ten_times_as_large_has_the_same_relative_features(panel: Panel, changed, inputs: Inputs) -> None:
    def larger(performance_NTP: np.ndarray, _: np.ndarray) -> None:
        performance_NTP *= 10

    floor_M = np.full(3, 1e-9)
    at = (70, np.flatnonzero(eligible(panel, 70)), inputs.scenarios, floor_M)
    (one_NX, level_NM), (ten_NX, more_NM) = relative_features(panel, *at), relative_features(changed(larger), *at)
    np.testing.assert_allclose(more_NM[:, :2], 10 * level_NM[:, :2], rtol=1e-5)  # spend and clicks; days are days
    tasks = 3
    ratios = one_NX.shape[1] - 4 - tasks - 3 * tasks  # then level, activity, and what is known of the series
    some_NX = (one_NX[:, :ratios] > -10) & (ten_NX[:, :ratios] > -10)  # beside the floor nothing is relative
    np.testing.assert_allclose(one_NX[:, :ratios][some_NX], ten_NX[:, :ratios][some_NX], atol=1e-3)


def test_what_is_hardly_more_than_nothing_is_nothing() -> None:
    said_N = np.array([0.1] * 60 + [5.0] * 40)
    actual_N = np.array([0.0] * 55 + [1.0] * 5 + [5.0] * 40)
    threshold = nothing_below(said_N, actual_N)
    assert 0.1 < threshold <= 5
    assert nothing_below(said_N, said_N) <= 0.1  # where it is right it is left alone


def test_a_history_too_short_for_a_label_has_no_rival(panel: Panel, inputs: Inputs) -> None:
    early = panel.first_day + timedelta(days=5)
    assert fit([panel], inputs, early, [early]) == {}
    assert set(refit([panel], inputs, panel.last_day, {})) == set(NAMES)
