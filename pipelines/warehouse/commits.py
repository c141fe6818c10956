"""The Iceberg warehouse through PyIceberg: create, plan, commit once, time travel.

Every stage writes new Parquet files first, checks them, and then calls ``Warehouse.commit``: one snapshot
that replaces the days it names. Until then readers see the old days; after it, the new ones. A file's name carries a
fingerprint of its content, so a day that is written again with the same rows keeps its files, and what was made
from them stays fresh. The calls into PyIceberg that are not its public API stand here alone and are held by
tests/pipelines/warehouse/test_commits.py.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Collection, Iterable, Mapping
from datetime import date, timedelta
from functools import reduce
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    TableAlreadyExistsError,
    ValidationError,
    ValidationException,
)
from pyiceberg.expressions import BooleanExpression, Or
from pyiceberg.io.pyarrow import parquet_file_to_data_file, schema_to_pyarrow
from pyiceberg.table import Table as IcebergTable
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.orm import Session

from pipelines.catalog import PREFIX
from pipelines.cli import LOG
from pipelines.config import Config
from pipelines.errors import ConfigError, DataError
from pipelines.events import EVENTS
from pipelines.paths import local_path, sqlite_path
from pipelines.warehouse.days import ranges
from pipelines.warehouse.files import GUARD, GUARD_WORDS, NO_DAY, DataFile, lost, write_file
from pipelines.warehouse.pins import EMPTY_DAY, REPLACED, Pin, between, properties_of, replaced
from pipelines.warehouse.repair import foreign_metadata
from pipelines.warehouse.store import Folder, Store
from pipelines.warehouse.tables import Table, declared

BUCKETS = "m2m.buckets"  # table property: how many buckets its days are split into
_RETRIES = "commit.retry.num-retries"  # table property of Iceberg: how often PyIceberg moves a commit onto a newer one
COMMIT_ATTEMPTS = 6


class Warehouse:
    """The tables of one deployment."""

    def __init__(self, config: Config) -> None:
        self.config = config
        config.home.mkdir(parents=True, exist_ok=True)
        self.catalog = _open_catalog(config)
        self._plans: dict[tuple[str, int | None, date | None, date | None], list[Any]] = {}

    @classmethod
    def existing(cls, config: Config, last: date | None = None) -> Warehouse:
        """For readers, which make neither a catalog nor a table; ``last`` is the day that they asked for.

        Raises:
            ConfigError: there is no catalog.
        """
        file = sqlite_path(str(config.catalog_properties.get("uri", "")))
        if file and not file.is_file():
            if any(config.home.glob("warehouse/*/*/metadata")):
                raise ConfigError(
                    f"{file} is gone, and the tables are there. Put a backup in its place, or have it made again: "
                    f"python -m pipelines.maintain --config {config.path} --restore all"
                )
            raise ConfigError(
                f"{config.home}: no catalog there, so nothing was ever staged; is M2M_HOME the right one? Load it "
                f"with: python -m pipelines.stage_sources --config {config.path} "
                f"--from {config.dataset.first_day} --to {last or 'DAY'}"
            )
        return cls(config)

    def declared(self, name: str) -> Table:
        """The declaration of a table, see ``tables.declared``."""
        return declared(name, self.config)

    def table(self, name: str) -> IcebergTable:
        """The Iceberg table, for a writer: created on first use.

        Raises:
            ConfigError: its columns or buckets are not those that the configuration declares now; it is not of this
                home, or its folder is another table's.
            DataError: its metadata is gone or damaged.
        """
        declared, identifier = self.declared(name), self.identifier(name)
        for attempt in range(COMMIT_ATTEMPTS):
            if found := self._stored(name):
                if not (added := declared.columns[len(found.schema().fields) :]):
                    return found
                with contextlib.suppress(CommitFailedException), found.update_schema() as update:
                    for column in added:
                        update.add_column(column.name, column.kind, column.doc)
                continue  # another process may have added them, or more
            time.sleep(0.1 * attempt)
            # Another process may be making either of them: whoever is second takes what is there.
            with contextlib.suppress(NamespaceAlreadyExistsError, IntegrityError):
                self.catalog.create_namespace(identifier.split(".")[0])
            with contextlib.suppress(TableAlreadyExistsError, IntegrityError):
                made = self.catalog.create_table(
                    identifier,
                    declared.schema(),
                    partition_spec=declared.partition_spec(),
                    properties={"comment": declared.doc, "write.metadata.delete-after-commit.enabled": "true"}
                    | self._buckets(declared),
                )
                if other := foreign_metadata(made):
                    self.catalog.drop_table(identifier)
                    made.io.delete(made.metadata_location)
                    raise ConfigError(
                        f"{name}: {made.location()} holds another table already, of a data set of the same name or of "
                        f"a catalog that is lost: {other}. Give this one a [warehouse] namespace_prefix of its own, or "
                        f"take that one over: python -m pipelines.maintain --config {self.config.path} --restore {name}"
                    )
                return made
        raise AssertionError(f"{name}: neither there nor made")

    def identifier(self, name: str) -> str:
        """What the catalog calls the table."""
        return f"{self.config.namespace_prefix}{name}"

    def _stored(self, name: str) -> IcebergTable | None:
        """The Iceberg table as it is now; None if nobody has written to it."""
        declared, metadata = self.declared(name), next(iter(self.metadata_locations(name)), None)
        if metadata:
            self._refuse_another_home(name, metadata)
        try:
            table = self.catalog.load_table(self.identifier(name))
        except NoSuchTableError:
            if PREFIX not in self.config.warehouse and self.catalog.table_exists(name):
                raise ConfigError(
                    f"{name}: the catalog holds the table as version 0.1 named it, without the data set. To go on with "
                    f'it: [warehouse] namespace_prefix = ""; to load anew beside it: namespace_prefix = '
                    f"\"{self.config.namespace_prefix}\". See docs/operations.md, 'Upgrade from 0.1'."
                ) from None
            return None
        except (FileNotFoundError, ValidationError, ValueError) as error:
            if not metadata:
                raise
            how = "gone" if isinstance(error, FileNotFoundError) else "damaged"
            raise DataError(
                f"{name}: its metadata file is {how}: {metadata}. Take the newest state that can be read: "
                f"python -m pipelines.maintain --config {self.config.path} --restore {name}"
            ) from error
        stored = [(field.name, str(field.field_type)) for field in table.schema().fields]
        wanted = [(field.name, str(field.field_type)) for field in declared.schema().fields]
        added = {column.name for column in declared.columns if column.added}
        if stored != wanted[: len(stored)] or not added.issuperset(name for name, _ in wanted[len(stored) :]):
            gone, new = set(stored) - set(wanted), set(wanted) - set(stored)
            raise ConfigError(
                f"{name}: the stored columns are not those that pipeline.toml declares. Only stored: "
                f"{sorted(gone) or 'none'}; only declared: {sorted(new) or 'none'}. "
                "See docs/operations.md, 'A metric was added or renamed'."
            )
        wanted_buckets = self._buckets(declared).get(BUCKETS)
        stored_buckets = table.properties.get(BUCKETS, wanted_buckets)
        if stored_buckets != wanted_buckets:
            raise ConfigError(
                f"{name}: its days are split into {stored_buckets} buckets, and [dataset] buckets = {wanted_buckets} "
                f"would tear every advertiser's history apart. Set it back to {stored_buckets}, or see "
                "docs/operations.md, 'Another number of buckets'."
            )
        return table

    def _buckets(self, declared: Table) -> dict[str, str]:
        """The table property that says how its days are split; none for a table that is not."""
        return {BUCKETS: str(self.config.dataset.buckets)} if "bucket" in declared.partition else {}

    def _refuse_another_home(self, name: str, metadata: str) -> None:
        """Paths in metadata are absolute: state that was copied would be written where it was copied from."""
        home, path = self.config.home, local_path(metadata)
        if self.catalog.properties.get("warehouse") != str(home / "warehouse") or not path:
            return  # the user's own arrangement
        if not Path(path).resolve().is_relative_to(home.resolve()):
            old = Path(path).parents[4]
            raise ConfigError(
                f"{name}: its files are in {old}, not in {home}: this home was copied or moved. Use it where it was; "
                f"or, when it was moved, leave a link there: ln -s '{home}' '{old}'; or load it anew in an empty home"
            )

    def exists(self, name: str) -> bool:
        """Whether the table was ever written to."""
        return bool(self.catalog.table_exists(self.identifier(name)))

    def metadata_locations(self, name: str) -> list[str]:
        """The newest metadata file of a table and the one before it, if the catalog tells without reading them."""
        if not isinstance(self.catalog, SqlCatalog):
            return []
        namespace, table = self.identifier(name).split(".")
        chosen = select(IcebergTables.metadata_location, IcebergTables.previous_metadata_location).filter_by(
            catalog_name=self.catalog.name, table_namespace=namespace, table_name=table
        )
        with Session(self.catalog.engine) as session:
            return [location for row in session.execute(chosen) for location in row if location]

    def metadata_folder(self, name: str) -> str:
        """Where a table's metadata lies, whether or not the catalog knows of it."""
        if known := self.metadata_locations(name):
            return known[0].rpartition("/")[0]
        root = str(self.catalog.properties.get("warehouse", ""))
        if not re.match("[a-z0-9]+://|/", root):
            raise ConfigError(f"{name}: only the catalog knows where its metadata lies; restore it with its own tools")
        return f"{root}/{self.identifier(name).replace('.', '/')}/metadata"

    def metadata(self, name: str) -> str | None:
        """The newest metadata file of a table, as its catalog has it; None if it has no such table."""
        try:
            return str(self.catalog.load_table(self.identifier(name)).metadata_location)
        except NoSuchTableError:
            return None

    def register(self, name: str, metadata: str) -> None:
        """Let the catalog name this metadata file as the table's newest."""
        identifier = self.identifier(name)
        self.catalog.create_namespace_if_not_exists(identifier.split(".")[0])
        self.drop(name)
        self.catalog.register_table(identifier, metadata)

    def drop(self, name: str) -> None:
        """Let the catalog know the table no more; its files stay."""
        with contextlib.suppress(NoSuchTableError):
            self.catalog.drop_table(self.identifier(name))

    def pin(self, name: str, snapshot_id: int | None = None) -> Pin:
        """The table as it is now, or as a snapshot of it was; a reader never creates one."""
        table, declared = self._stored(name), schema_to_pyarrow(self.declared(name).schema())
        schema = schema_to_pyarrow(table.schema()) if table else declared
        for added in list(declared)[len(schema) :]:  # until the next writer comes: null for a reader
            schema = schema.append(added)
        return Pin(name, table, schema, snapshot_id or (table and table.metadata.current_snapshot_id), self._plans)

    def arrow_schema(self, name: str) -> pa.Schema:
        """Arrow schema that files of the table are written with: it carries Iceberg's field ids."""
        return self.pin(name).schema

    def folder(self, name: str, run_id: str) -> Folder:
        """A folder of the run's own for new data files, so that no path is ever written twice."""
        table = self.table(name)
        store, data = Store.of(table.io.properties), f"{table.location()}/data"
        if not store.exists(f"{data}/{GUARD}"):
            store.write(f"{data}/{GUARD}", GUARD_WORDS.encode())
        return Folder(f"{data}/run={run_id}", store)

    @property
    def scratch(self) -> Folder:
        """Where a run keeps what its workers share for a while."""
        return Folder(self.config.scratch, Store.of(self.catalog.properties))

    @property
    def configurations(self) -> Folder:
        """Where configurations are kept by their hash: beside the tables, or, where the catalog alone knows where those
        are, with what runs share."""
        root = str(self.catalog.properties.get("warehouse", ""))
        place = root if re.match("[a-z0-9]+://|/", root) else self.config.scratch
        return Folder(f"{place}/configurations", Store.of(self.catalog.properties))

    def files(
        self, name: str, first: date | None = None, last: date | None = None, snapshot_id: int | None = None
    ) -> list[DataFile]:
        """The data files of ``first``..``last`` (all days if not given), in a fixed order."""
        return self.pin(name, snapshot_id).files(first, last)

    def days(self, name: str, first: date | None = None, last: date | None = None) -> dict[date, int]:
        """Rows of each written day, in order; a day that was written empty has 0, an unwritten day is absent."""
        return self.pin(name).days(first, last)

    def snapshot_id(self, name: str) -> int | None:
        """Snapshot that readers see now; None before the first commit."""
        return self.pin(name).snapshot_id

    def snapshot_named(self, name: str, text: str) -> int:
        """A snapshot for time travel, by its own id or by that of the run that committed it.

        Raises:
            ConfigError: the table has no such snapshot.
        """
        for snapshot in reversed(self.pin(name).snapshots()):
            if text in (str(snapshot.snapshot_id), properties_of(snapshot).get("m2m.run-id")):
                return int(snapshot.snapshot_id)
        raise ConfigError(
            f"{name}: no snapshot of run {text}, nor one of that id; the run published nothing, or it has expired"
        )

    def lineage(self, name: str, snapshot_id: int | None = None) -> dict[date, dict[str, str]]:
        """Properties of the newest commit that replaced each day, seen from a snapshot (default: now); days whose
        commit has expired are absent."""
        return self.pin(name, snapshot_id).lineage()

    def commits(self, name: str) -> list[tuple[int, list[date]]]:
        """The snapshots that are kept, oldest first, each with the days that it replaced."""
        return [(int(snapshot.snapshot_id), replaced(snapshot)) for snapshot in self.pin(name).snapshots()]

    def commit(
        self,
        name: str,
        days: Iterable[date],
        files: Iterable[DataFile],
        properties: Mapping[str, str],
        onto: Pin | None = None,
    ) -> int:
        """Replace whole days of a table by ``files``, in one snapshot with ``properties`` as lineage; without days, add
        the files. ``onto``: only while the table is as it was pinned.

        A file that the day already has, by its fingerprint, is kept: its path stays. A concurrent writer of the same
        days makes PyIceberg refuse; then the commit is planned anew and repeated, so that the later of two runs wins
        whole.

        Returns:
            The new snapshot's id.

        Raises:
            DataError: a file's rows are not of the partition that it was written for.
            CommitFailedException: other writers kept winning; or the table is not as it was pinned.
        """
        files, days = list(files), list(days)
        folded = ranges(days)
        filled = {file.ds for file in files if file.rows}
        empty = [ds for ds in days if ds not in filled]
        own = {f"m2m.{key}": value for key, value in properties.items()}
        own[REPLACED] = ", ".join(f"{first}..{last}" for first, last in folded)
        if onto and self.table(name).properties.get(_RETRIES) != "0":  # else PyIceberg would find a way around
            with self.table(name).transaction() as transaction:
                transaction.set_properties({_RETRIES: "0"})
        for attempt in range(1, COMMIT_ATTEMPTS + 1):
            self.table(name)
            pin = self.pin(name)
            table = pin.table
            assert table is not None
            if onto and onto.snapshot_id != pin.snapshot_id:
                raise CommitFailedException(f"{name}: committed to since, {onto.snapshot_id} is {pin.snapshot_id} now")
            before = [file for first, last in folded for file in pin.files(first, last)]
            gone = lost(before)  # what is not there any more is written anew
            there = {file.identity: file.path for file in before if file.path not in gone}
            kept = {path for file in files if (path := there.get(file.identity))}
            new = [self._data_file(table, name, file) for file in files if file.identity not in there]
            try:
                with table.transaction() as transaction:
                    update = transaction.update_snapshot(snapshot_properties=own)
                    with update.overwrite() if days else update.fast_append() as change:
                        for first, last in folded:
                            for file in pin.plan(first, last):
                                if file.file_path not in kept:
                                    change.delete_data_file(file)
                        if days:  # whose files another run must not have changed meanwhile
                            change.delete_by_predicate(reduce(Or, (between(*ends) for ends in folded)))
                        for data_file in new:
                            change.append_data_file(data_file)
                    _mark_empty_days(transaction, table, empty, filled)
                    if not self._buckets(self.declared(name)).items() <= table.properties.items():  # made by 0.1
                        transaction.set_properties(self._buckets(self.declared(name)))
                if days:
                    LOG.commit(name)
                current = self.table(name)
                snapshot_id = next(
                    int(snapshot.snapshot_id)
                    for snapshot in reversed(current.snapshots())
                    if properties_of(snapshot).get("m2m.run-id") == properties["run-id"]
                )
                figures = {"rowCount": sum(file.rows for file in files), "fileCount": len(files)}
                if len(new) == len(files):
                    figures["size"] = sum(data_file.file_size_in_bytes for data_file in new)
                columns = ((column.name, column.type, column.doc) for column in self.declared(name).columns)
                EVENTS.wrote(name, snapshot_id, columns, figures)
                return snapshot_id
            except (CommitFailedException, ValidationException) as error:
                if onto or attempt == COMMIT_ATTEMPTS:
                    raise
                print(f"{name}: another run committed first ({type(error).__name__}); planning again", flush=True)
                time.sleep(0.2 * 2**attempt)
        raise AssertionError("unreachable")

    def append(self, name: str, rows: pa.Table, properties: Mapping[str, str], onto: Pin | None = None) -> None:
        """Append a few rows (a ledger): they are never replaced. ``onto`` as in ``commit``."""
        frame = pl.from_arrow(rows)
        assert isinstance(frame, pl.DataFrame)
        self.commit(name, [], self.write_rows(name, frame, properties["run-id"]), properties, onto)

    def forget(self, name: str, paths: Collection[str]) -> None:
        """Let the table go on without some of its data files."""
        with self.table(name).transaction() as transaction, transaction.update_snapshot().overwrite() as change:
            for file in self.pin(name).plan(None, None):
                if file.file_path in paths:
                    change.delete_data_file(file)

    def scan(
        self,
        name: str,
        where: BooleanExpression | None = None,
        columns: tuple[str, ...] = ("*",),
        limit: int | None = None,
        snapshot_id: int | None = None,
    ) -> pl.DataFrame:
        """Rows of a small table, or the first ``limit`` of any, on the driver."""
        return self.pin(name, snapshot_id).scan(where, columns, limit)

    def write_rows(self, name: str, rows: pl.DataFrame, run_id: str) -> list[DataFile]:
        """Write the files of a table that does not grow with advertisers (partitioned by ds alone), not committed."""
        folder, schema = self.folder(name, run_id), self.arrow_schema(name)
        by_day = rows.sort(*self.declared(name).key, nulls_last=True).group_by("ds", maintain_order=True)
        return [write_file(part, schema, folder, ds or NO_DAY, 0) for (ds,), part in by_day]

    def _data_file(self, table: IcebergTable, name: str, file: DataFile) -> Any:
        try:
            data_file = parquet_file_to_data_file(table.io, table.metadata, file.path)
        except FileNotFoundError:
            raise ConfigError(
                f"{name} ds={file.ds}: {file.path} was just written and is not there: where workers are on other "
                'machines, the warehouse must be in a store that all reach: [warehouse] warehouse = "s3://..."'
            ) from None
        partition = dict(zip([field.name for field in table.spec().fields], data_file.partition, strict=True))
        ds = NO_DAY if partition["ds"] is None else date(1970, 1, 1) + timedelta(days=partition["ds"])
        found = ds, partition.get("bucket", file.bucket)
        if found != (file.ds, file.bucket) or data_file.record_count != file.rows:
            raise DataError(
                f"{name} ds={file.ds}: {file.path} holds partition {found} with {data_file.record_count} rows; "
                f"expected ({file.ds}, {file.bucket}) with {file.rows}"
            )
        return data_file


def _open_catalog(config: Config) -> Catalog:
    """The catalog; of processes that find an empty database, all but the first fail to make its tables."""
    properties = config.catalog_properties
    try:
        return load_catalog(config.dataset.name, **properties)
    except (OperationalError, ProgrammingError, IntegrityError) as error:
        if "already exists" not in str(error):
            raise
        return load_catalog(config.dataset.name, **properties)


def _mark_empty_days(transaction: Any, table: IcebergTable, empty: Iterable[date], filled: Iterable[date]) -> None:
    """Record days written without a row: a partition with no file cannot tell 'empty' from 'never written'.

    A mark is never taken away, only changed: of two writers of the day, the second would find none to take.
    """
    marks = {f"{EMPTY_DAY}{ds}": "true" for ds in empty}
    marks |= {key: "false" for ds in filled if (key := f"{EMPTY_DAY}{ds}") in table.properties}
    if new := {key: mark for key, mark in marks.items() if table.properties.get(key) != mark}:
        transaction.set_properties(new)
