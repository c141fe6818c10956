from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from m2m_model.config import Task
from m2m_model.data.features import FIRST_BIN, MISSING, NOT_REGISTERED, ZERO, Inputs, fit_inputs
from m2m_model.data.panel import Panel
from m2m_model.data.served_by import (
    COLD_START,
    NETWORK,
    NOBODY,
    SILENT,
    eligible,
    history_days,
    served_by,
    trainable_NT,
)
from m2m_model.data.spec import SequenceSpec
from m2m_model.data.statistics import PanelStatistics
from m2m_model.data.targets import targets_Nm

EPOCH = date(1970, 1, 1)


def sequence(spec: SequenceSpec, registered_on: date | None, days: dict[date, float]) -> pa.Table:
    """One series with clicks on ``days`` and spend twice that."""
    columns = {
        "advertiser_id": ["a"],
        "scenario_id": ["s"],
        "registered_on": pa.array([registered_on], pa.date32()),
        "day": pa.array([[(d - EPOCH).days for d in days]], pa.list_(pa.int32())),
        "clicks": pa.array([list(days.values())], pa.list_(pa.float64())),
        "spend": pa.array([[2 * v for v in days.values()]], pa.list_(pa.float64())),
        "behavior_day": pa.array([[]], pa.list_(pa.int32())),
        "logins": pa.array([[]], pa.list_(pa.float64())),
        "industry": pa.array([None], pa.string()),
        "surface": ["text"],
    }
    return pa.table(columns)


def brute_force_targets(table: pa.Table, cutoff: date, horizon: int) -> list[list[float]]:
    totals = []
    for row in table.to_pylist():
        inside = [i for i, d in enumerate(row["day"]) if 0 < d - (cutoff - EPOCH).days <= horizon]
        spend = sum(row["spend"][i] for i in inside)
        clicks = sum(row["clicks"][i] for i in inside)
        totals.append([spend, clicks, sum(row["clicks"][i] > 0 or row["spend"][i] > 0 for i in inside)])
    return totals


def test_zero_missing_and_not_registered_have_their_own_codes(spec: SequenceSpec) -> None:
    day = date(2024, 3, 1)
    clicks = {day + timedelta(days=2): 0.0, day + timedelta(days=4): 5.0}
    panel = Panel.from_sequences(sequence(spec, day + timedelta(days=1), clicks), spec, day + timedelta(days=5), 6)
    inputs = fit_inputs(PanelStatistics.of(panel, panel.last_day), bins=4)
    windows = inputs.windows(panel, inputs.profile(panel), np.array([0]), np.array([5]))
    codes = windows.performance_BLP[0, -6:, 0]
    assert codes[[0, 1, 2, 3, 5]].tolist() == [NOT_REGISTERED, MISSING, ZERO, MISSING, MISSING]
    assert codes[4] >= FIRST_BIN
    assert (windows.performance_BLP[0, :-6] == NOT_REGISTERED).all()
    assert windows.registered_BL[0, -6:].tolist() == [False, True, True, True, True, True]


def test_targets_equal_brute_force_at_every_cutoff(panel: Panel, make_table) -> None:
    table = make_table()
    for cutoff in (0, 1, 40, panel.days - 8):
        expected = brute_force_targets(table, panel.day_of(cutoff), 7)
        np.testing.assert_allclose(targets_Nm(panel, cutoff), expected, rtol=1e-5)


def test_windows_show_exactly_the_listed_days(panel: Panel, inputs: Inputs, make_table) -> None:
    table = make_table().to_pylist()
    series, cutoffs = np.array([0, 1, 5, 7, 21, 33]), np.array([119, 0, 27, 60, 90, 13])
    windows = inputs.windows(panel, inputs.profile(panel), series, cutoffs)
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


def test_horizon_beyond_the_panel_is_refused(panel: Panel) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        targets_Nm(panel, panel.days - 7)


def test_rows_outside_the_block_are_ignored_and_move_only_the_registration(spec: SequenceSpec) -> None:
    day = date(2024, 3, 10)
    days = {day - timedelta(days=20): 1.0, day: 2.0, day + timedelta(days=1): 3.0}
    panel = Panel.from_sequences(sequence(spec, day - timedelta(days=20), days), spec, day, 5)
    assert panel.registered_N.tolist() == [-16]
    assert np.nansum(panel.performance_NTP[0, :, 0]) == 2.0
    assert history_days(panel, 4).tolist() == [21]


