"""Why a query over raw sources stopped, in a line for each cause: source, day, file, column, count, an example.

A good day never comes here: the sources are read again only when something stopped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipelines.errors import DataError
from pipelines.source_config import BAD_ROW
from pipelines.sources.casts import MARK, column
from pipelines.sources.files import RawFile
from pipelines.sources.heads import Dialect, unpacked
from pipelines.sources.parts import Part
from pipelines.sources.storage import path_of
from pipelines.sources.views import View

# Marks of Spark's and Java's errors that are about raw data and not about us.
UNREADABLE = (
    "FAILED_READ_FILE",
    "CANNOT_READ_FILE_FOOTER",
    "UNABLE_TO_INFER_SCHEMA",
    "MALFORMED_RECORD_IN_PARSING",
    "PATH_NOT_FOUND",
    "is not a Parquet file",
    "EOFException",
)
UNCASTABLE = ("CAST_INVALID_INPUT", "CAST_OVERFLOW", "CANNOT_PARSE", MARK)
_LONGEST = 200  # characters of a row that a line shows
_LINES_LOOKED_AT = 20_000_000


def explain_failure(views: Sequence[View], error: PySparkException | Py4JJavaError) -> DataError | None:
    """Turn an error of the staging query into one that names source, file, column, count and example; None if no source
    is at fault."""
    causes = list(_causes(error))
    text = "\n".join([str(error), *causes])
    crashed = "Python worker exited unexpectedly" in text  # its end is an EOFException as well
    unreadable = not crashed and any(mark in text for mark in UNREADABLE)
    if not unreadable and not any(mark in text for mark in UNCASTABLE):
        return None
    try:
        parts = [(view, part) for view in views for part in view.parts]
        lines = [line for view, part in parts if part.again for line in _malformed(view, part, unreadable)]
        lines += [line for view in views for line in _misfits(view)]
    except (PySparkException, Py4JJavaError) as other:  # a page of a file, which only reading finds damaged
        unreadable, causes, lines = True, list(_causes(other)), []
        text = "\n".join([str(other), *causes])
    if not lines and unreadable:
        lines = [_unreadable(views, text, causes)]
    return DataError(lines) if lines else None


def _causes(error: PySparkException | Py4JJavaError) -> Iterable[str]:
    """The messages of an error and of all that caused it."""
    java = error.java_exception if isinstance(error, Py4JJavaError) else getattr(error, "_origin", None)
    for _ in range(12):
        if java is None:
            return
        yield f"{java.getClass().getName()}: {java.getMessage()}"
        java = java.getCause()


def _unreadable(views: Sequence[View], text: str, causes: Sequence[str]) -> str:
    """The file that Spark named, and the last cause's words."""
    named = re.search(r"(?:reading file|footer for file:?|file at path:?|path:) (\S+?)\.?(?:\s|$)", text)
    path = path_of(named[1]) if named else ""
    place = next(
        ((view, file) for view in views for part in view.parts for file in part.files if file.path == path), None
    )
    where = f"{place[0].at(place[1])}: {place[1].shown}" if place else path or "a source file"
    checksum = re.search(r"ChecksumException: Checksum error: \S+", text)
    if checksum:
        folder, _, name = (place[1].shown if place else path).rpartition("/")
        crc = f"{folder}/.{name}.crc" if folder else f".{name}.crc"
        return f"{where}: cannot be read: it is not what its checksum says; if the file is right, delete {crc}"
    last = next((cause for cause in reversed(causes) if not cause.endswith((": null", ": "))), "")
    words = re.sub(r"^[\w.$]+: ", "", last or text.strip().splitlines()[0])
    return f"{where}: cannot be read: {_short(words)}"


def _malformed(view: View, part: Part, strays: bool) -> list[str]:
    """Rows of CSV and JSON that are none: their number, and the first, with its line. ``strays``: look for quotes too
    that Spark stops at and does not show."""
    assert part.again is not None
    bad = part.again().select("*", F.col("_metadata.file_path").alias("__file")).filter(F.col(BAD_ROW).isNotNull())
    # Spark answers no query about the malformed column alone: another one is counted beside it.
    asked = (F.count("*"), F.first(BAD_ROW), F.count(column(part.frame.columns[0])))
    rows = bad.groupBy("__file").agg(*asked).orderBy("__file").collect()
    files = {file.path: file for file in part.files}
    found = [(files[path], int(count), text) for uri, count, text, _ in rows if (path := path_of(uri)) in files]
    if strays and not found and view.source.format == "csv":
        found = [(file, 1, text) for file in part.files if (text := _stray_quote(view, file))][:1]
    if not found:
        return []
    file, count, text = found[0][0], sum(number for _, number, _ in found), found[0][2]
    line, following = _place(view, file, text)
    where = f"{view.at(file)}: {file.shown}{f' line {line}' if line else ''}"
    more = f" in {len(found)} files" if len(found) > 1 else ""
    return [
        f"{where}: {_what_is_wrong(view, part, text, following)}"
        + (f" ({count} such rows{more})" if count > 1 or more else "")
    ]


def _what_is_wrong(view: View, part: Part, text: str, following: Sequence[str]) -> str:
    shown = f'"{_short(text)}"'
    if view.source.format == "json":
        return f"is no JSON object: {shown}"
    dialect = Dialect.of(view.source)
    cells, wanted = dialect.cells(text), part.names
    counted = f"{len(cells)} cells, expected {len(wanted)} ({', '.join(wanted[:12])}): {shown}"
    if len(cells) == len(wanted):
        return f"a quote within a quoted value: {shown}; such quotes are doubled, or options escape says how"
    if dialect.open_quote(text):
        whole = ("\n".join([text, *following[:n]]) for n in range(1, len(following) + 1))
        if any(not dialect.open_quote(row) and len(dialect.cells(row)) == len(wanted) for row in whole):
            return f'{counted}; a quoted value goes on in the next line: write options = {{ multiLine = "true" }}'
        return f"{counted}; a quote in it is not closed"
    return f"{counted}; a value that holds the separator must be quoted" if len(cells) > len(wanted) else counted


