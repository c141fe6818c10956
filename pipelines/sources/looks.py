"""What each file of a source holds: looked at by the driver, in parallel, in the footer of a Parquet or ORC file and in
the first lines of a CSV or JSON file. So a column that is gone in one file of a range is named, not read as null.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import reduce

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipelines.errors import ConfigError, DataError
from pipelines.source_config import Source
from pipelines.sources.casts import column, nearest
from pipelines.sources.csv_heads import csv_names, titles
from pipelines.sources.files import THREADS, Finding, RawFile
from pipelines.sources.footers import footer
from pipelines.sources.heads import Dialect, UnusableError, text_head
from pipelines.sources.json_heads import json_fields
from pipelines.sources.storage import Storage, path_of

SHOWN = 8  # names that a line lists
_NAMES_A_LINE = 30


@dataclass(frozen=True)
class Look:
    """What a file holds: its columns with their types, in order. ``rows``: None where only reading would tell.

    ``titles``: rows of a CSV file to leave out. ``fields``: of JSON, those within structs too, as far as was looked;
    ``whole``: that is all of it.
    """

    file: RawFile
    columns: dict[str, T.StructField | str]
    rows: int | None = None
    titles: tuple[str, ...] = ()
    fields: frozenset[tuple[str, ...]] = frozenset()
    whole: bool = True


def label(source: Source, days: str, file: RawFile | None = None) -> str:
    return f"source {source.name} ds={(file.ds if file else None) or days}"


def some(names: Iterable[str], at_most: int = SHOWN) -> str:
    names = list(names)
    return ", ".join(name if len(name) <= 100 else f"{name[:97]}..." for name in names[:at_most]) + (
        f" and {len(names) - at_most} more" if len(names) > at_most else ""
    )


def in_files(files: Sequence[RawFile], of: int) -> str:
    """Where something is, by the first file that has it."""
    return files[0].shown + (f" and {len(files) - 1} more of {of} files" if len(files) > 1 else "")


def declared_types(source: Source) -> dict[str, T.DataType]:
    types = {}
    for name, kind in source.columns.items():
        try:
            types[name] = T.StructType.fromDDL(f"`x` {kind}")["x"].dataType
        except PySparkException:
            raise ConfigError(f'[[source]] {source.name}: columns: {name} = "{kind}" is no type of Spark') from None
    return types


def look_into(source: Source, storage: Storage, days: str, files: Sequence[RawFile]) -> list[Look]:
    """Look into every file.

    Raises:
        DataError: one line for each way in which files are unusable.
    """
    dialect = Dialect.of(source)

    def look(file: RawFile) -> Look | str:
        try:
            with storage.open(file.path) as opened:
                if source.format in ("parquet", "orc"):
                    end = footer(opened, source.format)
                    return Look(file, end.columns, end.rows)
                head = text_head(opened, file.path, dialect)
                rows = 0 if head.whole and not head.text.strip() else None
                if source.format == "csv":
                    names = csv_names(head, dialect, list(source.columns), source.skip_lines)
                    return Look(file, _as_text(names), rows, titles(head, dialect, source.skip_lines))
                found, whole = json_fields(head, dialect)
                names = [path[0] for path in found if len(path) == 1]
                return Look(file, _as_text(names), rows, fields=frozenset(found), whole=whole)
        except UnusableError as error:
            return str(error)

    with ThreadPoolExecutor(THREADS) as threads:
        looks = list(threads.map(look, files))
    unusable: dict[str, list[RawFile]] = defaultdict(list)
    for file, found in zip(files, looks, strict=True):
        if isinstance(found, str):
            unusable[found].append(file)
    if unusable:
        good = next((look for look in looks if isinstance(look, Look)), None)
        raise DataError(
            [
                f"{label(source, days, bad[0])}: {in_files(bad, len(files))}: {why}{_leave_out(bad[0], good)}"
                for why, bad in list(unusable.items())[:SHOWN]
            ]
        )
    return [look for look in looks if isinstance(look, Look)]


def _as_text(names: Iterable[str]) -> dict[str, T.StructField | str]:
    return {name: T.StructField(name, T.StringType()) for name in names}


def _leave_out(bad: RawFile, good: Look | None) -> str:
    """A hint for a stray file beside good ones."""
    ending = good.file.path.rpartition("/")[2].rpartition(".")[2] if good else ""
    if not ending or bad.path.endswith(f".{ending}"):
        return ""
    return f'. A file of another kind is left out with options = {{ pathGlobFilter = "*.{ending}" }}'


def refuse_missing(source: Source, days: str, looks: Sequence[Look]) -> None:
    """A file without rows may lack columns: pandas writes an empty day so."""
    read = [look for look in looks if look.rows != 0]
    lacking: dict[str, list[Look]] = defaultdict(list)
    for look in read:
        for name in source.columns:
            if name not in look.columns and name not in look.file.keys and name not in source.optional:
                lacking[name].append(look)
    bare = [look for look in read if not {*look.columns, *look.file.keys} & set(source.columns)]
    if bare and len(source.columns) > 1:
        raise DataError(_none(source, days, bare, len(looks)))
    lines = [
        gone_line(source, days, name, [look.file for look in among], len(looks), list(among[0].columns))
        for name, among in lacking.items()
    ]
    for name in source.columns:
        if closed := [look for look in read if isinstance(look.columns.get(name), str)]:
            where, kind = in_files([look.file for look in closed], len(looks)), closed[0].columns[name]
            begin = label(source, days, closed[0].file)
            lines.append(f'{begin}: column "{name}" is {kind} in {where}, which Spark cannot read; write another type')
    if lines:
        raise DataError(lines)


def _none(source: Source, days: str, bare: Sequence[Look], of: int) -> str:
    found = list(bare[0].columns)
    line = (
        f"{label(source, days, bare[0].file)}: {in_files([look.file for look in bare], of)}: none of the "
        f"{len(source.columns)} declared columns is there; found {some(found, _NAMES_A_LINE) or 'no column'}"
    )
    if source.format != "json" or not found:
        return line
    within = next((name for name in found if name in ("data", "results", "rows", "items", "records")), found[0])
    return f"{line}. If the rows lie within it, write each as a line of its own: jq -c '.{within}[]'"


def refuse_absent_fields(
    source: Source, days: str, looks: Sequence[Look], read: Callable[[Sequence[RawFile]], DataFrame]
) -> None:
    """A line of JSON may leave a field out; that no row of a day has it, no reader would tell. ``read`` gives the
    rows of files."""
    by_day: dict[date | None, list[Look]] = defaultdict(list)
    for look in looks:
        if look.rows != 0:
            by_day[look.file.ds].append(look)
    lacking: dict[tuple[str, ...], list[Look]] = defaultdict(list)
    for among in by_day.values():
        there = {path for look in among for path in (*look.fields, *((key,) for key in look.file.keys))}
        for path in _paths(declared_types(source)):
            if path not in there and path[0] not in source.optional:
                lacking[path] += among
    if not any(lacking.values()):
        return
    searched = {look.file.path: look.file for among in lacking.values() for look in among if not look.whole}
    seen = _search(read(list(searched.values())), list(lacking)) if searched else {}
    for place, path in enumerate(lacking):
        days_with = {look.file.ds for look in lacking[path] if look.file.path in seen and seen[look.file.path][place]}
        lacking[path] = [look for look in lacking[path] if look.file.ds not in days_with]
    tops = {(name,) for name in source.columns}
    bare = [look for look in next(iter(lacking.values())) if not look.fields & tops]
    if bare and all(lacking.get(path) for path in tops):
        raise DataError(_none(source, days, bare, len(looks)))
    lines = [
        gone_line(
            source,
            days,
            ".".join(path),
            [look.file for look in among],
            len(looks),
            sorted(".".join(path) for path in among[0].fields),
        )
        for path, among in lacking.items()
        if among
    ]
    if lines:
        raise DataError(lines)


def _paths(types: dict[str, T.DataType], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The columns and the fields in structs: ``("metrics",)``, ``("metrics", "clicks")``."""
    found = []
    for name, kind in types.items():
        found.append((*above, name))
        if isinstance(kind, T.StructType):
            found += _paths({inner.name: inner.dataType for inner in kind}, (*above, name))
    return found


