from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import torch

from m2m_model.data.features import FIRST_BIN, MISSING, NOT_REGISTERED, ZERO, Inputs, fit_inputs
from m2m_model.data.panel import Panel
from m2m_model.data.spec import SequenceSpec
from m2m_model.data.statistics import PanelStatistics
from m2m_model.data.targets import targets_Nm

EPOCH = date(1970, 1, 1)


def test_zero_missing_and_not_registered_have_their_own_codes(spec: SequenceSpec, one_series, windows_of) -> None:
    day = date(2024, 3, 1)
    clicks = {day + timedelta(days=2): 0.0, day + timedelta(days=4): 5.0}
    panel = Panel.from_sequences(one_series(day + timedelta(days=1), clicks), spec, day + timedelta(days=5), 6)
    inputs = fit_inputs(PanelStatistics.of(panel, panel.last_day), bins=4)
    windows = windows_of(inputs, panel, np.array([0]), np.array([5]))
    codes = windows.performance_BLP[0, -6:, 0]
    assert codes[[0, 1, 2, 3, 5]].tolist() == [NOT_REGISTERED, MISSING, ZERO, MISSING, MISSING]
    assert codes[4] >= FIRST_BIN
    assert (windows.performance_BLP[0, :-6] == NOT_REGISTERED).all()
    assert windows.registered_BL[0, -6:].tolist() == [False, True, True, True, True, True]


def test_windows_show_exactly_the_listed_days(panel: Panel, inputs: Inputs, make_table, windows_of) -> None:
    table = make_table().to_pylist()
    series, cutoffs = np.array([0, 1, 5, 7, 21, 33]), np.array([119, 0, 27, 60, 90, 13])
    windows = windows_of(inputs, panel, series, cutoffs)
    for row, (index, cutoff) in enumerate(zip(series, cutoffs, strict=True)):
        source = table[index]
        listed = dict(zip(source["day"], source["clicks"], strict=True))
        for back in range(panel.spec.window_days):
            day = panel.day_of(0) + timedelta(days=int(cutoff) - back)
            value = listed.get((day - EPOCH).days)
            code = windows.performance_BLP[row, -1 - back, 0]
            if day < max(source["registered_on"], panel.first_day):
                assert code == NOT_REGISTERED
            elif value is None:
                assert code == MISSING
            else:
                assert code == ZERO if value == 0 else code >= FIRST_BIN


def test_inputs_survive_json(inputs: Inputs) -> None:
    import json

    assert Inputs.from_dict(json.loads(json.dumps(inputs.to_dict()))) == inputs


def test_unknown_and_null_values_map_to_the_unknown_slot(
    inputs: Inputs, make_table, spec: SequenceSpec, last_day
) -> None:
    table = make_table(4)
    table = table.set_column(1, "scenario_id", [["never seen", "search", "feed", "search"]])
    profile = inputs.profile(Panel.from_sequences(table, spec, last_day, 30))
    assert profile.scenario_N[0] == 0
    assert (profile.scenario_N[1:] > 0).all()
    assert profile.advertiser_attributes_NA[0, 0] == 0  # null industry


def test_negative_and_absurd_values_do_not_crash(spec: SequenceSpec, one_series, windows_of) -> None:
    day = date(2024, 3, 10)
    values = {day + timedelta(days=i): v for i, v in enumerate([-5.0, 1e300, float("inf"), float("nan"), 1e-300, 3.0])}
    panel = Panel.from_sequences(one_series(day, values), spec, day + timedelta(days=20), 21)
    inputs = fit_inputs(PanelStatistics.of(panel, panel.last_day))
    windows = windows_of(inputs, panel, np.array([0]), np.array([10]))
    assert windows.dense_BD.isfinite().all()
    assert windows.performance_BLP.max() < inputs.codes
    assert np.isfinite(targets_Nm(panel, 0)).all()


def test_dense_features_have_the_declared_width(panel: Panel, inputs: Inputs, windows_of) -> None:
    windows = windows_of(inputs, panel, np.arange(5), np.full(5, 50))
    assert windows.dense_BD.shape == (5, inputs.dense_features)


def test_a_longer_panel_gives_the_same_windows(
    make_table, spec: SequenceSpec, last_day: date, inputs: Inputs, windows_of
) -> None:
    long, short = (Panel.from_sequences(make_table(), spec, last_day, days) for days in (120, spec.lookback_days))
    series = np.arange(len(long))
    one, other = (windows_of(inputs, panel, series, np.full(len(long), panel.days - 1)) for panel in (long, short))
    for name, tensor in vars(one).items():
        assert torch.equal(tensor, getattr(other, name)), name


def test_what_an_advertiser_does_elsewhere_reaches_its_other_scenario(
    panel: Panel, inputs: Inputs, changed, windows_of
) -> None:
    keys = panel.keys.set_column(0, "advertiser_id", [["one" if row < 2 else f"a{row}" for row in range(len(panel))]])

    def more(performance_NTP: np.ndarray, _: np.ndarray) -> None:
        performance_NTP[1, 70:80] = 500.0

    def later_too(performance_NTP: np.ndarray, behavior_NTF: np.ndarray) -> None:
        more(performance_NTP, behavior_NTF)
        performance_NTP[1, 81:] = 1e9

    before, after, again = (
        windows_of(inputs, replace(each, keys=keys), np.array([0]), np.array([80])).dense_BD
        for each in (panel, changed(more), changed(later_too))
    )
    assert not torch.allclose(before, after)
    assert torch.equal(again, after)  # nothing after the cutoff does
