from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa
import pytest
import torch

from m2m_model.data.features import fit_inputs
from m2m_model.data.panel import Panel
from m2m_model.data.statistics import PanelStatistics
from m2m_model.data.targets import targets_at, targets_Nm
from m2m_model.network.windows import Days

EPOCH = date(1970, 1, 1)


def brute_force_targets(table: pa.Table, cutoff: date, horizon: int) -> list[list[float]]:
    totals = []
    for row in table.to_pylist():
        inside = [i for i, d in enumerate(row["day"]) if 0 < d - (cutoff - EPOCH).days <= horizon]
        spend = sum(row["spend"][i] for i in inside)
        clicks = sum(row["clicks"][i] for i in inside)
        totals.append([spend, clicks, sum(row["clicks"][i] > 0 or row["spend"][i] > 0 for i in inside)])
    return totals


def test_targets_equal_brute_force_at_every_cutoff(panel: Panel, make_table) -> None:
    table = make_table()
    for cutoff in (0, 1, 40, panel.days - 8):
        expected = brute_force_targets(table, panel.day_of(cutoff), 7)
        np.testing.assert_allclose(targets_Nm(panel, cutoff), expected, rtol=1e-5)


def test_each_horizon_is_a_column_of_its_own_beside_the_others_of_its_task(panel: Panel, make_table) -> None:
    table, horizons, cutoff = make_table(), (1, 7, 14), 40
    several = replace(panel, spec=replace(panel.spec, horizons_days=horizons))
    expected = np.stack([brute_force_targets(table, panel.day_of(cutoff), days) for days in horizons], 2)
    found = targets_Nm(several, cutoff)
    np.testing.assert_allclose(found, expected.reshape(len(panel), -1), rtol=1e-5)
    names = [(target.name, target.horizon_days) for target in several.spec.targets]
    assert names[:4] == [("spend", 1), ("spend", 7), ("spend", 14), ("clicks", 1)]
    assert several.spec.titles[:2] == ("spend 1d", "spend 7d")
    assert panel.spec.titles == ("spend", "clicks", "active_days")
    series, days = (
        np.arange(len(panel)),
        Days.of(several, fit_inputs(PanelStatistics.of(several, panel.last_day)).profile(several), torch.device("cpu")),
    )
    np.testing.assert_allclose(targets_at(several, series, np.full(len(series), cutoff)), found)
    on_device = days.totals_after(torch.from_numpy(series), torch.full((len(series),), cutoff))
    np.testing.assert_allclose(on_device.numpy(), found, rtol=1e-5)
    with pytest.raises(ValueError, match="must lie in"):
        targets_Nm(several, panel.days - 14)


def test_horizon_beyond_the_panel_is_refused(panel: Panel) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        targets_Nm(panel, panel.days - 7)
