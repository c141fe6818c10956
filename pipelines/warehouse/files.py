"""Data files: one partition of a table each, named by what they hold or were made from and by a digest of their bytes.

A name that is seen is a file that is whole: it is written under a name of its own first. What is read is compared with
the digest in its name, so that a changed bit, a cut file or another one in its place is not served.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from pathlib import PurePosixPath
from typing import TypeVar

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import DataError
from pipelines.paths import local_path
from pipelines.warehouse.store import Folder, Store

Answer = TypeVar("Answer")
_AT_ONCE = 16  # files of an object store: each answers after some tens of milliseconds
_WRITTEN = re.compile(r"/\w*?(staged|features|marts|ops)/([^/]+)/data/run=(\w+)-(\d{4}-\d\d-\d\d)-\w+/ds=([\d-]+)/")
# Parquet, but not by that name: a glob over *.parquet would take files of replaced days for data. GUARD lies above them
# for whoever reads the whole folder: readers stumble over it, and most name it.
SUFFIX, GUARD = ".pq", "README_not_by_glob.parquet"
GUARD_WORDS = """This is no Parquet file. It is here to stop whoever reads this folder file by file.

The folder is of an Iceberg table. Beside the files of today's rows lie those of days that were written again since,
and of runs that were stopped: all of them together hold some rows twice. Which files are the table, its metadata says.

Read the table through Iceberg (PyIceberg, Polars, DuckDB, Spark, Trino: docs/read_the_tables.md), or by the list of
its files (m2m show TABLE --format files), or take a day out of it (m2m export TABLE --date DAY --out FILE).
"""
NO_DAY = date.min  # of ledgers alone: what was found in rows that carry no day


@dataclass(frozen=True)
class DataFile:
    """One data file of a table: where it is, which partition it holds, how many rows, and what opens it."""

    path: str
    ds: date
    bucket: int
    rows: int
    store: Store = field(default=Store(), compare=False, repr=False)

    @property
    def fingerprint(self) -> str:
        """What the file's name says of its content: equal for equal rows, or for rows made from equal inputs."""
        return _name(self.path)[1]

    @property
    def identity(self) -> tuple[date, int, str]:
        """Two files with the same one hold the same rows."""
        return self.ds, self.bucket, self.fingerprint


def fingerprint(*parts: str | memoryview) -> str:
    """Short digest of what a file holds or was made from."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0" if isinstance(part, str) else part)
    return digest.hexdigest()[:20]


def write_file(
    rows: pl.DataFrame, schema: pa.Schema, folder: Folder, ds: date, bucket: int, made_from: str | None = None
) -> DataFile:
    """Write one partition as one Parquet file; all columns are in the file, partition columns too.

    ``rows`` must be in key order: the same rows then give the same data, whoever wrote them. The file is named by the
    fingerprint of its bytes, or by ``made_from``, that of the inputs which alone decide them. Several attempts of a
    task may write at once, and any of them may be killed.
    """
    table = rows.select(schema.names).to_arrow().cast(schema)
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    content = memoryview(buffer.getvalue())
    digest = fingerprint(content)
    path = f"{folder.uri}/ds={ds}/bucket={bucket:05d}.{made_from or digest}.{digest}{SUFFIX}"
    folder.store.write(path, content)
    return DataFile(path, ds, bucket, table.num_rows, folder.store)


def read_files(files: Iterable[DataFile], schema: pa.Schema, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read data files of one table, or some of its columns, into one frame, in the files' order; no file gives an empty
    frame. What is declared without a value (nullable) and is not in a file, which is older, is null there.

    Raises:
        DataError: a file is gone, or its bytes are not those that were written.
    """
    names = list(columns or schema.names)
    empty = pl.from_arrow(schema.empty_table().select(names))
    assert isinstance(empty, pl.DataFrame)
    contents = _each(list(files), read_bytes)
    if not contents:
        return empty
    try:
        return pl.concat([empty, pl.read_parquet(contents, columns=names)])
    except pl.exceptions.ColumnNotFoundError:
        known = [[n for n in names if n in pl.read_parquet_schema(c) or not schema.field(n).nullable] for c in contents]
        frames = [pl.read_parquet(c, columns=of) for c, of in zip(contents, known, strict=True)]
        return pl.concat([empty, *frames], how="diagonal")


def by_bucket(files: Iterable[DataFile]) -> dict[int, list[DataFile]]:
    """Data files by their bucket, in their order."""
    found: dict[int, list[DataFile]] = {}
    for file in files:
        found.setdefault(file.bucket, []).append(file)
    return found


def lost(files: Iterable[DataFile]) -> set[str]:
    """Paths of the files that are not there any more."""
    files = list(files)
    there = _each(files, lambda file: file.store.exists(file.path))
    return {file.path for file, is_there in zip(files, there, strict=True) if not is_there}


def _each(files: list[DataFile], ask: Callable[[DataFile], Answer]) -> list[Answer]:
    """An answer a file, in their order; an object store is asked of many at once."""
    if len(files) < 2 or local_path(files[0].path):
        return [ask(file) for file in files]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(ask, files))


def read_bytes(file: DataFile) -> bytes:
    """A data file as it was written.

    Raises:
        DataError: it is gone, or its bytes are not those that were written.
    """
    path = file.path
    try:
        content = file.store.read(path)
    except FileNotFoundError:
        raise DataError(_lost(path, "is gone")) from None
    digest = _name(path)[2:]
    if digest and fingerprint(memoryview(content)) != digest[0]:
        raise DataError(_lost(path, f"is damaged: its {len(content)} bytes are not those that were written"))
    return content


def _lost(path: str, how: str) -> str:
    """Says of which table and day a lost file was, and what makes it again; a path that a run wrote holds all of it."""
    written = _WRITTEN.search(path)
    if not written:
        return f"{path} {how}"
    room, table, stage, run_ds, ds = written.groups()
    if room == "ops" and table != "drift":  # what a run noted of itself, no other run can note
        mend = f"Restore it from a backup, or go on without it: python -m pipelines.maintain --restore {room}.{table}"
    else:
        day = ds if stage == "stage_sources" else run_ds
        mend = f"Remove what is left of it, then make the day again: python -m pipelines.{stage} --date {day}"
    return f"{room}.{table} ds={ds}: {path} {how}. {mend}"


def _name(path: str) -> list[str]:
    """``bucket=N``, fingerprint, digest; a file of version 0.1 has no digest. Until 0.2 the suffix was another one."""
    return PurePosixPath(path).stem.split(".")