def _stray_quote(view: View, file: RawFile) -> str:
    """The first row of a file in which a quoted value goes on after its quote: Spark stops there and shows no row."""
    dialect = Dialect.of(view.source)
    quote, escape = dialect.options.get("quote", '"')[:1], dialect.options.get("escape", '"')[:1]
    if not quote:
        return ""
    sep, mark, back = re.escape(dialect.sep), re.escape(quote), re.escape(escape)
    within = rf"(?:{back}[{mark}{back}]|[^{mark}{'' if escape == quote else back}])*"
    stray = re.compile(rf"(?:^|{sep}){mark}{within}{mark}(?!{sep}|{mark}|\s*$)")
    for text in _lines(view, file):
        if stray.search(text):
            return text
    return ""


def _place(view: View, file: RawFile, text: str) -> tuple[int, list[str]]:
    """The number of the line in which a row begins, 0 if it is not found, and the lines after it."""
    first = re.split(r"[\r\n]", text.strip("\r\n"))[0]
    lines = iter(_lines(view, file))
    number = next((number for number, line in enumerate(lines, 1) if line == first), 0)
    return number, list(islice(lines, 5))


def _lines(view: View, file: RawFile) -> Iterable[str]:
    assert view.storage is not None
    encoding = Dialect.of(view.source).encoding
    try:
        with view.storage.open(file.path) as opened:
            content = unpacked(opened, file.path)
            if encoding.upper().startswith(("UTF-16", "UTF-32")):
                yield from content.read().decode(encoding, "replace").removeprefix("\ufeff").splitlines()
                return
            for number, line in enumerate(content):
                if number > _LINES_LOOKED_AT:
                    return
                text = line.decode(encoding, "replace").rstrip("\r\n")
                yield text.removeprefix("\ufeff") if number == 0 else text
    except (OSError, EOFError, LookupError):
        return


def _misfits(view: View) -> list[str]:
    """Values that do not fit their declared type: one pass over each part counts them all."""
    counts: dict[str, int] = {}
    first: dict[str, str] = {}
    for part in view.parts:
        tests = {name: test for name, kind in view.types.items() if (test := _misfit(part, name, kind)) is not None}
        if not tests:
            continue
        raw = part.again().filter(F.col(BAD_ROW).isNull()) if part.again else part.frame
        if part.files:
            raw = raw.withColumn("__file", F.col("_metadata.file_path"))
        shown = [F.coalesce(part.columns[name][0].cast("string"), F.lit("null")).alias(name) for name in view.types]
        row = F.struct(F.col("__file") if part.files else F.lit("").alias("__file"), *shown)
        asked: list[Column] = []
        for test in tests.values():
            asked += [F.count_if(test), F.first(F.when(test, row), ignorenulls=True)]
        answers = raw.agg(*asked).first()
        assert answers is not None
        files = {file.path: file for file in part.files}
        for place, name in enumerate(tests):
            count, example = answers[2 * place], answers[2 * place + 1]
            counts[name] = counts.get(name, 0) + int(count)
            if count and name not in first:
                file = files.get(path_of(example["__file"]))
                values = {key: example[key] for key in view.types}
                kind = view.types[name].simpleString()
                first[name] = (
                    f'{view.at(file)}: column "{name}": {{}} values are not {kind}; expected 0. First: '
                    f'"{_short(example[name])}" in {_short(str(values))}{f" of {file.shown}" if file else ""}'
                    f"{_hint(part.columns[name][1], view.types[name])}"
                )
    return [line.replace("{}", str(counts[name]), 1) for name, line in first.items()]


def _misfit(part: Part, name: str, declared: T.DataType) -> Column | None:
    value, _ = part.columns[name]
    fits = part.fit(name, declared).fits
    return None if fits is None else value.isNotNull() & ~F.coalesce(fits, F.lit(False))


def _hint(found: T.DataType, declared: T.DataType) -> str:
    if isinstance(declared, T.DateType) and isinstance(found, (T.TimestampType, T.TimestampNTZType)):
        return (
            ". It has a time of day: midnight of another time zone, perhaps; declare it timestamp, and write "
            "date(from_utc_timestamp(...)) in the SQL"
        )
    if isinstance(found, T.DoubleType) and isinstance(declared, (T.LongType, T.IntegerType)):
        return ". Declare it as double if fractions are right"
    return ""


def days_found(views: Sequence[View]) -> list[str]:
    """For a day that came out empty: what the sources with a file a day hold, before the SQL's filter."""
    said = []
    for view in views:
        times = (T.DateType, T.TimestampType, T.TimestampNTZType)
        name = next((name for name, kind in view.types.items() if isinstance(kind, times)), None)
        if name is None or "{ds" not in str(view.source.path):
            continue
        day = column(name).cast("date").cast("string")  # Python has no year 0
        try:
            count, oldest, newest = view.frame.agg(F.count("*"), F.min(day), F.max(day)).collect()[0]
        except (PySparkException, Py4JJavaError):
            continue  # the day is empty whatever else is wrong
        days = f', "{name}" from {oldest} to {newest} (UTC); the SQL left none of them' if count else ""
        said.append(f"{view.at()}: the files hold {count} rows{days}")
    return said


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
