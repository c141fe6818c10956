"""The rows of a table that somebody asked for, file by file: what is held at once is one bucket of one day."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from pipelines import chain
from pipelines.asked import ALL, NEWEST, Asked
from pipelines.config import Config
from pipelines.errors import ConfigError, plain
from pipelines.toml_tables import nearest
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.days import in_words
from pipelines.warehouse.files import NO_DAY, DataFile, read_files
from pipelines.warehouse.pins import Pin
from pipelines.warehouse.tables import Table

_OF_LEVELS = ("level", "value")  # of marts.forecast_total, whose rows are of an advertiser, a scenario, ...
_P1, _P2, _P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P4, _P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
_ALL_64 = 2**64 - 1


def bucket_of(advertiser_id: str, buckets: int) -> int:
    """The bucket that an advertiser's rows lie in: ``pmod(xxhash64(advertiser_id), buckets)`` of Spark, by which
    sql/staging spreads them."""
    number = _xxhash64(advertiser_id.encode())
    return (number - 2**64 if number >= 2**63 else number) % buckets


def _xxhash64(data: bytes, seed: int = 42) -> int:
    """XXH64 as its specification has it (github.com/Cyan4973/xxHash), with Spark's seed."""

    def turned(x: int, by: int) -> int:
        return (x << by | x >> 64 - by) & _ALL_64

    def mixed(lane: int, word: int) -> int:
        return turned((lane + word * _P2) & _ALL_64, 31) * _P1 & _ALL_64

    whole = len(data) - len(data) % 32
    h = (seed + _P5) & _ALL_64
    if whole:
        lanes = [(seed + _P1 + _P2) & _ALL_64, (seed + _P2) & _ALL_64, seed, (seed - _P1) & _ALL_64]
        for at in range(0, whole, 32):
            words = (int.from_bytes(data[at + 8 * i : at + 8 * i + 8], "little") for i in range(4))
            lanes = [mixed(lane, word) for lane, word in zip(lanes, words, strict=True)]
        h = sum(turned(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True)) & _ALL_64
        for lane in lanes:
            h = ((h ^ mixed(0, lane)) * _P1 + _P4) & _ALL_64
    h, rest = (h + len(data)) & _ALL_64, data[whole:]
    while len(rest) >= 8:
        h = (turned(h ^ mixed(0, int.from_bytes(rest[:8], "little")), 27) * _P1 + _P4) & _ALL_64
        rest = rest[8:]
    if len(rest) >= 4:
        h = (turned(h ^ int.from_bytes(rest[:4], "little") * _P1 & _ALL_64, 23) * _P2 + _P3) & _ALL_64
        rest = rest[4:]
    for byte in rest:
        h = turned(h ^ byte * _P5 & _ALL_64, 11) * _P1 & _ALL_64
    h = (h ^ h >> 33) * _P2 & _ALL_64
    h = (h ^ h >> 29) * _P3 & _ALL_64
    return h ^ h >> 32


