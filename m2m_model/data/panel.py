"""Sequence rows as dense blocks of series and days, and the files that map them into memory.

N series (advertiser x scenario), T days, P performance metrics, F behavior columns, A advertisers, M tasks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from m2m_model.arrays import Floats, Ints, Strings
from m2m_model.data.spec import SequenceSpec, daily_totals
from m2m_model.files import replaced_folder

CHUNK = 4096  # series held in memory at a time when a whole panel is walked

_EPOCH = date(1970, 1, 1)
_ABSURD = 1e30  # larger magnitudes are cut here: float32 sums stay finite


@dataclass(frozen=True)
class Panel:
    """N series over T days that end at ``last_day``.

    ``performance_NTP`` and ``behavior_NTF`` are float32 with NaN where there is no row; ``registered_N`` is the index
    of each series' first possible day (below 0: before the panel). ``keys`` holds advertiser_id, scenario_id and the
    attributes, one row per series.
    """

    spec: SequenceSpec
    last_day: date
    performance_NTP: Floats
    behavior_NTF: Floats
    registered_N: Ints
    keys: pa.Table

    def __len__(self) -> int:
        return int(self.performance_NTP.shape[0])

    @property
    def days(self) -> int:
        return int(self.performance_NTP.shape[1])

    @cached_property
    def advertiser_index_N(self) -> Ints:
        """Row of each series' advertiser in ``advertiser_total_ATM``."""
        return np.asarray(np.unique(self.advertiser_N.astype(str), return_inverse=True)[1])

    @cached_property
    def advertiser_total_ATM(self) -> Floats:
        """Daily totals of A advertisers over all their scenarios. A bucket holds all series of an advertiser."""
        advertisers = int(self.advertiser_index_N.max(initial=-1)) + 1
        total_ATM = np.zeros((advertisers, self.days, len(self.spec.tasks)), np.float32)
        for start in range(0, len(self), CHUNK):
            rows = slice(start, start + CHUNK)
            daily_NTM = daily_totals(self.performance_NTP[rows], self.spec).astype(np.float32)
            np.add.at(total_ATM, self.advertiser_index_N[rows], daily_NTM)
        return total_ATM

    @property
    def first_day(self) -> date:
        return self.last_day - timedelta(days=self.days - 1)

    @property
    def advertiser_N(self) -> Strings:
        return _strings(self.keys, "advertiser_id")

    @property
    def scenario_N(self) -> Strings:
        return _strings(self.keys, "scenario_id")

    def index_of(self, day: date) -> int:
        """The day's index in T.

        Raises:
            ValueError: the day is outside the panel.
        """
        index = (day - self.first_day).days
        if not 0 <= index < self.days:
            raise ValueError(f"{day} is outside the panel {self.first_day} .. {self.last_day}")
        return index

    def day_of(self, index: int) -> date:
        """The inverse of ``index_of``."""
        return self.first_day + timedelta(days=index)

    @classmethod
    def from_sequences(cls, table: pa.Table, spec: SequenceSpec, last_day: date, days: int) -> Panel:
        """Scatter sequence rows (features.advertiser_sequence) into a dense block; rows outside it are ignored.

        Raises:
            ValueError: a metric's list is not as long as its list of days.
        """
        first = (last_day - _EPOCH).days - days + 1
        series, position = _list_positions(table, "day", first)
        first_row_N = np.full(table.num_rows, np.iinfo(np.int32).max, np.int64)
        np.minimum.at(first_row_N, series, position)
        registered_N = _registered(table, first)
        registered_N = np.minimum(registered_N, first_row_N)
        performance_NTP = _scatter(table, spec.metrics, "day", series, position, days)
        if spec.behaviors:
            series, position = _list_positions(table, "behavior_day", first)
        behavior_NTF = _scatter(table, spec.behaviors, "behavior_day", series, position, days)
        names = ["advertiser_id", "scenario_id", *spec.advertiser_attributes, *spec.scenario_attributes]
        keys = pa.table({name: table[name].cast(pa.string()) for name in dict.fromkeys(names)})
        limit = np.iinfo(np.int32)
        registered_N = np.clip(registered_N, limit.min, limit.max).astype(np.int32)
        return cls(spec, last_day, performance_NTP, behavior_NTF, registered_N, keys)

    def save(self, folder: Path | str) -> Path:
        """Write the panel as .npy files that ``open`` maps into memory; the folder appears whole or not at all."""
        folder = Path(folder)
        with replaced_folder(folder) as partial:
            np.save(partial / "performance.npy", self.performance_NTP)
            np.save(partial / "behavior.npy", self.behavior_NTF)
            np.save(partial / "registered.npy", self.registered_N)
            np.save(partial / "advertiser_total.npy", self.advertiser_total_ATM)
            keys = self.keys
            with pa.OSFile(str(partial / "keys.arrow"), "wb") as sink, pa.ipc.new_file(sink, keys.schema) as writer:
                writer.write_table(keys)
            header = {"spec": self.spec.to_dict(), "last_day": self.last_day.isoformat()}
            (partial / "panel.json").write_text(json.dumps(header), encoding="utf-8")
        return folder

    @classmethod
    def open(cls, folder: Path | str) -> Panel:
        """Map a saved panel; nothing but the keys is read until it is used."""
        folder = Path(folder)
        header = json.loads((folder / "panel.json").read_text(encoding="utf-8"))
        with pa.memory_map(str(folder / "keys.arrow")) as source:
            keys = pa.ipc.open_file(source).read_all()
        panel = cls(
            SequenceSpec.from_dict(header["spec"]),
            date.fromisoformat(header["last_day"]),
            _mapped(folder / "performance.npy"),
            _mapped(folder / "behavior.npy"),
            _mapped(folder / "registered.npy"),
            keys,
        )
        # Mapped instead of computed: at a million advertisers this is a gigabyte.
        vars(panel)["advertiser_total_ATM"] = _mapped(folder / "advertiser_total.npy")
        return panel


