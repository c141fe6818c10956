"""The work of `export`: pipelines/export.py says what it reads and writes, and when it fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.asked import Asked
from pipelines.config import Config
from pipelines.errors import ConfigError, plain
from pipelines.paths import local_path
from pipelines.reading.rows import Rows
from pipelines.reading.terminal import plural
from pipelines.warehouse.commits import Warehouse

FORMULA = "^[=+\\-@|%＝＋－＠\t\r\n]"  # what a spreadsheet takes for the beginning of one
Write = Callable[[pl.DataFrame], None]


def harmless(rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The rows with a ' before each text that a spreadsheet would run, and how many these are."""
    texts = [name for name, kind in rows.schema.items() if kind == pl.String]
    risky = [pl.col(name).str.contains(FORMULA) for name in texts]
    if not texts:
        return rows, 0
    found = int(sum(rows.select(mask.sum() for mask in risky).row(0)))
    quoted = [
        pl.when(mask).then("'" + pl.col(name)).otherwise(name).alias(name)
        for name, mask in zip(texts, risky, strict=True)
    ]
    return (rows.with_columns(quoted) if found else rows), found


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A file beside ``out`` to write to, which becomes it when all went well, and else is gone."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def write_parquet(rows: Rows, out: Path) -> tuple[int, str]:
    """All rows, with where they come from in the file's metadata; returns how many, and what is to be said of them."""
    origin = {"m2m.table": rows.pin.name, "m2m.day": str(rows.day), "m2m.snapshot": str(rows.pin.snapshot_id)}
    fields = [rows.pin.schema.field(name).remove_metadata() for name in rows.columns]
    count, schema = 0, pa.schema(fields, metadata=origin)
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for part in rows.parts():
            count += part.height
            writer.write_table(part.to_arrow().cast(schema))
    return count, ""


def write_csv(rows: Rows, out: Path) -> tuple[int, str]:
    """The same as text.

    Raises:
        ConfigError: a column is a list.
    """
    lists = [name for name in rows.columns if rows.pin.schema.field(name).type.num_fields]
    if lists:
        raise ConfigError(
            f"{rows.pin.name}: CSV cannot hold {', '.join(lists)}, which are lists: write .parquet, or name --columns"
        )
    count = quoted = 0
    with out.open("wb") as file:
        for number, part in enumerate(rows.parts()):
            safe, changed = harmless(part)
            safe.write_csv(file, include_header=number == 0, datetime_format="%Y-%m-%dT%H:%M:%S%.6fZ")
            count, quoted = count + part.height, quoted + changed
    begin = f"{plural(quoted, 'text')} that a spreadsheet would run as a formula got a ' before; .parquet has none"
    return count, begin if quoted else ""


def work(config: Config, asked: Asked, out: Path) -> None:
    """Write the file, and say what is in it."""
    rows = Rows.of(Warehouse.existing(config, asked.day if isinstance(asked.day, date) else None), asked)
    _refuse(rows, out)
    with appearing(out) as part:
        count, note = (write_csv if out.suffix == ".csv" else write_parquet)(rows, part)
    of = f"{count:,} of {plural(rows.stored, 'row')}" if asked.filters else plural(count, "row")
    what = f"{of} and {plural(len(rows.columns), 'column')}, {out.stat().st_size / 2**20:.1f} MiB"
    print(plain(f"{rows.pin.name} {rows.day or 'of all days'}: {what}, in {out.resolve()}"))
    if note:
        print(note)


def _refuse(rows: Rows, out: Path) -> None:
    """Where no file can be, or should be."""
    if out.is_dir() or not out.parent.is_dir():
        why = "is a folder; name a file in it" if out.is_dir() else f"there is no folder {out.parent.resolve()}"
        raise ConfigError(f"--out {plain(out)}: {plain(why)}")
    own = local_path(rows.pin.table.location()) if rows.pin.table else None
    if own and out.resolve().is_relative_to(Path(own).resolve().parents[1]):
        raise ConfigError(f"--out {plain(out)}: that folder is the tables' own; name another one")
