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
from m2m_model.network.model import Batch
from m2m_model.network.windows import Days, Windows

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
        horizons_days=(7,),
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
def take(make_table: Callable[..., pa.Table], spec: SequenceSpec, last_day: date) -> Callable[[object], Panel]:
    """Some of the panel's series, as a panel of their own."""
    return lambda rows: Panel.from_sequences(make_table().take(np.arange(60)[rows]), spec, last_day, DAYS)


@pytest.fixture(scope="session")
def values(make_table: Callable[..., pa.Table], spec: SequenceSpec) -> tuple[np.ndarray, np.ndarray]:
    """What the panel is made of by series and day, NaN where there is no row: performance and behavior."""
    rows, first = make_table().to_pylist(), (FIRST_DAY - EPOCH).days
    blocks = []
    for day, names in (("day", spec.metrics), ("behavior_day", spec.behaviors)):
        block_NTc = np.full((len(rows), DAYS, len(names)), np.nan)
        for series, row in enumerate(rows):
            for column, name in enumerate(names):
                block_NTc[series, np.array(row[day], int) - first, column] = row[name]
        blocks.append(block_NTc)
    return blocks[0], blocks[1]


@pytest.fixture(scope="session")
def changed(panel: Panel, values: tuple[np.ndarray, np.ndarray]) -> Callable[..., Panel]:
    """The panel, made anew of values that a function changed in place."""

    def build(change: Callable[[np.ndarray, np.ndarray], None]) -> Panel:
        performance_NTP, behavior_NTF = (block_NTc.copy() for block_NTc in values)
        change(performance_NTP, behavior_NTF)
        return Panel.of_values(
            panel.spec, panel.last_day, performance_NTP, behavior_NTF, panel.registered_N, panel.keys
        )

    return build


@pytest.fixture(scope="session")
def windows_of() -> Callable[..., Batch]:
    """What the network reads of a panel's series at cutoffs."""

    def build(inputs: Inputs, panel: Panel, series: np.ndarray, cutoff: np.ndarray) -> Batch:
        cpu = torch.device("cpu")
        days = Days.of(panel, inputs.profile(panel), cpu)
        return Windows(inputs, cpu).of(days.runs(torch.from_numpy(series), torch.from_numpy(cutoff)))

    return build


@pytest.fixture(scope="session")
def inputs(panel: Panel, last_day: date) -> Inputs:
    return fit_inputs(PanelStatistics.of(panel, last_day - timedelta(days=30)), bins=8)
