"""The work of `maintain`: pipelines/maintain.py says what it reads and writes, and when it fails."""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType
from pyiceberg.table import Table as IcebergTable

from pipelines.config import Config
from pipelines.errors import ConfigError
from pipelines.events import FOLDER as EVENTS
from pipelines.life.registry import Registry
from pipelines.quality.forecasts import TABLE as FORECASTS
from pipelines.reading.terminal import plural
from pipelines.sources.origins import list_path
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.days import in_words
from pipelines.warehouse.files import GUARD
from pipelines.warehouse.pins import Recorded, properties_of, snapshots_read
from pipelines.warehouse.repair import foreign_metadata, restore
from pipelines.warehouse.store import Folder, Store
from pipelines.warehouse.tables import DECLARATIONS


@dataclass(frozen=True)
class Plan:
    """What may go of one table."""

    table: str
    kept: set[int]
    expired: list[int]
    orphans: list[FileInfo]


def plan(warehouse: Warehouse, pinned: Mapping[str, set[int]], now: float) -> list[Plan]:
    """What may go, as of ``now`` (seconds); ``pinned`` snapshots per table are kept whatever their age.

    Raises:
        ConfigError: the folder of a table holds another one's metadata, so that its files may be the other's.
    """
    tables = {name: warehouse.table(name) for name in DECLARATIONS if warehouse.exists(name)}
    for name, table in tables.items():
        if other := foreign_metadata(table):
            raise ConfigError(
                f"{name}: {table.location()} is another table's folder as well, and nothing can tell whose its files "
                f"are: {other}. Nothing was removed. Load one of the two anew with a [warehouse] namespace_prefix"
            )
    settings = warehouse.config.maintenance
    kept = kept_snapshots(tables, pinned, now - timedelta(days=settings.keep_snapshots_days).total_seconds())
    oldest = now - timedelta(hours=settings.keep_files_hours).total_seconds()
    return [
        Plan(
            name,
            kept[name],
            [s.snapshot_id for s in table.snapshots() if s.snapshot_id not in kept[name]],
            orphans(table, kept[name], oldest),
        )
        for name, table in tables.items()
    ]


def kept_snapshots(
    tables: Mapping[str, IcebergTable], pinned: Mapping[str, set[int]], since: float
) -> dict[str, set[int]]:
    """Per table: every snapshot that was the newest at any time after ``since``, the pinned ones, what their runs wrote
    to other tables, and all that these runs read, so that they can be replayed: a run is kept or goes whole. What was
    read, and is older, is kept for its rows: its own run can be replayed no more, else nothing would ever go, for some
    stages read the table that they write. A stage that began before a commit still reads the snapshot that it replaced.
    """
    by_id = {name: {s.snapshot_id: s for s in table.snapshots()} for name, table in tables.items()}
    of_run: dict[str, list[tuple[str, int]]] = defaultdict(list)
    runs = [(name, snapshot_id) for name, ids in pinned.items() for snapshot_id in ids]
    for name, snapshots in by_id.items():
        in_time = sorted(snapshots.values(), key=lambda s: s.timestamp_ms)
        before = sum(s.timestamp_ms / 1000 < since for s in in_time)
        runs += [(name, s.snapshot_id) for s in in_time[max(0, before - 1) :]]
        for snapshot in in_time:
            of_run[properties_of(snapshot).get("m2m.run-id", "")].append((name, snapshot.snapshot_id))
    of_run.pop("", None)
    runs = [one for one in runs if one[1] in by_id.get(one[0], {})]
    ids = {properties_of(by_id[name][snapshot_id]).get("m2m.run-id", "") for name, snapshot_id in runs}
    runs += [one for run_id in ids for one in of_run.get(run_id, ())]
    read = [one for name, snapshot_id in runs for one in snapshots_read(properties_of(by_id[name][snapshot_id]))]
    kept: dict[str, set[int]] = {name: set() for name in tables}
    for name, snapshot_id in runs + read:
        if snapshot_id in by_id.get(name, {}):
            kept[name].add(snapshot_id)
    return kept


def ending(warehouse: Warehouse, plans: Sequence[Plan]) -> list[date]:
    """The days of forecasts that can be replayed until the plans are carried out."""
    gone = {found.table: set(found.expired) for found in plans}
    there = {found.table: found.kept | gone[found.table] for found in plans}
    days = []
    for day, snapshot in warehouse.pin(FORECASTS).writers().items():
        needed = Recorded(warehouse, properties_of(snapshot)).needed | {FORECASTS: snapshot.snapshot_id}
        if all(one in there.get(name, ()) for name, one in needed.items()):
            days += [day] if any(one in gone[name] for name, one in needed.items()) else []
    return sorted(days)


