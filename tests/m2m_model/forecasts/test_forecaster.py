import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from m2m_model.config import ModelConfig, TrainConfig
from m2m_model.data.features import Inputs
from m2m_model.data.panel import Panel
from m2m_model.data.served_by import SILENT, eligible, history_days, served_by
from m2m_model.data.targets import targets_Nm
from m2m_model.forecasts.baselines import BASELINES
from m2m_model.forecasts.blend import Blend, Share
from m2m_model.forecasts.calibration import Pacing
from m2m_model.forecasts.coherence import coherent
from m2m_model.forecasts.forecaster import Forecaster
from m2m_model.forecasts.forecasts import FORECAST_SCHEMA, Forecasts, forecast_baseline, with_baselines
from m2m_model.paths.path import daily_path
from m2m_model.training.loop import train_rank


@pytest.fixture(scope="module")
def held_out_from(last_day: date) -> date:
    return last_day - timedelta(days=14)


@pytest.fixture(scope="module")
def forecaster(
    panel: Panel, inputs: Inputs, held_out_from: date, tmp_path_factory: pytest.TempPathFactory
) -> Forecaster:
    folder = tmp_path_factory.mktemp("predict")
    config = TrainConfig(epochs=2, min_steps=20, max_windows=2000, batch_size=64)
    result = train_rank([panel.save(folder / "p")], folder, inputs, ModelConfig(width=16), config, held_out_from)
    return Forecaster.load(result.model_folder)


def assert_rows_equal(one: Forecasts, other: Forecasts, rows: slice | np.ndarray = slice(None)) -> None:
    for name, figure_NM in vars(one.distribution[rows]).items():
        np.testing.assert_allclose(figure_NM, getattr(other.distribution, name), rtol=1e-4, atol=1e-4, err_msg=name)


def test_eligible_series_in_panel_order_by_the_right_method(forecaster: Forecaster, panel: Panel) -> None:
    for cutoff in (30, 70, panel.days - 1):
        found = forecaster.predict(panel, panel.day_of(cutoff))
        assert found.series_N.tolist() == np.flatnonzero(eligible(panel, cutoff)).tolist()
        young_N = history_days(panel, cutoff)[found.series_N] < 7
        assert (found.method_NM[young_N] == "m2m").all()  # too few young ones were seen to give the rule a part
        assert (found.advertiser_N == panel.advertiser_N[found.series_N]).all()
    everyone = forecaster.predict(panel, panel.last_day, all_series=True)
    silent_N = np.flatnonzero(served_by(panel, panel.days - 1) == SILENT)
    assert len(silent_N)
    assert everyone.series_N[(everyone.method_NM == "silent").all(1)].tolist() == silent_N.tolist()


def test_the_method_says_who_made_each_figure(forecaster: Forecaster, panel: Panel, held_out_from: date) -> None:
    """Per scenario and task: the anchor where the network has no part, the network where it has all, else both."""
    shares = {"search": (Share("tsb", 0.0), Share("tsb", 1.0), Share("tsb", 0.3))}
    blend = Blend((Share("mean_28", 0.7),) * 3, shares)
    young_blend = Blend((Share("cold_start", 0.0), Share("cold_start", 1.0), Share("cold_start", 0.4)), {})
    found = replace(forecaster, blend=blend, young_blend=young_blend).predict(panel, held_out_from)
    young_N = history_days(panel, panel.index_of(held_out_from))[found.series_N] < 7
    assert young_N.any()
    search_N = (found.scenario_N == "search") & ~young_N
    assert {tuple(row) for row in found.method_NM[search_N]} == {("baseline:tsb", "m2m", "blend:tsb@0.3")}
    assert {tuple(row) for row in found.method_NM[~search_N & ~young_N]} == {("blend:mean_28@0.7",) * 3}
    assert {tuple(row) for row in found.method_NM[young_N]} == {("cold_start", "m2m", "blend:cold_start@0.4")}
    anchor = forecast_baseline("tsb", panel, held_out_from, forecaster.calibrations).distribution
    alone = replace(forecaster, blend=None, young_blend=None).predict(panel, held_out_from).distribution
    for m, who in enumerate((anchor, alone)):  # but for the zeros that the third task brings along here or there
        mine, own = found.distribution.level_GNM[:, search_N, m], who.level_GNM[:, search_N, m]
        both = (mine > 0) & (own > 0)
        assert both.mean() > 0.5
        np.testing.assert_allclose(mine[both], own[both])


