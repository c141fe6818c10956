"""Sequence rows as dense blocks of series and days, and the files that map them into memory.

N series (advertiser x scenario), T days, P performance metrics, F behavior columns, C plans, A advertisers, M tasks.
X = lead + N x T: the days of all series in one row, after ``lead`` days of nothing, so that a window of any series may
begin before its first day and is still a run of this row. Y = lead + A x T, the same of advertisers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from m2m_model.arrays import Bools, Floats, Ints, Numbers, Strings
from m2m_model.data.grid import LARGEST, NOTHING, to_grid
from m2m_model.data.holidays import holidays_ahead
from m2m_model.data.spec import SequenceSpec, daily_columns, daily_totals
from m2m_model.files import replaced_folder

CHUNK = 4096  # series held in memory at a time when a whole panel is walked

_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class DayRows:
    """R rows of series on days, each once: the index in N, the index in T (which may lie outside), a column of values
    a metric, behavior or plan."""

    series_R: Ints
    day_R: Ints
    columns: Sequence[Floats]

    def on(self, rows: Bools) -> DayRows:
        """Some of the rows."""
        return DayRows(self.series_R[rows], self.day_R[rows], [column_R[rows] for column_R in self.columns])


@dataclass(frozen=True)
class Panel:
    """N series over T days that end at ``last_day``.

    ``performance_XP`` and ``behavior_XF`` are points of the grid (``data.grid``), ``NOTHING`` where there is no row;
    ``daily_XM`` is what each day adds to each task, float32. ``future_XC`` is, in points of the grid, what was known at
    the end of each day of the days after it (``spec.plans``), ``NOTHING`` where nothing was. ``registered_N`` is the
    index of each series' first possible day (below 0: before the panel). ``keys`` holds advertiser_id, scenario_id and
    the attributes, one row per series.
    """

    spec: SequenceSpec
    last_day: date
    days: int
    performance_XP: Ints
    behavior_XF: Ints
    daily_XM: Floats
    future_XC: Ints
    registered_N: Ints
    keys: pa.Table

    def __len__(self) -> int:
        return len(self.registered_N)

    @property
    def performance_NTP(self) -> Ints:
        return self._of_series(self.performance_XP)

    @property
    def behavior_NTF(self) -> Ints:
        return self._of_series(self.behavior_XF)

    @property
    def daily_NTM(self) -> Floats:
        return self._of_series(self.daily_XM)

    @property
    def future_NTC(self) -> Ints:
        return self._of_series(self.future_XC)

    def _of_series(self, row_Xc: NDArray[Any]) -> NDArray[Any]:
        return row_Xc[lead(self.spec) :].reshape(len(self), self.days, row_Xc.shape[1])

    @cached_property
    def advertiser_index_N(self) -> Ints:
        """Which of the A advertisers each series is of, in order of appearance."""
        return np.asarray(pc.dictionary_encode(self.keys["advertiser_id"], "encode").combine_chunks().indices)

    @cached_property
    def begun_N(self) -> Ints:
        """The first day with a row of each series' advertiser, in any of its scenarios; T where there is none."""
        first_N = np.full(len(self), self.days)
        for start in range(0, len(self), CHUNK):
            rows = slice(start, start + CHUNK)
            row_NT = (self.performance_NTP[rows] != NOTHING).any(-1)
            first_N[rows] = np.where(row_NT.any(1), row_NT.argmax(1), self.days)
        begun_A = np.full(self.advertiser_index_N.max(initial=-1) + 1, self.days)
        np.minimum.at(begun_A, self.advertiser_index_N, first_N)
        return begun_A[self.advertiser_index_N]

    @cached_property
    def advertiser_total_YM(self) -> Floats:
        """Daily totals of A advertisers over all their scenarios. A bucket holds all series of an advertiser."""
        index_N, daily_NTM = self.advertiser_index_N, self.daily_NTM
        order_N = np.argsort(index_N, kind="stable")
        if (np.diff(index_N) < 0).any():
            daily_NTM = daily_NTM[order_N]
        starts_A = np.flatnonzero(np.diff(index_N[order_N], prepend=-1))
        total_YM = _nothing(len(starts_A), self.days, len(self.spec.tasks), self.spec, np.float32(0))
        if len(starts_A):
            total_YM[lead(self.spec) :] = np.add.reduceat(daily_NTM, starts_A, axis=0).reshape(-1, total_YM.shape[1])
        return total_YM

    @property
    def first_day(self) -> date:
        return self.last_day - timedelta(days=self.days - 1)

    @cached_property
    def advertiser_N(self) -> Strings:
        return _strings(self.keys, "advertiser_id")

    @cached_property
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
    def of_rows(
        cls,
        spec: SequenceSpec,
        last_day: date,
        days: int,
        keys: pa.Table,
        achieved: DayRows,
        acted: DayRows | None = None,
        shared: DayRows | None = None,
        planned: Sequence[DayRows] = (),
    ) -> Panel:
        """From the rows of performance, of behavior and of plans; days outside the panel are left out, save that the
        first row of performance registers a series that was not registered before. ``shared`` rows of behavior are
        added to those of ``acted``; a null adds nothing. Of a plan in several of ``planned`` the last counts.

        Args:
            keys: advertiser_id, scenario_id, registered_on and the attributes of the N series.
        """
        series, limit = keys.num_rows, np.iinfo(np.int32)
        first_row_N = np.full(series, limit.max, np.int64)
        np.minimum.at(first_row_N, achieved.series_R, achieved.day_R)
        registered_N = np.minimum(_registered(keys, days_of(last_day) - days + 1), first_row_N)

        def scattered(
            at_R: Ints, columns: Sequence[Floats], point: Callable[[Floats], Numbers], nothing: Any
        ) -> NDArray[Any]:
            row_Xc = _nothing(series, days, len(columns), spec, nothing)
            for column_X, value_R in zip(row_Xc.T, columns, strict=True):
                column_X[at_R] = point(value_R)
            row_Xc[0] = nothing
            return row_Xc

        absent, at_R = np.int16(NOTHING), _places(achieved, days, spec)
        performance_XP = scattered(at_R, achieved.columns, to_grid, absent)
        daily_XM = scattered(at_R, daily_columns(achieved.columns, spec), _finite, np.float32(0))
        acted = acted or replace(achieved, columns=[])
        acted_at_R = _places(acted, days, spec)
        behavior_XF = scattered(acted_at_R, acted.columns, to_grid, absent)
        if shared is not None:
            row_X = np.full(len(behavior_XF), -1, np.int32)
            row_X[acted_at_R] = np.arange(len(acted_at_R))
            at_R = _places(shared, days, spec)
            own_R = row_X[at_R]
            both_R = (own_R >= 0) & (at_R > 0)
            for column_X, value_R, of_own_R in zip(behavior_XF.T, shared.columns, acted.columns, strict=True):
                total_R = value_R.astype(np.float64)
                more_x, own_x = total_R[both_R], of_own_R[own_R[both_R]]
                total_R[both_R] = np.where(np.isnan(own_x), more_x, own_x + np.nan_to_num(more_x))
                column_X[at_R] = to_grid(total_R)
            behavior_XF[0] = absent
        names = ["advertiser_id", "scenario_id", *spec.advertiser_attributes, *spec.scenario_attributes]
        known = pa.table({name: keys[name].cast(pa.string()) for name in dict.fromkeys(names)})
        future_XC = _nothing(series, days, len(spec.plans), spec, absent)
        listed = [k for k, plan in enumerate(spec.plans) if not plan.covariate.is_holidays]
        for rows in planned:
            at_R = _places(rows, days, spec)
            for k, value_R in zip(listed, rows.columns, strict=True):
                point_R = to_grid(value_R)
                future_XC[at_R, k] = np.where(point_R == NOTHING, future_XC[at_R, k], point_R)
        future_XC[0] = absent
        registered_N = np.clip(registered_N, limit.min, limit.max).astype(np.int32)
        panel = cls(spec, last_day, days, performance_XP, behavior_XF, daily_XM, future_XC, registered_N, known)
        for k, plan in enumerate(spec.plans):
            if plan.covariate.is_holidays:
                panel.future_NTC[:, :, k] = holidays_ahead(plan, known, panel.first_day, days)
        return panel

    @classmethod
    def of_values(
        cls,
        spec: SequenceSpec,
        last_day: date,
        performance_NTP: Floats,
        behavior_NTF: Floats,
        registered_N: Ints,
        keys: pa.Table,
        future_NTC: Floats | None = None,
    ) -> Panel:
        """From dense blocks of values, NaN where there is no row; without ``future_NTC`` no plan is known."""
        series, days = performance_NTP.shape[:2]

        def row(block_NTc: Numbers, nothing: Any) -> NDArray[Any]:
            row_Xc = _nothing(series, days, block_NTc.shape[2], spec, nothing)
            row_Xc[lead(spec) :] = block_NTc.reshape(series * days, block_NTc.shape[2])
            return row_Xc

        performance_XP = row(to_grid(performance_NTP), np.int16(NOTHING))
        behavior_XF = row(to_grid(behavior_NTF), np.int16(NOTHING))
        daily_XM = row(_finite(daily_totals(performance_NTP, spec)), np.float32(0))
        if future_NTC is None:
            future_NTC = np.full((series, days, len(spec.plans)), np.nan)
        future_XC = row(to_grid(future_NTC), np.int16(NOTHING))
        return cls(spec, last_day, days, performance_XP, behavior_XF, daily_XM, future_XC, registered_N, keys)

    @classmethod
    def from_sequences(cls, table: pa.Table, spec: SequenceSpec, last_day: date, days: int) -> Panel:
        """From sequence rows, a row a series with its days as parallel lists; rows outside the panel are ignored.

        Raises:
            ValueError: a metric's list is not as long as its list of days.
        """
        first = days_of(last_day) - days + 1
        achieved = listed_rows(table, "day", spec.metrics, first)
        acted = listed_rows(table, "behavior_day", spec.behaviors, first) if spec.behaviors else None
        planned = [listed_rows(table, "plan_day", spec.plan_columns, first)] if spec.plan_columns else []
        return cls.of_rows(spec, last_day, days, table, achieved, acted, planned=planned)

    def save(self, folder: Path | str) -> Path:
        """Write the panel as .npy files that ``open`` maps into memory; the folder appears whole or not at all."""
        folder = Path(folder)
        with replaced_folder(folder) as partial:
            np.save(partial / "performance.npy", self.performance_XP)
            np.save(partial / "behavior.npy", self.behavior_XF)
            np.save(partial / "daily.npy", self.daily_XM)
            np.save(partial / "future.npy", self.future_XC)
            np.save(partial / "registered.npy", self.registered_N)
            np.save(partial / "advertiser_total.npy", self.advertiser_total_YM)
            keys = self.keys
            with pa.OSFile(str(partial / "keys.arrow"), "wb") as sink, pa.ipc.new_file(sink, keys.schema) as writer:
                writer.write_table(keys)
            header = {"spec": self.spec.to_dict(), "last_day": self.last_day.isoformat(), "days": self.days}
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
            header["days"],
            _mapped(folder / "performance.npy"),
            _mapped(folder / "behavior.npy"),
            _mapped(folder / "daily.npy"),
            _mapped(folder / "future.npy"),
            _mapped(folder / "registered.npy"),
            keys,
        )
        # Mapped instead of computed: at a million advertisers this is a gigabyte.
        vars(panel)["advertiser_total_YM"] = _mapped(folder / "advertiser_total.npy")
        return panel


