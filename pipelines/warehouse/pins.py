"""A table as it was at one moment, and what a stage reads: every table that it declares, pinned when it plans.

A stage takes its snapshots once, reads those alone, and records those with what it writes: whatever is committed while
it works is not in its figures, and its lineage says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, EqualTo, GreaterThanOrEqual, LessThanOrEqual
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Snapshot

from pipelines import chain
from pipelines.errors import DataError
from pipelines.events import EVENTS
from pipelines.warehouse.days import days_between
from pipelines.warehouse.files import NO_DAY, DataFile, read_files
from pipelines.warehouse.store import Store

if TYPE_CHECKING:
    from pipelines.warehouse.commits import Warehouse

EMPTY_DAY = "m2m.empty-day."  # table property: a day that was written and has no rows
REPLACED = "m2m.replaced"  # snapshot property: the days that a commit replaced, folded to ranges
_EPOCH = date(1970, 1, 1)
_MANIFESTS = 2048
_LISTED: dict[str, list[DataFile]] = {}  # of the manifests that were read last, by their paths


@dataclass(frozen=True)
class Pin:
    """One table as it was when it was pinned; ``table`` is None, and everything empty, if it was never written.

    ``schema`` is what files of it are read and written with: it carries Iceberg's field ids.
    ``plans`` keeps what PyIceberg planned: half a millisecond per file, of which a day's build would ask some three
    times, and a snapshot never changes.
    """

    name: str
    table: IcebergTable | None
    schema: pa.Schema
    snapshot_id: int | None
    plans: dict[tuple[str, int | None, date | None, date | None], list[Any]]

    def at(self, snapshot_id: int) -> Pin:
        """The same table at an earlier snapshot of it."""
        return replace(self, snapshot_id=snapshot_id)

    def files(self, first: date | None = None, last: date | None = None) -> list[DataFile]:
        """The data files of ``first``..``last`` (all days if not given), in a fixed order."""
        return self._ours(self.plan(first, last or first))

    def _ours(self, planned: Iterable[Any]) -> list[DataFile]:
        """Data files as PyIceberg knows them, as we do."""
        store, found = Store.of(self.table.io.properties if self.table else {}), []
        for file in planned:
            ds, bucket = self._partition(file)
            found.append(DataFile(file.file_path, ds, bucket, file.record_count, store))
        return sorted(found, key=lambda file: (file.ds, file.bucket, file.path))

    def _partition(self, file: Any) -> tuple[date, int]:
        """Day and bucket of a data file as PyIceberg knows it."""
        assert self.table is not None
        of = dict(zip((field.name for field in self.table.spec().fields), file.partition, strict=True))
        return NO_DAY if of["ds"] is None else _EPOCH + timedelta(days=of["ds"]), int(of.get("bucket", 0))

    def files_on(self, days: Collection[date]) -> list[DataFile]:
        """The data files of some days, in a fixed order. A manifest never changes: those that can hold one of the days
        are read once a process, where a plan of each day would read them again after every commit."""
        store, found = Store.of(self.table.io.properties if self.table else {}), list[DataFile]()
        for manifest, first, last in self._manifests():
            if any(first <= day <= last for day in days):  # a catalog may hand out other keys by now
                found += (replace(file, store=store) for file in self._entries(manifest) if file.ds in days)
        return sorted(found, key=lambda file: (file.ds, file.bucket, file.path))

    def days_written(self) -> list[date]:
        """Days with a row, in order; of a manifest that holds one day alone no entry is read."""
        days: set[date] = set()
        for manifest, first, last in self._manifests():
            days |= {first} if first == last else {file.ds for file in self._entries(manifest)}
        return sorted(days - {NO_DAY})

    def _manifests(self) -> Iterator[tuple[Any, date, date]]:
        """What lists the data files, with the first and the last day that it can hold."""
        snapshot = self.snapshot(self.snapshot_id) if self.snapshot_id is not None else None
        if self.table is None or snapshot is None:
            return
        for manifest in snapshot.manifests(self.table.io):
            if not (manifest.has_added_files() or manifest.has_existing_files()):
                continue
            ds = manifest.partitions[0] if manifest.partitions else None  # ds is every table's first
            if ds is None or ds.contains_null or ds.lower_bound is None or ds.upper_bound is None:
                yield manifest, NO_DAY, date.max
            else:
                bounds = (int.from_bytes(bound, "little", signed=True) for bound in (ds.lower_bound, ds.upper_bound))
                first, last = (_EPOCH + timedelta(days=bound) for bound in bounds)
                yield manifest, first, last

    def _entries(self, manifest: Any) -> list[DataFile]:
        if (known := _LISTED.get(manifest.manifest_path)) is None:
            assert self.table is not None
            entries = manifest.fetch_manifest_entry(self.table.io, discard_deleted=True)
            known = _LISTED[manifest.manifest_path] = self._ours(entry.data_file for entry in entries)
            while len(_LISTED) > _MANIFESTS:
                _LISTED.pop(next(iter(_LISTED)), None)
        return known

    def plan(self, first: date | None, last: date | None) -> list[Any]:
        """PyIceberg's own plan of ``first``..``last``."""
        if self.table is None or self.snapshot_id is None:
            return []
        key = (self.name, self.snapshot_id, first, last)
        if key not in self.plans:
            whole = self.plans.get((self.name, self.snapshot_id, None, None))
            if whole is None or not first or not last:
                self.plans[key] = self._planned(between(first, last) if first and last else AlwaysTrue())
            else:  # PyIceberg would judge every file of it once more
                self.plans[key] = [file for file in whole if first <= self._partition(file)[0] <= last]
        return self.plans[key]

    def _planned(self, where: BooleanExpression) -> list[Any]:
        assert self.table is not None
        try:
            return [task.file for task in self.table.scan(where, snapshot_id=self.snapshot_id).plan_files()]
        except Exception as error:
            # A store that does not answer says so itself; for all else a decoder stumbled over what is no manifest.
            if isinstance(error, OSError | MemoryError) and not isinstance(error, FileNotFoundError):
                raise
            raise DataError(
                f"{self.name}: its snapshot {self.snapshot_id} cannot be read: {type(error).__name__}: {error}. Take "
                f"the newest state that can be read: python -m pipelines.maintain --restore {self.name}"
            ) from error

    def days(self, first: date | None = None, last: date | None = None) -> dict[date, int]:
        """Rows of each written day, in order; a day that was written empty has 0, an unwritten day is absent."""
        rows: dict[date, int] = {}
        for key, is_empty in self.table.properties.items() if self.table else ():
            if key.startswith(EMPTY_DAY) and is_empty == "true":
                rows[date.fromisoformat(key.removeprefix(EMPTY_DAY))] = 0
        for file in self.files(first, last):
            rows[file.ds] = rows.get(file.ds, 0) + file.rows
        return {ds: rows[ds] for ds in sorted(rows) if (first is None or ds >= first) and (last is None or ds <= last)}

    def writers(self) -> dict[date, Snapshot]:
        """The newest commit that replaced each day; days whose commit has expired are absent."""
        found: dict[date, Snapshot] = {}
        for snapshot in self.snapshots():
            found |= dict.fromkeys(replaced(snapshot), snapshot)
            if snapshot.snapshot_id == self.snapshot_id:
                break
        return found

    def lineage(self) -> dict[date, dict[str, str]]:
        """What the commits of ``writers`` said of themselves."""
        return {day: properties_of(snapshot) for day, snapshot in self.writers().items()}

    def snapshots(self) -> list[Snapshot]:
        """In the order of commits, not from parent to parent: between two that were kept, others may have expired."""
        return sorted(self.table.snapshots() if self.table else (), key=lambda snapshot: snapshot.sequence_number or 0)

    def snapshot(self, snapshot_id: int) -> Snapshot | None:
        return self.table.snapshot_by_id(snapshot_id) if self.table else None

    def knows(self, snapshot_id: int) -> bool:
        """Whether the table still has a snapshot."""
        return self.snapshot(snapshot_id) is not None

    def scan(
        self, where: BooleanExpression | None = None, columns: tuple[str, ...] = ("*",), limit: int | None = None
    ) -> pl.DataFrame:
        """Rows of a small table, or ``limit`` of any, on the driver; ``where`` chooses partitions."""
        names = list(self.schema.names if columns == ("*",) else columns)
        parts = [read_files([], self.schema, names)]
        if self.table is not None and self.snapshot_id is not None:
            for file in self._ours(self._planned(where if where is not None else AlwaysTrue())):
                parts.append(read_files([file], self.schema, names))
                if limit is not None and sum(part.height for part in parts) >= limit:
                    break
        return pl.concat(parts).head(limit) if limit is not None else pl.concat(parts)


