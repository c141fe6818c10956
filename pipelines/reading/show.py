"""The work of `show`: pipelines/show.py says what it reads and writes, and when it fails."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Sequence
from datetime import date

import polars as pl

from pipelines import chain
from pipelines.asked import ALL, Asked
from pipelines.config import Config
from pipelines.errors import ConfigError, plain
from pipelines.reading.rows import Rows, column
from pipelines.reading.terminal import plural, shown, wrapped
from pipelines.toml_tables import nearest
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.files import NO_DAY
from pipelines.warehouse.tables import DECLARATIONS

NO_TERMINAL = 200  # columns where the output goes to a file or to another program
FOR_PROGRAMS = ("identifier", "metadata")  # of the list of tables: paths, too long for a line


def table_list(warehouse: Warehouse) -> pl.DataFrame:
    """Every table: days, rows, files, current snapshot; what its catalog calls it, and the metadata file."""
    rows = []
    for name in DECLARATIONS:
        pin = warehouse.pin(name)
        files = pin.files()
        days = [str(file.ds) for file in files if file.ds != NO_DAY]
        ends, counts = (min(days, default=""), max(days, default="")), (sum(f.rows for f in files), len(files))
        address = warehouse.identifier(name), pin.table.metadata_location if pin.table else None
        rows.append((name, *ends, *counts, pin.snapshot_id, *address))
    schema = ["table", "first_ds", "last_ds", "rows", "files", "snapshot", *FOR_PROGRAMS]
    return pl.DataFrame(rows, schema=schema, orient="row", infer_schema_length=None)


def catalog_line(warehouse: Warehouse) -> str:
    """How PyIceberg opens the catalog; a password stays with the configuration."""
    properties = {key: warehouse.catalog.properties.get(key) for key in ("type", "uri", "warehouse")}
    said = "".join(f', {key}="{value}"' for key, value in properties.items() if value)
    said = re.sub("(://[^/@:]*):[^/@]*@", r"\1:***@", said)
    return f'load_catalog("{warehouse.catalog.name}"{said})'


def sorting(texts: Sequence[str]) -> list[tuple[str, bool]]:
    """``column`` and ``column:desc`` as columns, each with whether it descends."""
    parts = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    by = [(name, way) for name, _, way in (part.partition(":") for part in parts)]
    for name, way in by:
        if way not in ("", "asc", "desc"):
            raise ConfigError(f'--sort {plain(name)}: unknown order "{plain(way)}"; write {plain(name)}:desc')
    return [(name, way == "desc") for name, way in by]


def print_json(frame: pl.DataFrame) -> None:
    for row in frame.iter_rows(named=True):
        line = json.dumps(row, default=str, ensure_ascii=False)
        print(line if line.isprintable() else json.dumps(row, default=str).replace("\x7f", "\\u007f"))


def print_table(frame: pl.DataFrame, first: Sequence[str], notes: list[str], whole: bool) -> None:
    """Print the rows as the terminal takes them, and what is to be said of them, of columns and of texts."""
    width = shutil.get_terminal_size((NO_TERMINAL, 24)).columns
    found, whole_values = shown(frame, first, None if whole else width), "(--columns all, or --format json)"
    if found.left_out:
        there, missing = len(frame.columns), len(found.left_out)
        names = ", ".join(found.left_out)
        notes.append(f"{there - missing} of {there} columns; left out: {names} {whole_values}")
    if found.cut:
        notes.append(f"{plural(found.cut, 'text')} cut where … stands {whole_values}")
    print(*found.lines, "", *(line for note in notes for line in wrapped(plain(note), width)), sep="\n")


def _of_rows(rows: Rows, frame: pl.DataFrame, found: int, by: Sequence[tuple[str, bool]], asked: Asked) -> str:
    """How many rows there are, and which of them these are; empty if they are all."""
    name = rows.pin.name
    if not rows.stored:
        writer = chain.writer(name)
        return f"{name}: {rows.day} was written without a row" if rows.day else f"{name} is empty; written by: {writer}"
    day = f" of {rows.day}" if rows.day else " of all days"
    things, filtered = ("matching row", f", among {rows.stored:,}{day}") if asked.filters else ("row", day)
    if frame.height < found:
        way = ", ".join(f"{column}{' descending' if falls else ''}" for column, falls in by)
        which = f"the first by {way}" if by else "as the files have them; --sort COLUMN orders all"
        return f"{frame.height:,} of {plural(found, things)}{filtered}, {which}; --limit N for more"
    return f"{plural(found, things)}{filtered}"


def work(config: Config, asked: Asked, limit: int, sort: Sequence[str], layout: str) -> None:
    """Print them, or the list of tables."""
    warehouse = Warehouse.existing(config, asked.day if isinstance(asked.day, date) else None)
    if asked.table == "tables":
        frame, first = table_list(warehouse), ["table", "rows"]
        notes = [f"other programs: {catalog_line(warehouse)}; docs/read_the_tables.md"]
        for name in asked.columns if asked.columns != (ALL,) else ():
            if name not in frame.columns:
                raise ConfigError(f'--columns: no column "{plain(name)}"; {nearest(name, frame.columns)}')
        if asked.columns != (ALL,) and layout == "table":
            frame = frame.select(asked.columns or pl.exclude(*FOR_PROGRAMS))
    else:
        rows, by = Rows.of(warehouse, asked), sorting(sort)
        if layout == "files":
            print(*(plain(file.path) for file in rows.files), sep="\n")
            return
        for name, _ in by:
            if rows.pin.schema.field(column(rows.pin, name, "--sort")).type.num_fields:
                raise ConfigError(f"--sort: {name} is a list, which has no order")
        frame, found = rows.first(limit, by)
        first, notes = [*rows.key, *(name for name, _ in by)], [_of_rows(rows, frame, found, by, asked)]
    if layout == "json":
        print_json(frame)
        if asked.table != "tables" and frame.height < found:
            print(plain(notes[0]), file=sys.stderr)
        return
    print_table(frame, first, notes, whole=bool(asked.columns))