def _search(rows: DataFrame, paths: Sequence[tuple[str, ...]]) -> dict[str, list[bool]]:
    """Whether any row has each field, by the file's path: one pass."""
    values = [reduce(lambda value, name: value[name], path[1:], column(path[0])) for path in paths]
    any_row = [F.max(value.isNotNull()).alias(f"{i}") for i, value in enumerate(values)]
    by_file = rows.groupBy(F.col("_metadata.file_path")).agg(*any_row)
    return {path_of(row[0]): [bool(found) for found in row[1:]] for row in by_file.collect()}


def gone_line(source: Source, days: str, name: str, files: Sequence[RawFile], of: int, found: Sequence[str]) -> str:
    where = f" from {in_files(files, of)}" if files else ""
    line = (
        f'{label(source, days, files[0] if files else None)}: column "{name}" is gone{where}; '
        f"found {some(found, _NAMES_A_LINE)}{nearest(name, set(found) - set(source.columns))}"
    )
    if of > len(files) > 0 or (source.format == "json" and files):
        end = "" if line.endswith("?") else "."
        top = name if name in source.columns else name.partition(".")[0]
        line += f'{end} If files may lack it, write optional = ["{top}"]: it is null there'
    return line


def undeclared(source: Source, looks: Sequence[Look]) -> dict[str, str]:
    found: dict[str, str] = {}
    for look in looks:
        for name, kind in look.columns.items():
            if name not in source.columns and name not in found and not name.startswith("_c"):
                found[name] = kind if isinstance(kind, str) else kind.dataType.simpleString()
    return found


def new_columns(source: Source, new: dict[str, str]) -> list[Finding]:
    if not new:
        return []
    return [
        Finding(
            f"source {source.name}",
            "new_column",
            "only columns that pipeline.toml declares; what it does not is ignored",
            float(len(new)),
            some(f"{name} {kind}" for name, kind in new.items()),
            next(iter(new)) if len(new) == 1 else None,
        )
    ]


def absent_optional(source: Source, looks: Sequence[Look]) -> list[Finding]:
    found = []
    for name in source.optional:
        lacking = [look.file for look in looks if look.rows != 0 and name not in (*look.columns, *look.file.keys)]
        if lacking:
            expected = "in every file; optional, it is null where it is not"
            where = in_files(lacking, len(looks))
            found.append(
                Finding(f"source {source.name}", "optional_column", expected, float(len(lacking)), where, name)
            )
    return found
