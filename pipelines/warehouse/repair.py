"""State of others, and state that is damaged: seen before it is written to, and taken back to what can be read."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pyiceberg.table import StaticTable
from pyiceberg.table import Table as IcebergTable

from pipelines.errors import DataError
from pipelines.warehouse.files import read_bytes
from pipelines.warehouse.store import Store

if TYPE_CHECKING:
    from pipelines.warehouse.commits import Warehouse

_METADATA = ".metadata.json"


def foreign_metadata(table: IcebergTable) -> str | None:
    """Metadata of another table with rows in the folder of this one; None if there is none.

    Two catalogs may give one folder to two tables, and then neither knows which files are the other's. Metadata without
    a snapshot is what a process leaves that was not the first to make the table.
    """
    folder = f"{table.location()}/metadata"
    own = {PurePosixPath(entry.metadata_file).name for entry in table.metadata.metadata_log}
    store = Store.of(table.io.properties)
    for path in _metadata_files(store, folder):
        if PurePosixPath(path).name in own | {PurePosixPath(table.metadata_location).name}:
            continue
        try:
            found = json.loads(store.read(path))
        except (ValueError, FileNotFoundError):  # of a writer that was killed, or just now expired
            continue
        if found.get("table-uuid") != str(table.metadata.table_uuid) and found.get("snapshots"):
            return path
    return None


def restore(warehouse: Warehouse, name: str) -> str:
    """Let the catalog name the newest metadata of a table that can be read, with the manifests that it names, and a
    ledger go on without the files that it has lost; in words.

    Raises:
        DataError: there is none.
    """
    known = warehouse.metadata_locations(name)
    there = _metadata_files(Store.of(warehouse.catalog.properties), warehouse.metadata_folder(name))
    newest_first = sorted(there, key=_version, reverse=True)
    for path in dict.fromkeys([*known, *newest_first]):
        try:
            table = StaticTable.from_metadata(path, warehouse.catalog.properties)
            files = list(table.scan().plan_files())
        except Exception:  # noqa: BLE001 - whatever is wrong with it, it is not what we look for
            continue
        if path in known[:1]:
            if gone := _lost_lines(warehouse, name):
                warehouse.forget(name, gone)
                return f"{name}: goes on without {len(gone)} data files that are gone or damaged, e.g. {gone[0]}"
            return f"{name}: nothing to restore, its newest state can be read"
        warehouse.register(name, path)
        snapshot = table.current_snapshot()
        as_of = f"snapshot {snapshot.snapshot_id}" if snapshot else "no snapshot"
        return f"{name}: restored to {path}: {as_of}, {len(files)} data files. What is missing since: m2m status"
    if not known and not newest_first:
        return f"{name}: was never written"
    if not newest_first:
        warehouse.drop(name)
        return f"{name}: no metadata is left of it, and the catalog has forgotten it: load it anew"
    raise DataError(
        f"{name}: none of {len(newest_first)} metadata files in {warehouse.metadata_folder(name)} can be read with the "
        "manifests that it names: restore that folder from a backup; or remove the table's, run this again, and load "
        "it anew"
    )


def _lost_lines(warehouse: Warehouse, name: str) -> list[str]:
    """Files of a ledger that cannot be read: no stage makes them again, as the days of other tables."""
    lost = []
    for file in warehouse.pin(name).files() if name.startswith("ops.") else []:
        try:
            read_bytes(file)
        except DataError:
            lost.append(file.path)
    return lost


def _metadata_files(store: Store, folder: str) -> list[str]:
    return [f"{folder}/{info.base_name}" for info in store.found(folder) if info.base_name.endswith(_METADATA)]


def _version(path: str) -> int:
    number = PurePosixPath(path).name.partition("-")[0]
    return int(number) if number.isdigit() else -1