class Reads:
    """What one run of a stage reads: every table that the chain declares for it, as it was when the run planned."""

    def __init__(self, stage: str, warehouse: Warehouse) -> None:
        declared = [name for name in chain.STAGES[stage].reads if chain.has(warehouse.config, name)]
        self._stage = stage
        self._pins = {name: warehouse.pin(name) for name in declared if not name.startswith(chain.MODEL)}
        self._models: dict[str, str | None] = {name: None for name in declared if name.startswith(chain.MODEL)}
        EVENTS.reads = self

    def pin(self, name: str, snapshot_id: int | None = None) -> Pin:
        """A declared table; with a ``snapshot_id``, from now on as that snapshot has it."""
        self._refuse_undeclared(name, self._pins)
        if snapshot_id is not None:
            self._pins[name] = self._pins[name].at(snapshot_id)
        return self._pins[name]

    @property
    def tables(self) -> tuple[str, ...]:
        return tuple(self._pins)

    def model(self, alias: str, version: str | None) -> None:
        """Note which version of a declared model the run uses."""
        self._refuse_undeclared(chain.MODEL + alias, self._models)
        self._models[chain.MODEL + alias] = version

    @property
    def recorded(self) -> dict[str, int | str | None]:
        """Every declared read: a table's snapshot, a model's version; None where there was none."""
        return {name: pin.snapshot_id for name, pin in self._pins.items()} | self._models

    def _refuse_undeclared(self, name: str, declared: Iterable[str]) -> None:
        if name not in declared:
            raise LookupError(f"{self._stage} reads {name} without saying so: declare it in pipelines/chain.py")


