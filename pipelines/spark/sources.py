"""Raw sources as typed Spark views: their columns are checked here, and what cannot be read is named here.

Text is cast by Spark's ANSI cast inside the staging query, which stops at the first value that does not fit.
Only then ``explain_failure`` reads the sources again, to say how many there are, in which column, with an
example.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from datetime import date
from glob import glob
from pathlib import Path

from py4j.protocol import Py4JJavaError
from pyarrow.fs import FileSelector, FileSystem, FileType
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.config import Config, Source
from pipelines.errors import DataError
from pipelines.warehouse.days import days_between

# Marks of Spark's and Java's errors that are about the data and not about us.
UNREADABLE = (
    "FAILED_READ_FILE",
    "CANNOT_READ_FILE_FOOTER",
    "UNABLE_TO_INFER_SCHEMA",
    "MALFORMED_RECORD_IN_PARSING",
    "PATH_NOT_FOUND",
    "is not a Parquet file",
    "EOFException",
)
UNCASTABLE = ("CAST_INVALID_INPUT", "CAST_OVERFLOW", "CANNOT_PARSE")


@dataclass(frozen=True)
class Finding:
    """A column that nobody declared, of a source or of the file of a query."""

    of: str
    column: str
    example: str


def register_sources(spark: SparkSession, config: Config, first: date, last: date) -> list[Finding]:
    """Register every [[source]] as a temporary view with the declared column types.

    Returns:
        Columns that are new, for the validation report.

    Raises:
        DataError: a file is missing or cannot be read, or a declared column is gone.
    """
    findings = []
    for source in config.source:
        frame = _read(spark, config, source, first, last)
        missing = [name for name in source.columns if name not in frame.columns]
        if missing:
            lines = []
            for name in missing:
                nearest = difflib.get_close_matches(name, set(frame.columns) - set(source.columns), n=1, cutoff=0.5)
                hint = f'; is it "{nearest[0]}" now?' if nearest else ""
                lines.append(
                    f'source {source.name} ds={_range(first, last)}: column "{name}" is gone; '
                    f"found {', '.join(frame.columns)}{hint}"
                )
            raise DataError(lines)
        for name in frame.columns:
            if name not in source.columns:
                findings.append(
                    Finding(f"source {source.name}", name, f"{name} {frame.schema[name].dataType.simpleString()}")
                )
        frame.select(
            *(F.col(f"`{name}`").cast(kind).alias(name) for name, kind in source.columns.items())
        ).createOrReplaceTempView(source.name)
    return findings


def explain_failure(
    spark: SparkSession, config: Config, first: date, last: date, error: PySparkException | Py4JJavaError
) -> DataError | None:
    """Turn an error of the staging query into one that names source, column, count and example; None if it is not the
    data's fault."""
    text = str(error)
    if line := _line_with(text, UNREADABLE):
        return DataError(f"ds={_range(first, last)}: a source file cannot be read: {line}")
    line = _line_with(text, UNCASTABLE)
    if not line:
        return None
    lines = []
    for source in config.source:
        frame = _read(spark, config, source, first, last)
        for name, kind in source.columns.items():
            value = F.col(f"`{name}`")
            wrong = frame.filter(value.isNotNull() & value.try_cast(kind).isNull())
            if count := wrong.count():
                row = wrong.first()
                assert row is not None
                lines.append(
                    f'source {source.name} ds={_range(first, last)}: column "{name}": {count} values are not {kind}; '
                    f'expected 0. First: "{row[name]}" in {dict(row.asDict())}'
                )
    return DataError(lines or f"ds={_range(first, last)}: the staging SQL cannot cast a value: {line}")


def _read(spark: SparkSession, config: Config, source: Source, first: date, last: date) -> DataFrame:
    reader = spark.read.options(**{key: text.resolve() for key, text in source.options.items()})
    if source.format == "table":
        return spark.read.table(source.path.resolve() or source.name)
    if source.format == "jdbc":
        return reader.format("jdbc").load()
    paths = _paths(config, source, first, last)
    if source.format == "csv":
        # enforceSchema: columns in another order in one of several files would be swapped without a word.
        reader = reader.option("mode", "FAILFAST").option("enforceSchema", "false")
    if source.format == "json":  # a line may leave a column out, so its columns cannot be inferred from a few lines
        reader = reader.option("mode", "FAILFAST").schema(", ".join(f"`{name}` string" for name in source.columns))
    try:
        return reader.format(source.format).load(paths)
    except (PySparkException, Py4JJavaError) as error:
        raise DataError(
            f"source {source.name} ds={_range(first, last)}: cannot be read: {_line_with(_words(error), ('',))}. "
            f"Path: {paths[0]}"
        ) from error


def _words(error: PySparkException | Py4JJavaError) -> str:
    """Java's own message; the first line of a Py4JJavaError names only the call."""
    return str(error.java_exception.getMessage()) if isinstance(error, Py4JJavaError) else str(error)


def _paths(config: Config, source: Source, first: date, last: date) -> list[str]:
    """The source's files for the days asked for, all of them there.

    Raises:
        DataError: a day's file is missing.
    """
    path = source.path.resolve().replace("{home}", str(config.home))
    base = path if "://" in path else str(config.path.parent / path)
    days = days_between(first, last) if "{ds}" in base else [None]
    paths = {ds: base.replace("{ds}", str(ds)) for ds in days}
    missing = {ds: path for ds, path in paths.items() if not _exists(path)}
    if missing:
        ds, path = next(iter(missing.items()))
        raise DataError(
            f"source {source.name} ds={ds or _range(first, last)}: {len(missing)} of {len(paths)} files are missing; "
            f"expected 0. First: {path}. If the day is only late, run again when it has arrived."
        )
    return list(paths.values())


def _exists(path: str) -> bool:
    if "://" not in path:
        return bool(glob(path)) and not (Path(path).is_dir() and not any(Path(path).iterdir()))
    filesystem, inner = FileSystem.from_uri(path)
    folder, _, pattern = inner.rpartition("/")
    if "*" in pattern:
        return any(filesystem.get_file_info(FileSelector(folder, allow_not_found=True)))
    return bool(filesystem.get_file_info(inner).type != FileType.NotFound)


def _range(first: date, last: date) -> str:
    return str(first) if first == last else f"{first}..{last}"


def _line_with(text: str, marks: tuple[str, ...]) -> str:
    """The first line of an error that holds one of ``marks``, without Java's prefix; empty if there is none."""
    lines = (line.strip().removeprefix("Caused by: ") for line in text.strip().splitlines())
    return next((line[:400] for line in lines if any(mark in line for mark in marks)), "")