def recent(panel: Panel, cutoff: int, series: Ints, days: int) -> Floats:
    """Daily totals of the ``days`` up to the cutoff, oldest first; 0 before the panel."""
    start = max(0, cutoff + 1 - days)
    block_NDM = panel.daily_NTM[series, start : cutoff + 1].astype(np.float64)
    missing = days - block_NDM.shape[1]
    return np.pad(block_NDM, ((0, 0), (missing, 0), (0, 0))) if missing else block_NDM


def lead(spec: SequenceSpec) -> int:
    """Days of nothing before those of the first series: what the longest window reads before its cutoff."""
    return spec.lookback_days - 1


def days_of(day: date) -> int:
    """Days since 1970-01-01, as sequences list them."""
    return (day - _EPOCH).days


def listed_rows(table: pa.Table, day: str, values: Sequence[str], first: int) -> DayRows:
    """The days that a table's rows list, a series each, ``first`` being day 0.

    Raises:
        ValueError: a list of values is not as long as that of the days.
    """
    lists = _list_column(table, day)
    length_N = np.asarray(pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False), np.int64)
    series_R = np.repeat(np.arange(len(length_N)), length_N)
    day_R = lists.flatten().to_numpy(zero_copy_only=False).astype(np.int64) - first
    columns = [_list_column(table, name).flatten().to_numpy(zero_copy_only=False) for name in values]
    for name, column_R in zip(values, columns, strict=True):
        if len(column_R) != len(day_R):
            raise ValueError(f"column {name} lists {len(column_R)} values for {len(day_R)} days in {day}")
    return DayRows(series_R, day_R, columns)


def _places(rows: DayRows, days: int, spec: SequenceSpec) -> Ints:
    """Where in X the rows lie; those of days outside the panel on the first day of nothing, for it to be emptied."""
    inside_R = (rows.day_R >= 0) & (rows.day_R < days)
    return np.where(inside_R, lead(spec) + rows.series_R * days + rows.day_R, 0)


def _finite(total_x: Floats) -> Floats:
    """What days add to a task, cut where the grid is: float32 sums stay finite."""
    return np.minimum(total_x, LARGEST)


def _nothing(series: int, days: int, columns: int, spec: SequenceSpec, nothing: Any) -> NDArray[Any]:
    return np.full((lead(spec) + series * days, columns), nothing)


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


def _registered(table: pa.Table, first: int) -> Ints:
    days = pc.cast(table["registered_on"], pa.date32()).cast(pa.int32())
    registered_N = np.asarray(pc.fill_null(days, np.iinfo(np.int32).max).to_numpy(), np.int64)
    return np.asarray(registered_N - first)
