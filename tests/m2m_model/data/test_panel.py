import os
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from m2m_model.data.features import fit_inputs
from m2m_model.data.panel import Panel
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
    assert np.nansum(panel.performance_NTP[0, :, 0]) == 2.0
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
    np.testing.assert_array_equal(opened.performance_NTP, panel.performance_NTP)
    np.testing.assert_array_equal(opened.registered_N, panel.registered_N)
    assert opened.keys.equals(panel.keys)
    assert (opened.spec, opened.last_day) == (panel.spec, panel.last_day)


def test_an_open_panel_holds_no_descriptor(panel: Panel, tmp_path: Path) -> None:
    """A rank has hundreds of them open."""
    folder = panel.save(tmp_path / "panel")
    mapped = [file.name for file in folder.glob("*.npy") if file.stat().st_size > 4096]
    before = len(os.listdir("/proc/self/fd"))
    opened = [Panel.open(folder) for _ in range(20)]
    assert mapped
    assert len(os.listdir("/proc/self/fd")) == before
    assert np.array_equal(opened[0].performance_NTP, panel.performance_NTP, equal_nan=True)
    assert opened[0].performance_NTP.base is not None  # in the file, not read


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
