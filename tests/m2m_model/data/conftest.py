"""A series of one's own."""

from collections.abc import Callable
from datetime import date

import pyarrow as pa
import pytest

from m2m_model.data.spec import SequenceSpec

EPOCH = date(1970, 1, 1)


@pytest.fixture
def one_series(spec: SequenceSpec) -> Callable[[date | None, dict[date, float]], pa.Table]:
    """Sequence rows of one series, from its registration and its clicks; spend is twice those."""

    def sequence(registered_on: date | None, days: dict[date, float]) -> pa.Table:
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

    return sequence