def test_a_pair_declared_after_training_holds(forecaster: Forecaster, panel: Panel, held_out_from: date) -> None:
    """The champion serves as it did, and the pair of today's configuration binds what it publishes."""
    blend = Blend((Share("mean_28", 0.0), Share("last_h_days", 0.0), Share("tsb", 1.0)), {})
    mixed = replace(forecaster, blend=blend)
    bound = replace(panel, spec=replace(panel.spec, not_above=(("clicks", "spend"),)))
    assert forecaster.spec == bound.spec
    before, after = (mixed.predict(of, held_out_from).distribution for of in (panel, bound))
    assert (before.point_NM[:, 1] > before.point_NM[:, 0]).any()
    for figure_NM in (after.point_NM, after.mean_NM, *after.level_GNM):
        assert (figure_NM[:, 1] <= figure_NM[:, 0]).all()


def test_independent_of_batch_mates_and_order(forecaster: Forecaster, panel: Panel, take, held_out_from: date) -> None:
    found = forecaster.predict(panel, held_out_from)
    assert_rows_equal(found, forecaster.predict(panel, held_out_from, batch_size=3))
    rows = found.series_N[::-1][:7].copy()
    alone = forecaster.predict(take(rows), held_out_from)
    positions = np.searchsorted(found.series_N, rows)
    assert_rows_equal(found, alone, positions)


def test_a_short_panel_is_enough(forecaster: Forecaster, make_table, panel: Panel) -> None:
    days = panel.spec.lookback_days
    short = Panel.from_sequences(make_table(), panel.spec, panel.last_day, days)
    assert_rows_equal(forecaster.predict(panel, panel.last_day), forecaster.predict(short, panel.last_day))


def test_quantiles_are_in_order_and_within_their_support(forecaster: Forecaster, panel: Panel) -> None:
    spread = forecaster.predict(panel, panel.last_day, all_series=True).distribution
    stack = np.stack(spread.quantiles)
    assert (np.diff(stack, axis=0) >= 0).all()
    assert (stack >= 0).all()
    assert (stack[:, :, 2] <= 7).all()
    assert np.isfinite(spread.mean_NM).all()


def test_an_unknown_scenario_and_attribute_are_forecast(forecaster: Forecaster, panel: Panel) -> None:
    keys = panel.keys.set_column(1, "scenario_id", [["brand new"] * len(panel)])
    found = forecaster.predict(replace(panel, keys=keys), panel.last_day)
    assert np.isfinite(found.distribution.median_NM).all()
    assert set(found.scenario_N) == {"brand new"}


def test_long_form(forecaster: Forecaster, panel: Panel) -> None:
    found = forecaster.predict(panel, panel.last_day)
    table = found.to_table(panel.spec)
    assert table.schema == FORECAST_SCHEMA
    assert table.num_rows == 3 * len(found.series_N)
    assert table["task"].to_pylist()[:3] == ["spend", "clicks", "active_days"]
    assert table["median"].to_pylist()[1] == found.distribution.median_NM[0, 1]


def test_empty_panel_gives_no_rows(forecaster: Forecaster, panel: Panel, take) -> None:
    empty = take(slice(0))
    assert forecaster.predict(empty, panel.last_day, all_series=True).to_table(panel.spec).num_rows == 0
    nobody = forecast_baseline("mean_28", empty, panel.last_day, forecaster.calibrations)
    assert nobody.to_table(panel.spec).schema == FORECAST_SCHEMA


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_keeps_its_own_forecast(
    name: str, forecaster: Forecaster, panel: Panel, held_out_from: date
) -> None:
    found = forecast_baseline(name, panel, held_out_from, forecaster.calibrations, all_series=True)
    assert set(found.method_NM.ravel()) <= {f"baseline:{name}", "cold_start", "silent"}
    own = (found.method_NM == f"baseline:{name}").all(1)
    own_NM = BASELINES[name](panel, panel.index_of(held_out_from), found.series_N[own])
    # Days are whole, and without an active day there is no total.
    expected_NM = np.where([False, False, True], np.round(own_NM), own_NM)
    expected_NM[expected_NM[:, 2] == 0] = 0
    np.testing.assert_allclose(found.distribution.point_NM[own], expected_NM)
    assert (np.diff(np.stack(found.distribution.quantiles), axis=0) >= 0).all()
    bare = forecast_baseline(name, panel, held_out_from)
    np.testing.assert_allclose(bare.distribution.p95_NM[bare.method_NM[:, 0] == f"baseline:{name}"], expected_NM)