def test_without_registration_date_the_first_row_counts(spec: SequenceSpec) -> None:
    day = date(2024, 3, 10)
    panel = Panel.from_sequences(sequence(spec, None, {day: 2.0}), spec, day + timedelta(days=1), 5)
    assert panel.registered_N.tolist() == [3]
    empty = Panel.from_sequences(sequence(spec, None, {}), spec, day, 5)
    assert not eligible(empty, 4).any()
    assert (served_by(empty, 4) == NOBODY).all()


def test_who_serves_changes_at_the_edges(spec: SequenceSpec) -> None:
    """One row on the first day: the rule for a week, the network while the row is recent, then silence."""
    day = date(2024, 3, 1)
    table = sequence(spec, day, {day: 1.0})
    for early in (0, 1, 40):  # days of the panel before the registration
        panel = Panel.from_sequences(table, spec, day + timedelta(days=40), 41 + early)
        served = [int(served_by(panel, early + c)[0]) for c in (0, 5, 6, 27, 28, 40)]
        assert served == [COLD_START, COLD_START, NETWORK, NETWORK, SILENT, SILENT]
        assert [served_by(panel, d)[0] for d in range(early)] == [NOBODY] * early


def test_trainable_agrees_with_eligible_and_age(panel: Panel) -> None:
    mask_NT = trainable_NT(panel, 100, 14)
    for cutoff in (0, 12, 13, 27, 28, 55, 100):
        age_N = np.minimum(history_days(panel, cutoff), cutoff + 1)
        assert (mask_NT[:, cutoff] == (eligible(panel, cutoff) & (age_N >= 14))).all()
    assert not mask_NT[:, 101:].any()


def test_lists_of_unequal_length_are_refused(spec: SequenceSpec) -> None:
    day = date(2024, 3, 10)
    table = sequence(spec, day, {day: 1.0})
    table = table.set_column(table.column_names.index("spend"), "spend", [[[1.0, 2.0]]])
    with pytest.raises(ValueError, match="column spend lists 2 values for 1 days"):
        Panel.from_sequences(table, spec, day, 5)


def test_saved_panel_opens_the_same(panel: Panel, tmp_path) -> None:
    panel.save(tmp_path / "p")
    opened = Panel.open(panel.save(tmp_path / "p"))
    np.testing.assert_array_equal(opened.performance_NTP, panel.performance_NTP)
    np.testing.assert_array_equal(opened.registered_N, panel.registered_N)
    assert opened.keys.equals(panel.keys)
    assert (opened.spec, opened.last_day) == (panel.spec, panel.last_day)


def test_statistics_add_up_over_panels(make_table, spec: SequenceSpec, last_day: date) -> None:
    table = make_table()
    whole = PanelStatistics.of(Panel.from_sequences(table, spec, last_day, 120), last_day)
    halves = [
        PanelStatistics.of(Panel.from_sequences(part, spec, last_day, 120), last_day)
        for part in (table[:25], table[25:])
    ]
    together = halves[0] + halves[1]
    np.testing.assert_array_equal(whole.value_counts, together.value_counts)
    assert whole.scenario_counts == together.scenario_counts
    assert whole.target_count == together.target_count
    np.testing.assert_allclose(whole.target_sum_M, together.target_sum_M)


def test_task_scale_is_the_mean_total_of_eligible_series(panel: Panel, last_day: date) -> None:
    totals = [targets_Nm(panel, c)[eligible(panel, c)] for c in range(panel.days - 8, -1, -7)]
    expected = np.concatenate(totals).mean(0)
    np.testing.assert_allclose(fit_inputs(PanelStatistics.of(panel, last_day)).task_scales, expected, rtol=1e-5)


def test_statistics_stop_at_train_end(panel: Panel, last_day: date) -> None:
    end = last_day - timedelta(days=40)
    changed = panel.performance_NTP.copy()
    changed[:, -40:] = 1e9
    later = replace(panel, performance_NTP=changed)
    assert fit_inputs(PanelStatistics.of(panel, end)) == fit_inputs(PanelStatistics.of(later, end))


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


def test_vocabulary_keeps_the_most_frequent(panel: Panel, last_day: date) -> None:
    statistics = PanelStatistics.of(panel, last_day)
    statistics.scenario_counts.update({f"rare{i:04d}": 1 for i in range(2000)})
    inputs = fit_inputs(statistics)
    assert len(inputs.scenarios) == 1000
    assert set(inputs.scenarios[:2]) == {"search", "feed"}