def _strings(table: pa.Table, name: str) -> Strings:
    return np.asarray(table[name].to_numpy(zero_copy_only=False), dtype=object)


def _mapped(file: Path) -> NDArray[Any]:
    """An array that stays in its file. NumPy's own map would hold a descriptor, of which a process may have 1,024 where
    nobody asked for more: four a bucket, for as long as it trains."""
    if file.stat().st_size <= 4096:
        return np.asarray(np.load(file))
    with pa.memory_map(str(file)) as source:
        np.lib.format.read_magic(source)
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(source)
        array = np.frombuffer(source.read_buffer(), dtype)
    return array.reshape(shape, order="F" if by_column else "C")


def _list_column(table: pa.Table, name: str) -> pa.Array:
    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return column


def _list_positions(table: pa.Table, name: str, first: int) -> tuple[Ints, Ints]:
    """(series, index in T) of every listed day; indices outside 0..T-1 are still among them."""
    column = _list_column(table, name)
    length_N = np.asarray(pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False), np.int64)
    series = np.repeat(np.arange(len(length_N)), length_N)
    return series, np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.int64) - first


def _scatter(
    table: pa.Table, names: Sequence[str], day_name: str, series: Ints, position: Ints, days: int
) -> NDArray[np.float32]:
    block = np.full((table.num_rows, days, len(names)), np.nan, np.float32)
    inside = (position >= 0) & (position < days) if names else np.zeros(0, bool)
    for column, name in enumerate(names):
        values = _list_column(table, name).flatten().to_numpy(zero_copy_only=False)
        if len(values) != len(position):
            raise ValueError(f"column {name} lists {len(values)} values for {len(position)} days in {day_name}")
        block[series[inside], position[inside], column] = np.clip(values[inside], -_ABSURD, _ABSURD)
    return block


def _registered(table: pa.Table, first: int) -> Ints:
    days = pc.cast(table["registered_on"], pa.date32()).cast(pa.int32())
    registered_N = np.asarray(pc.fill_null(days, np.iinfo(np.int32).max).to_numpy(), np.int64)
    return np.asarray(registered_N - first)
