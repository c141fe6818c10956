"""Data files: one partition of a table each, named by a fingerprint of what they hold or were made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem

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
        return PurePosixPath(self.path).name.split(".")[1]

    @property
    def identity(self) -> tuple[date, int, str]:
        """Two files with the same one hold the same rows."""
        return self.ds, self.bucket, self.fingerprint


def fingerprint(*parts: str | memoryview) -> str:
    """Short digest of what a file holds or was made from."""
    digest = hashlib.blake2b(digest_size=10)
    for part in parts:
        digest.update(part.encode() + b"\0" if isinstance(part, str) else part)
    return digest.hexdigest()


def write_file(
    rows: pl.DataFrame, schema: pa.Schema, folder: str, ds: date, bucket: int, made_from: str | None = None
) -> DataFile:
    """Write one partition as one Parquet file; all columns are in the file, partition columns too.

    ``rows`` must be in key order: the same rows then give the same data, whoever wrote them. The file is named by the
    fingerprint of its bytes, or by ``made_from``, that of the inputs which alone decide them.
    """
    table = rows.select(schema.names).to_arrow().cast(schema)
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    content = buffer.getvalue()
    path = f"{folder}/ds={ds}/bucket={bucket:05d}.{made_from or fingerprint(memoryview(content))}.parquet"
    filesystem, inner = FileSystem.from_uri(path)
    filesystem.create_dir(inner.rsplit("/", 1)[0], recursive=True)
    with filesystem.open_output_stream(inner) as out:
        out.write(content)
    return DataFile(path, ds, bucket, table.num_rows)


def read_files(files: Iterable[DataFile], schema: pa.Schema, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read data files of one table, or some of its columns, into one frame, in the files' order; no file gives an empty
    frame."""
    names, paths = list(columns or schema.names), [file.path for file in files]
    empty = pl.from_arrow(schema.empty_table().select(names))
    assert isinstance(empty, pl.DataFrame)
    return pl.concat([empty, pl.read_parquet(paths, columns=names, glob=False)]) if paths else empty