def test_negative_and_absurd_values_do_not_crash(spec: SequenceSpec) -> None:
    day = date(2024, 3, 10)
    values = {day + timedelta(days=i): v for i, v in enumerate([-5.0, 1e300, float("inf"), float("nan"), 1e-300, 3.0])}
    panel = Panel.from_sequences(sequence(spec, day, values), spec, day + timedelta(days=20), 21)
    inputs = fit_inputs(PanelStatistics.of(panel, panel.last_day))
    windows = inputs.windows(panel, inputs.profile(panel), np.array([0]), np.array([10]))
    assert np.isfinite(windows.dense_BD).all()
    assert windows.performance_BLP.max() < inputs.codes
    assert np.isfinite(targets_Nm(panel, 0)).all()


def test_dense_features_have_the_declared_width(panel: Panel, inputs: Inputs) -> None:
    windows = inputs.windows(panel, inputs.profile(panel), np.arange(5), np.full(5, 50))
    assert windows.dense_BD.shape == (5, inputs.dense_features)


def test_a_longer_panel_gives_the_same_windows(make_table, spec: SequenceSpec, last_day: date, inputs: Inputs) -> None:
    long, short = (Panel.from_sequences(make_table(), spec, last_day, days) for days in (120, spec.lookback_days))
    series = np.arange(len(long))
    for name, array in vars(
        inputs.windows(long, inputs.profile(long), series, np.full(len(long), long.days - 1))
    ).items():
        other = inputs.windows(short, inputs.profile(short), series, np.full(len(long), short.days - 1))
        np.testing.assert_array_equal(array, getattr(other, name), err_msg=name)


def test_spec_refuses_a_task_on_an_unknown_metric(spec: SequenceSpec) -> None:
    with pytest.raises(ValueError, match='metric "views" is not one of clicks, spend'):
        replace(spec, tasks=(Task("views", "views", "sum"),))
    assert SequenceSpec.from_dict(spec.to_dict()) == spec


def test_empty_panel(make_table, spec: SequenceSpec, last_day: date) -> None:
    panel = Panel.from_sequences(make_table(0), spec, last_day, 60)
    assert len(panel) == 0
    assert targets_Nm(panel, 10).shape == (0, 3)
    assert fit_inputs(PanelStatistics.of(panel, last_day)).task_scales == (1.0, 1.0, 1.0)


def test_an_advertisers_total_is_the_sum_over_its_scenarios_mapped_or_not(panel: Panel, tmp_path: Path) -> None:
    shared = panel.keys.set_column(0, "advertiser_id", [["one" if row < 3 else f"a{row}" for row in range(len(panel))]])
    joined = replace(panel, keys=shared)
    expected = np.nan_to_num(joined.performance_NTP[:3]).sum(0)
    total_TM = joined.advertiser_total_ATM[joined.advertiser_index_N[0]]
    np.testing.assert_allclose(total_TM[:, 0], expected[:, 1], rtol=1e-5)  # spend
    np.testing.assert_allclose(total_TM[:, 1], expected[:, 0], rtol=1e-5)  # clicks
    opened = Panel.open(joined.save(tmp_path / "panel"))
    np.testing.assert_array_equal(opened.advertiser_total_ATM, joined.advertiser_total_ATM)
    assert (opened.advertiser_index_N == joined.advertiser_index_N).all()


def test_what_an_advertiser_does_elsewhere_reaches_its_other_scenario(panel: Panel, inputs: Inputs) -> None:
    keys = panel.keys.set_column(0, "advertiser_id", [["one" if row < 2 else f"a{row}" for row in range(len(panel))]])
    joined, profile = replace(panel, keys=keys), inputs.profile(panel)
    series, cutoff = np.array([0]), np.array([80])
    more = joined.performance_NTP.copy()
    more[1, 70:80] = 500.0
    dense = [
        inputs.windows(p, profile, series, cutoff).dense_BD for p in (joined, replace(joined, performance_NTP=more))
    ]
    assert not np.allclose(*dense)
    more[1, 81:] = 1e9  # but nothing after the cutoff does
    again = inputs.windows(replace(joined, performance_NTP=more), profile, series, cutoff).dense_BD
    np.testing.assert_array_equal(again, dense[1])
