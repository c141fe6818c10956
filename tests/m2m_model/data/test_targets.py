from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from m2m_model.data.panel import Panel
from m2m_model.data.targets import targets_Nm

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


def test_horizon_beyond_the_panel_is_refused(panel: Panel) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        targets_Nm(panel, panel.days - 7)