def test_a_baseline_serves_a_cell_in_the_models_place_and_nothing_else_changes(
    forecaster: Forecaster, panel: Panel
) -> None:
    made = forecaster.predict(panel, panel.last_day, all_series=True)
    scenario = str(made.scenario_N[0])
    who_NM = np.full(made.method_NM.shape, None, object)
    who_NM[made.scenario_N == scenario, 0] = "mean_28"
    mixed = with_baselines(made, panel, forecaster.calibrations, who_NM)
    simple = forecast_baseline("mean_28", panel, panel.last_day, forecaster.calibrations, all_series=True)
    here_N = made.scenario_N == scenario
    assert_rows_equal(mixed[~here_N], made[~here_N])
    assert mixed[here_N].method_NM[:, 0].tolist() == simple[here_N].method_NM[:, 0].tolist()
    assert mixed[here_N].method_NM[:, 1:].tolist() == made[here_N].method_NM[:, 1:].tolist()
    points_N = mixed.distribution.point_NM[here_N, 0], simple.distribution.point_NM[here_N, 0]
    assert (points_N[0] <= points_N[1]).all()  # the smaller is believed where a task of the model says 0
    assert np.isclose(*points_N).mean() > 0.9
    again = coherent(mixed.distribution, panel.spec)
    assert np.array_equal(again.point_NM, mixed.distribution.point_NM)
    assert np.array_equal(again.level_GNM, mixed.distribution.level_GNM)
    assert np.array_equal(mixed.series_N, made.series_N)


def test_forecasts_are_near_what_happens(forecaster: Forecaster, panel: Panel, held_out_from: date) -> None:
    found = forecaster.predict(panel, held_out_from)
    actual_NM = targets_Nm(panel, panel.index_of(held_out_from), found.series_N)
    error = np.abs(actual_NM - found.distribution.point_NM).sum(0) / actual_NM.sum(0)
    assert (error < 0.6).all()


def test_another_data_set_is_refused(forecaster: Forecaster, panel: Panel) -> None:
    other = replace(panel, spec=replace(panel.spec, horizons_days=(14,)))
    with pytest.raises(ValueError, match="not those the model was trained on"):
        forecaster.predict(other, panel.last_day)
    with pytest.raises(ValueError, match="outside the panel"):
        forecaster.predict(panel, panel.last_day + timedelta(days=1))


def test_a_model_folder_of_another_version_is_refused(forecaster: Forecaster, tmp_path: Path) -> None:
    folder = forecaster.save(tmp_path / "model")
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stored | {"format_version": 99}))
    with pytest.raises(ValueError, match="format_version 99; this code reads 5"):
        Forecaster.load(folder)
    smaller = stored["model_config"] | {"width": 8}
    (folder / "config.json").write_text(json.dumps(stored | {"model_config": smaller}))
    with pytest.raises(ValueError, match="does not fit config"):
        Forecaster.load(folder)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("levels", "levels is of 2 targets, not 3"),
        ("calibrations", "calibration mean_28 is of 2 targets, not 3"),
        ("pacing", "pacing by weekday is of 2 tasks, not 3"),
        ("shared", "shared is of 2 targets, not 3"),
        ("blend", "blend is of 2 targets, not 3"),
        ("young_blend", "young_blend takes from nobody"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(
    forecaster: Forecaster, tmp_path: Path, part: str, words: str
) -> None:
    share, other = Share("tsb", 0.5), Share("nobody", 0.5)
    whole = replace(
        forecaster, blend=Blend((share,) * 3, {"search": (share,) * 3}), young_blend=Blend((other,) * 3, {})
    )
    folder = (whole if part == "young_blend" else replace(whole, young_blend=None)).save(tmp_path / "model")
    stored = json.loads((folder / "config.json").read_text())
    shorter = {
        "levels": lambda values: values["young_ratio_M"].pop(),
        "calibrations": lambda values: values["mean_28"]["floor_M"].pop(),
        "pacing": lambda values: values["own_T"].pop(),
        "shared": lambda values: values["targets"].pop(),
        "blend": lambda values: values["scenarios"]["search"].pop(),
        "young_blend": lambda values: None,
    }
    shorter[part](stored[part])
    (folder / "config.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=f"its parts do not fit together: {words}"):
        Forecaster.load(folder)


def test_a_model_of_before_there_were_paths_has_even_ones(forecaster: Forecaster, panel: Panel, tmp_path: Path) -> None:
    folder = forecaster.save(tmp_path / "old")
    stored = json.loads((folder / "config.json").read_text())
    assert Pacing.from_dict(stored.pop("pacing")) == forecaster.pacing != Pacing.even(panel.spec)
    (folder / "config.json").write_text(json.dumps(stored))
    old = Forecaster.load(folder)
    assert old.pacing == Pacing.even(panel.spec)
    found = daily_path(old.predict(panel, panel.last_day), panel, old.pacing)
    amount_RD = found.filter(pc.equal(found["task"], "clicks"))["expected"].to_numpy().reshape(-1, 7)
    np.testing.assert_allclose(amount_RD, amount_RD.mean(1, keepdims=True) * np.ones(7), rtol=0.02)
