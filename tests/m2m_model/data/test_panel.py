import os
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from m2m_model.data.features import fit_inputs
from m2m_model.data.grid import NOTHING, from_grid
from m2m_model.data.panel import Panel, lead
from m2m_model.data.served_by import (
    history_days,
)
from m2m_model.data.spec import SequenceSpec
from m2m_model.data.statistics import PanelStatistics
from m2m_model.data.targets import targets_Nm


def test_rows_outside_the_block_are_ignored_and_move_only_the_registration(spec: SequenceSpec, one_series) -> None:
    day = date(2024, 3, 10)
    days = {day - timedelta(days=20): 1.0, day: 2.0, day + timedelta(days=1): 3.0}
    panel = Panel.from_sequences(one_series(day - timedelta(days=20), days), spec, day, 5)
    assert panel.registered_N.tolist() == [-16]
    point_T = panel.performance_NTP[0, :, 0]
    assert from_grid(point_T[point_T != NOTHING]).tolist() == [2.0]
    assert panel.daily_NTM[0, :, 1].tolist() == [0, 0, 0, 0, 2]  # clicks
    assert history_days(panel, 4).tolist() == [21]


def test_lists_of_unequal_length_are_refused(spec: SequenceSpec, one_series) -> None:
    day = date(2024, 3, 10)
    table = one_series(day, {day: 1.0})
    table = table.set_column(table.column_names.index("spend"), "spend", [[[1.0, 2.0]]])
    with pytest.raises(ValueError, match="column spend lists 2 values for 1 days"):
        Panel.from_sequences(table, spec, day, 5)


def test_saved_panel_opens_the_same(panel: Panel, tmp_path) -> None:
    panel.save(tmp_path / "p")
    opened = Panel.open(panel.save(tmp_path / "p"))
    for name in ("performance_XP", "behavior_XF", "daily_XM", "advertiser_total_YM", "registered_N"):
        np.testing.assert_array_equal(getattr(opened, name), getattr(panel, name), err_msg=name)
    assert opened.keys.equals(panel.keys)
    assert (opened.spec, opened.last_day, opened.days) == (panel.spec, panel.last_day, panel.days)


def test_rows_and_values_make_the_same_panel(panel: Panel, changed: Callable[..., Panel]) -> None:
    again = changed(lambda performance_NTP, behavior_NTF: None)
    assert (panel.performance_NTP == NOTHING).any()
    assert (panel.performance_NTP == 0).any()
    for name in ("performance_XP", "behavior_XF", "daily_XM", "registered_N"):
        one, other = getattr(again, name), getattr(panel, name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other, err_msg=name)


def test_an_open_panel_holds_no_descriptor(panel: Panel, tmp_path: Path) -> None:
    """A rank has hundreds of them open."""
    folder = panel.save(tmp_path / "panel")
    mapped = [file.name for file in folder.glob("*.npy") if file.stat().st_size > 4096]
    before = len(os.listdir("/proc/self/fd"))
    opened = [Panel.open(folder) for _ in range(20)]
    assert mapped
    assert len(os.listdir("/proc/self/fd")) == before
    assert np.array_equal(opened[0].performance_XP, panel.performance_XP)
    assert not opened[0].performance_XP.flags.writeable  # in the file, not read


def test_empty_panel(make_table, spec: SequenceSpec, last_day: date) -> None:
    panel = Panel.from_sequences(make_table(0), spec, last_day, 60)
    assert len(panel) == 0
    assert targets_Nm(panel, 10).shape == (0, 3)
    assert fit_inputs(PanelStatistics.of(panel, last_day)).target_scales == (1.0, 1.0, 1.0)


def test_an_advertisers_total_is_the_sum_over_its_scenarios_mapped_or_not(
    panel: Panel, values: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    shared = panel.keys.set_column(0, "advertiser_id", [["one" if row < 3 else f"a{row}" for row in range(len(panel))]])
    joined = replace(panel, keys=shared)
    expected = np.nan_to_num(values[0][:3]).sum(0)
    total_ATM = joined.advertiser_total_YM[lead(panel.spec) :].reshape(-1, panel.days, 3)
    total_TM = total_ATM[joined.advertiser_index_N[0]]
    np.testing.assert_allclose(total_TM[:, 0], expected[:, 1], rtol=1e-5)  # spend
    np.testing.assert_allclose(total_TM[:, 1], expected[:, 0], rtol=1e-5)  # clicks
    opened = Panel.open(joined.save(tmp_path / "panel"))
    np.testing.assert_array_equal(opened.advertiser_total_YM, joined.advertiser_total_YM)
    assert (opened.advertiser_index_N == joined.advertiser_index_N).all()
