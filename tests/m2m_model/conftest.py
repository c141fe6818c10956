"""Small sequence tables, made row by row from a seed, for all tests of the model package."""

from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest
import torch

from m2m_model.config import Task
from m2m_model.data.features import Inputs, fit_inputs
from m2m_model.data.panel import Panel
from m2m_model.data.spec import SequenceSpec
from m2m_model.data.statistics import PanelStatistics

FIRST_DAY = date(2024, 1, 1)
DAYS = 120
EPOCH = date(1970, 1, 1)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tensors this small only lose time between threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def spec() -> SequenceSpec:
    return SequenceSpec(
        metrics=("clicks", "spend"),
        behaviors=("logins",),
        advertiser_attributes=("industry",),
        scenario_attributes=("surface",),
        tasks=(
            Task("spend", "spend", "sum"),
            Task("clicks", "clicks", "sum"),
            Task("active_days", "active", "days"),
        ),
        horizon_days=7,
        window_days=28,
        eligible_days=28,
    )


@pytest.fixture(scope="session")
def make_table() -> Callable[..., pa.Table]:
    """Sequence rows of ``series`` advertisers in two scenarios: gaps, zeros, late starts, silent tails."""

    def build(series: int = 60, days: int = DAYS, seed: int = 0) -> pa.Table:
        rng = np.random.default_rng(seed)
        rows = []
        for index in range(series):
            start = int(rng.integers(0, days - 3)) if index % 3 == 0 else 0
            end = int(rng.integers(start + 1, days)) if index % 7 == 0 else days
            size = float(np.exp(rng.normal(2, 1)))
            listed = [d for d in range(start, end) if rng.random() < 0.7]
            clicks = [float(rng.poisson(size * (0.5 + (d % 7 > 1)))) for d in listed]
            first = (FIRST_DAY - EPOCH).days
            rows.append(
                {
                    "advertiser_id": f"a{index:03d}",
                    "scenario_id": "search" if index % 2 else "feed",
                    "registered_on": FIRST_DAY + timedelta(days=start),
                    "day": [first + d for d in listed],
                    "clicks": clicks,
                    "spend": [0.37 * c for c in clicks],
                    "behavior_day": [first + d for d in listed if d % 5 == 0],
                    "logins": [1.0 for d in listed if d % 5 == 0],
                    "industry": None if index % 11 == 0 else f"i{index % 4}",
                    "surface": "text" if index % 2 else "image",
                }
            )
        lists = {"day": pa.int32(), "behavior_day": pa.int32(), "clicks": pa.float64(), "spend": pa.float64()}
        lists["logins"] = pa.float64()
        names = ["advertiser_id", "scenario_id", "registered_on", *lists, "industry", "surface"]
        types = {name: pa.list_(kind) for name, kind in lists.items()} | {"registered_on": pa.date32()}
        return pa.Table.from_pylist(rows, pa.schema([(name, types.get(name, pa.string())) for name in names]))

    return build


@pytest.fixture(scope="session")
def last_day() -> date:
    return FIRST_DAY + timedelta(days=DAYS - 1)


@pytest.fixture(scope="session")
def panel(make_table: Callable[..., pa.Table], spec: SequenceSpec, last_day: date) -> Panel:
    return Panel.from_sequences(make_table(), spec, last_day, DAYS)


@pytest.fixture(scope="session")
def inputs(panel: Panel, last_day: date) -> Inputs:
    return fit_inputs(PanelStatistics.of(panel, last_day - timedelta(days=30)), bins=8)