@dataclass(frozen=True)
class Rows:
    """The rows that were asked for: the files that can hold them, and which of these they are (``keep``).

    ``day`` is None where they are of all days, or where no day was ever written. ``stored`` are all rows of it.
    """

    pin: Pin
    key: tuple[str, ...]
    columns: tuple[str, ...]
    day: date | None
    files: list[DataFile]
    keep: pl.Expr | None
    stored: int

    @classmethod
    def of(cls, warehouse: Warehouse, asked: Asked) -> Rows:
        """Plan what is asked.

        Raises:
            ConfigError: no such snapshot, day, column; an expression that is none; a filter that the table has no
                column for.
        """
        declared = warehouse.declared(asked.table)
        snapshot_id = warehouse.snapshot_named(asked.table, asked.snapshot) if asked.snapshot else None
        pin = warehouse.pin(asked.table, snapshot_id)
        columns = _columns(pin, asked.columns)
        keep = _keep(warehouse.config, declared, pin, asked)
        day, files = _of_day(pin, asked, now=snapshot_id is None)
        stored = sum(file.rows for file in files)
        if asked.advertiser is not None and "bucket" in declared.partition:
            own = bucket_of(asked.advertiser, warehouse.config.dataset.buckets)
            files = [file for file in files if file.bucket == own]
        return cls(pin, declared.key, columns, day, files, keep, stored)

    def parts(self, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
        """Of each file the rows that are wanted, in the files' order; a table without files has one part, empty."""
        names = list(columns or self.columns)
        more = [name for name in self._filtered_by if name not in names]
        for files in [[file] for file in self.files] or [[]]:
            rows = read_files(files, self.pin.schema, [*names, *more])
            if self.keep is not None:
                try:
                    rows = rows.filter(self.keep)
                except pl.exceptions.PolarsError as error:  # of a value, such as a text that is cast to a number
                    raise ConfigError(f"--where: {_first_line(error)}") from None
            yield rows.select(names)

    def first(self, limit: int | None, by: Sequence[tuple[str, bool]] = ()) -> tuple[pl.DataFrame, int]:
        """The first ``limit`` rows (all if None), and how many there are.

        Args:
            by: columns to sort all of them by, each with whether it descends; the key decides between equals. Without,
                they are the first that the files have, in the order of the key.
        """
        order = [name for name, _ in by]
        names = [*dict.fromkeys([*self.columns, *order, *self.key])]
        order += [name for name in self.key if name not in order]
        falling = [falls for _, falls in by] + [False] * (len(order) - len(by))

        def sorted_(parts: list[pl.DataFrame]) -> pl.DataFrame:
            return pl.concat(parts).sort(order, descending=falling, nulls_last=True).head(limit or _ALL_64 // 2)

        kept: list[pl.DataFrame] = []
        there, found = 0, 0
        for part in self.parts(names):
            found += part.height
            if by and limit is not None:
                kept = [sorted_([*kept, part])]
            elif limit is None or there < limit:
                kept.append(part if limit is None else part.head(limit - there))
                there += kept[-1].height
            if limit is not None and there >= limit and self.keep is None and not by:
                found = sum(file.rows for file in self.files)
                break
        return sorted_(kept).select(self.columns), found

    @property
    def _filtered_by(self) -> list[str]:
        return [] if self.keep is None else [*dict.fromkeys(self.keep.meta.root_names())]


def _of_day(pin: Pin, asked: Asked, now: bool) -> tuple[date | None, list[DataFile]]:
    """The day that is asked for and its files; ``now``: it is not asked of a snapshot.

    Raises:
        ConfigError: the table has no such day.
    """
    if asked.day == ALL:
        return None, pin.files()
    if asked.day == NEWEST:
        # Whatever is newer than the newest day that a kept commit wrote is found by its files; all is for ledgers.
        since = max(pin.writers(), default=NO_DAY)
        newest = max(_days(pin, now, since), default=None)
        return newest, pin.files(newest, newest) if newest else pin.files()
    ds = asked.day
    assert isinstance(ds, date)
    if files := pin.files(ds, ds):
        return ds, files
    days = _days(pin, now)
    if ds not in days:
        writer = chain.writer(pin.name)
        raise ConfigError(f"{pin.name}: no day {ds}; {_nearest_days(ds, days)}. It is written by: {writer}")
    return ds, []


def _days(pin: Pin, now: bool, since: date = NO_DAY) -> set[date]:
    """The days of a table from one on; of one as it is ``now``, those that were written without a row too."""
    first, last = (since, date.max) if since != NO_DAY else (None, None)
    return {*(pin.days(first, last) if now else (file.ds for file in pin.files(first, last)))} - {NO_DAY}


def _nearest_days(ds: date, days: set[date]) -> str:
    if not days:
        return "nothing was written to it yet"
    before, after = [day for day in days if day < ds], [day for day in days if day > ds]
    near = [str(day) for day in (max(before, default=None), min(after, default=None)) if day]
    return f"it has {in_words(days, 5)}" + (f"; the nearest: {', '.join(near)}" if len(days) > 1 else "")


def _columns(pin: Pin, names: Sequence[str]) -> tuple[str, ...]:
    known = tuple(pin.schema.names)
    for name in names if tuple(names) != (ALL,) else ():
        column(pin, name, "--columns")
    return tuple(dict.fromkeys(names)) if names and tuple(names) != (ALL,) else known


def column(pin: Pin, name: str, option: str) -> str:
    """The name, if the table has a column of it.

    Raises:
        ConfigError: it has none.
    """
    if name not in pin.schema.names:
        raise ConfigError(f'{option}: {pin.name} has no column "{plain(name)}"; {nearest(name, pin.schema.names)}')
    return name


def _keep(config: Config, declared: Table, pin: Pin, asked: Asked) -> pl.Expr | None:
    """Which rows are wanted, None for all."""
    names, wanted = pin.schema.names, []
    tasks = [task.name for task in config.task]
    if asked.task is not None and asked.task not in tasks:
        raise ConfigError(f'--task: no task "{plain(asked.task)}" in {config.path}; {nearest(asked.task, tasks)}')
    for level, id_, columns in (
        ("advertiser", asked.advertiser, ("advertiser_id",)),
        ("scenario", asked.scenario, ("scenario_id", "scenario")),
        ("task", asked.task, ("task",)),
    ):
        own = [name for name in columns if name in names]
        if id_ is None:
            continue
        if own:
            wanted.append(pl.col(own[0]) == id_)
        elif level != "task" and {*_OF_LEVELS} <= {*names}:
            wanted.append((pl.col("level") == level) & (pl.col("value") == id_))
        else:
            raise ConfigError(f"--{level}: {declared.name} has no {columns[0]}; its columns: {', '.join(names)}")
    if asked.where is not None:
        wanted.append(_expression(pin, asked.where))
    return pl.all_horizontal(wanted) if wanted else None


def _expression(pin: Pin, text: str) -> pl.Expr:
    """A condition in SQL, as Polars reads it.

    Raises:
        ConfigError: it is none, names what the table has not, compares what cannot be, or looks at other rows.
    """
    said, empty = f'--where "{plain(text)}"', read_files([], pin.schema)
    whole_day = "export the day, and ask DuckDB (docs/read_the_tables.md)"
    try:
        made = pl.sql_expr(text)
        for name in made.meta.root_names():
            column(pin, name, said)
        if not _of_one_row(made, empty.schema):
            raise ConfigError(f"{said}: it looks at more than a row's own values; {whole_day}")
        kind = empty.lazy().select(made.alias("wanted")).collect_schema()["wanted"]
    except (pl.exceptions.PolarsError, ValueError) as error:
        if ".subplan(" in str(error):
            raise ConfigError(f"{said}: a query in it is not read here; {whole_day}") from None
        hint = "a day is written DATE '2020-06-30'" if "temporal" in str(error) else 'expected such as "spend > 100"'
        raise ConfigError(f"{said}: {_first_line(error)}; {hint}") from None
    if kind != pl.Boolean:
        raise ConfigError(f'{said}: it is {kind}, neither true nor false; expected such as "spend > 100"')
    return made


def _of_one_row(made: pl.Expr, schema: pl.Schema) -> bool:
    """Whether an expression is the same however rows are parted: no aggregate in it, no window, no row number."""
    if made.meta.is_literal(allow_aliasing=True):
        return True
    with contextlib.suppress(pl.exceptions.ColumnNotFoundError):  # of IN (...), which asks for a schema, and is so
        if not made.meta.is_row_separable():
            return False
    return all(_of_one_row(part, schema) for part in made.meta.pop(schema=dict(schema)))


def _first_line(error: Exception) -> str:
    return plain(str(error).strip().splitlines()[0])


def rows_of(warehouse: Warehouse, table: str, day: date | None = None) -> pl.DataFrame:
    """All rows of a table, or of one day of it, in the order of its key."""
    return Rows.of(warehouse, Asked(table, day or ALL)).first(None)[0]
