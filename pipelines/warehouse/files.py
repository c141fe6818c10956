"""Data files: one partition of a table each, named by what they hold or were made from and by a digest of their bytes.

A name that is seen is a file that is whole: it is written under a name of its own first. What is read is compared with
the digest in its name, so that a changed bit, a cut file or another one in its place is not served.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem, FileType

from pipelines.errors import DataError
from pipelines.paths import filesystem

_OBJECT_STORES = ("s3", "gcs", "abfs")
_WRITTEN = re.compile(r"/\w*?(staged|features|marts|ops)/([^/]+)/data/run=(\w+)-(\d{4}-\d\d-\d\d)-\w+/ds=([\d-]+)/")
NO_DAY = date.min  # of ledgers alone: what was found in rows that carry no day


@dataclass(frozen=True)
class DataFile:
    """One data file of a table: where it is, which partition it holds, how many rows."""

    path: str
    ds: date
    bucket: int
    rows: int

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
    rows: pl.DataFrame, schema: pa.Schema, folder: str, ds: date, bucket: int, made_from: str | None = None
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
    path = f"{folder}/ds={ds}/bucket={bucket:05d}.{made_from or digest}.{digest}.parquet"
    _put(*filesystem(path), content)
    return DataFile(path, ds, bucket, table.num_rows)


def read_files(files: Iterable[DataFile], schema: pa.Schema, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read data files of one table, or some of its columns, into one frame, in the files' order; no file gives an empty
    frame.

    Raises:
        DataError: a file is gone, or its bytes are not those that were written.
    """
    names = list(columns or schema.names)
    empty = pl.from_arrow(schema.empty_table().select(names))
    assert isinstance(empty, pl.DataFrame)
    contents = [read_bytes(file.path) for file in files]
    return pl.concat([empty, pl.read_parquet(contents, columns=names)]) if contents else empty


def lost(files: Iterable[DataFile]) -> set[str]:
    """Paths of the files that are not there any more; asked of the store in one go."""
    paths = [file.path for file in files]
    if not paths:
        return set()
    found = filesystem(paths[0])[0].get_file_info([filesystem(path)[1] for path in paths])
    return {path for path, info in zip(paths, found, strict=True) if info.type == FileType.NotFound}


def read_bytes(path: str) -> bytes:
    """A data file as it was written.

    Raises:
        DataError: it is gone, or its bytes are not those that were written.
    """
    store, inner = filesystem(path)
    try:
        with store.open_input_file(inner) as file:
            content: bytes = file.read()
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
    if room == "ops":  # what a run noted of itself, no other run can note
        mend = f"Restore it from a backup, or go on without it: python -m pipelines.maintain --restore {room}.{table}"
    else:
        day = ds if stage == "stage_sources" else run_ds
        mend = f"Remove what is left of it, then make the day again: python -m pipelines.{stage} --date {day}"
    return f"{room}.{table} ds={ds}: {path} {how}. {mend}"


def _name(path: str) -> list[str]:
    """``bucket=N``, fingerprint, digest; a file of version 0.1 has no digest."""
    return PurePosixPath(path).name.removesuffix(".parquet").split(".")


def _put(store: FileSystem, path: str, content: memoryview) -> None:
    """Make a file appear whole. Object stores do so by themselves; elsewhere it is renamed to where it is seen."""
    folder, _, name = path.rpartition("/")
    first = path if store.type_name in _OBJECT_STORES else f"{folder}/.{name}.{uuid.uuid4().hex}"
    try:
        store.create_dir(folder, recursive=True)
        with store.open_output_stream(first) as out:
            out.write(content)
        if first != path:
            store.move(first, path)
    except OSError as error:  # some do not name the file
        with contextlib.suppress(OSError):
            store.delete_file(first)
        raise OSError(f"{path}: {error}") from error