class Recorded:
    """Tables as a commit has read them, by what it says of itself: whichever snapshot is asked for, it is that one; a
    table that was not there then is empty."""

    def __init__(self, warehouse: Warehouse, properties: Mapping[str, str]) -> None:
        self._warehouse, self._stage = warehouse, properties.get("m2m.stage", "")
        self._read = inputs_of(properties)

    def pin(self, name: str, snapshot_id: int | None = None) -> Pin:
        """The table at the snapshot that was recorded; ``snapshot_id`` is not looked at."""
        read = self._read.get(name, "")
        return replace(self._warehouse.pin(name), snapshot_id=int(read) if read.isdigit() else None)

    def model(self, alias: str) -> str | None:
        """The version that an alias named; None if there was none."""
        return self._read.get(chain.MODEL + alias)

    @property
    def needed(self) -> dict[str, int]:
        """The snapshots without which its rows cannot be made again: of what the stage reads and does not write."""
        stage = chain.STAGES.get(self._stage)
        others = [name for name in stage.reads if name not in stage.tables] if stage else []
        others = [name for name in others if not name.startswith(chain.MODEL)]
        return {name: int(self._read[name]) for name in others if self._read.get(name, "").isdigit()}

    @property
    def expired(self) -> dict[str, int]:
        """Those of them that are gone."""
        return {name: one for name, one in self.needed.items() if not self._warehouse.pin(name).knows(one)}


def between(first: date, last: date) -> BooleanExpression:
    """Row filter: the partitions of some days."""
    return And(GreaterThanOrEqual("ds", first.isoformat()), LessThanOrEqual("ds", last.isoformat()))


def on_day(ds: date) -> BooleanExpression:
    """Row filter: one partition."""
    return EqualTo("ds", ds.isoformat())


def properties_of(snapshot: Snapshot) -> dict[str, str]:
    """What the commit said of itself; see ``Run.lineage``."""
    return dict(snapshot.summary.additional_properties) if snapshot.summary else {}


def inputs_of(said: Mapping[str, str]) -> dict[str, str]:
    """Of what a commit or a training says of itself, the snapshot of each table and the version of each model that it
    read; what was not there is left out."""
    return {
        key.removeprefix(chain.INPUT): value
        for key, value in said.items()
        if key.startswith(chain.INPUT) and value != "None"
    }


def snapshots_read(said: Mapping[str, str]) -> list[tuple[str, int]]:
    """The same, of numbers alone: what snapshots are named by."""
    return [(name, int(value)) for name, value in inputs_of(said).items() if value.isdigit()]


def replaced(snapshot: Snapshot) -> list[date]:
    """The days that a commit replaced."""
    folded = filter(None, properties_of(snapshot).get(REPLACED, "").split(", "))
    return [ds for part in folded for ds in days_between(*map(date.fromisoformat, part.split("..")))]