def orphans(table: IcebergTable, kept: set[int], oldest: float) -> list[FileInfo]:
    """Files in the table's folder, older than ``oldest``, that no kept snapshot refers to."""
    store, root = Store.of(table.io.properties), table.location()
    referenced = {table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)}
    for snapshot in table.snapshots():
        if snapshot.snapshot_id in kept:
            referenced.add(snapshot.manifest_list)
            referenced.add(list_path(properties_of(snapshot), root) or snapshot.manifest_list)
            for manifest in snapshot.manifests(table.io):
                referenced.add(manifest.manifest_path)
                entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
                referenced.update(entry.data_file.file_path for entry in entries)
    referenced.add(f"{root}/data/{GUARD}")
    inner = {store.filesystem(path)[1] for path in referenced}
    return [
        info
        for info in store.found(root, recursive=True)
        if info.type == FileType.File and info.path not in inner and info.mtime.timestamp() < oldest
    ]


def apply(warehouse: Warehouse, plans: list[Plan], now: float) -> None:
    """Expire first, then look again and remove: a file goes only when the table as it is now does not need it."""
    oldest = now - timedelta(hours=warehouse.config.maintenance.keep_files_hours).total_seconds()
    for found in plans:
        if found.expired:
            warehouse.table(found.table).maintenance.expire_snapshots().by_ids(found.expired).commit()
        table = warehouse.table(found.table)
        files, root = Store.of(table.io.properties).filesystem(table.location())
        for info in orphans(table, {s.snapshot_id for s in table.snapshots()}, oldest):
            files.delete_file(info.path)
        _remove_empty_folders(files, root, oldest)


def dead_runs(warehouse: Warehouse, now: float) -> list[Path | Folder]:
    """Folders of runs (training shards, checkpoints), logs, events, and the pages of checks of version 0.2 that nothing
    has written to for as long as a snapshot is kept: below the home, and in a scratch that is not there."""
    config, scratch = warehouse.config, warehouse.scratch
    oldest = now - timedelta(days=config.maintenance.keep_snapshots_days).total_seconds()
    own = ("runs/*", "training/*", "logs/*", f"{EVENTS}/*", "data_docs")
    left = [path for old in own for path in config.home.glob(old)]
    newest = {path: max((file.stat().st_mtime for file in (path, *path.rglob("*"))), default=now) for path in left}
    elsewhere = [folder for parent in ("runs", "training") for folder in (scratch / parent).folders()]
    remote = [] if scratch.local == config.home else [folder for folder in elsewhere if 0 < folder.newest() < oldest]
    return [*sorted(path for path in left if newest[path] < oldest), *remote]


def pinned_by_models(registry: Registry) -> dict[str, set[int]]:
    """The snapshots that every version was trained on that an alias names; their files may be lost. The versions
    themselves, and their runs, no command of ours deletes."""
    pinned: dict[str, set[int]] = {}
    for run_id in filter(None, map(registry.run_id_of, registry.aliases())):
        for name, snapshot_id in snapshots_read(registry.client.get_run(run_id).data.tags):
            pinned.setdefault(name, set()).add(snapshot_id)
    return pinned


def report(plans: list[Plan], runs: Sequence[Path | Folder]) -> list[str]:
    """The lines to print."""
    lines = []
    for found in plans:
        size = sum(info.size for info in found.orphans)
        lines.append(
            f"  {found.table:30} snapshots: {len(found.kept)} kept, {len(found.expired)} to expire; files that nothing "
            f"refers to: {len(found.orphans)}, {size / 2**20:.1f} MiB"
        )
        lines += [f"    e.g. {info.path}" for info in found.orphans[:1]]
    lines.append(f"  folders and logs of runs long over: {len(runs)}" + (f", e.g. {_shown(runs[0])}" if runs else ""))
    return lines


def _shown(place: Path | Folder) -> str:
    return place.uri if isinstance(place, Folder) else str(place)


def _remove_empty_folders(store: FileSystem, root: str, oldest: float) -> None:
    """Folders that held a run's files; a young one may be about to be filled. Object stores have none."""
    found = store.get_file_info(FileSelector(root, recursive=True, allow_not_found=True))
    filled = {parent for info in found if info.type == FileType.File for parent in map(str, Path(info.path).parents)}
    for info in sorted(found, key=lambda info: -len(info.path)):
        young = info.mtime is not None and info.mtime.timestamp() >= oldest
        if info.type == FileType.Directory and info.path not in filled and not young:
            store.delete_dir(info.path)


def restore_tables(config: Config, names: Sequence[str]) -> None:
    """Let the catalog name the newest state of each that can be read."""
    print("\n".join(restore(Warehouse(config), name) for name in names))


def work(config: Config, apply_it: bool) -> None:
    """Show what may go, or let it go."""
    warehouse, now = Warehouse.existing(config), time.time()
    plans, runs = plan(warehouse, pinned_by_models(Registry(config)), now), dead_runs(warehouse, now)
    settings = config.maintenance
    print(
        f"{config.dataset.name}: snapshots of {settings.keep_snapshots_days} days and files of "
        f"{settings.keep_files_hours} hours are kept"
    )
    print("\n".join(report(plans, runs)))
    if days := ending(warehouse, plans):
        print(f"  replays of {in_words(days)} end with this ({plural(len(days), 'day')})")
    if apply_it:
        apply(warehouse, plans, now)
        for path in runs:
            if isinstance(path, Folder):
                path.remove()
            elif path.is_file():
                path.unlink()
            else:
                shutil.rmtree(path, ignore_errors=True)
        print("done")
    else:
        print("nothing was removed; --apply does it")
