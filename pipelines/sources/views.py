"""Raw sources as typed Spark views: every file's own columns are looked at, read and cast, and only then united. So a
column that has another type in one file of a range is cast there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from functools import partial, reduce

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from pipelines.config import Config
from pipelines.errors import ConfigError, DataError
from pipelines.source_config import Source
from pipelines.sources.casts import GoneError, RefusedError, column
from pipelines.sources.files import Finding, RawFile, files_of, period
from pipelines.sources.looks import (
    absent_optional,
    declared_types,
    gone_line,
    in_files,
    label,
    look_into,
    new_columns,
    refuse_absent_fields,
    refuse_missing,
    undeclared,
)
from pipelines.sources.parts import Part, json_text, parts_of, refuse_options
from pipelines.sources.storage import Storage, storage_of


@dataclass(frozen=True)
class View:
    """One [[source]] as the SQL sees it."""

    source: Source
    types: dict[str, T.DataType]
    days: str
    parts: tuple[Part, ...]
    storage: Storage | None = None
    findings: list[Finding] = field(default_factory=list)
    files: tuple[RawFile, ...] = ()

    def at(self, file: RawFile | None = None) -> str:
        """How a message begins."""
        return label(self.source, self.days, file)

    @property
    def frame(self) -> DataFrame:
        return reduce(DataFrame.unionAll, [self._typed(part) for part in self.parts])

    def _typed(self, part: Part) -> DataFrame:
        made = []
        for name, declared in self.types.items():
            value, _ = part.columns[name]
            made.append(
                part.fit(name, declared).checked(value, f'source {self.source.name} column "{name}"').alias(name)
            )
        return part.frame.select(*made)


def register_sources(spark: SparkSession, config: Config, first: date, last: date) -> list[View]:
    """Register every [[source]] as a temporary view with the declared column types.

    Raises:
        ConfigError: a declared type, an option or an address that Spark does not know.
        DataError: a file is missing or cannot be read, a declared column is gone or has a type that does not fit.
    """
    views = []
    for source in config.source:
        view = _open(spark, config, source, first, last)
        view.frame.createOrReplaceTempView(source.name)
        views.append(view)
    return views


def _open(spark: SparkSession, config: Config, source: Source, first: date, last: date) -> View:
    days, types = period(first, last), declared_types(source)
    if source.format in ("table", "jdbc"):
        frame = _load_table(spark, source)
        found = {name: (column(name), frame.schema[name].dataType) for name in frame.columns}
        lacking = [name for name in types if name not in found]
        if lacking:
            raise DataError([gone_line(source, days, name, [], 0, frame.columns) for name in lacking])
        new = {name: kind.simpleString() for name, (_, kind) in found.items() if name not in types}
        view = View(source, types, days, (Part(frame, {name: found[name] for name in types}),))
        view.findings.extend(new_columns(source, new))
    else:
        storage = storage_of(spark, source.path.resolve())
        files, findings = files_of(config, source, storage, first, last)
        refuse_options(spark, source)
        looks = look_into(source, storage, days, files)
        if source.format == "json":
            refuse_absent_fields(source, days, looks, partial(json_text, spark, source, types))
        else:
            refuse_missing(source, days, looks)
        view = View(source, types, days, tuple(parts_of(spark, source, types, looks)), storage, findings, tuple(files))
        view.findings.extend(new_columns(source, undeclared(source, looks)))
        view.findings.extend(absent_optional(source, looks))
    _refuse_types(view)
    return view


def _load_table(spark: SparkSession, source: Source) -> DataFrame:
    try:
        if source.format == "table":
            return spark.read.table(source.path.resolve() or source.name)
        return spark.read.options(**source.options_now()).format("jdbc").load()
    except (PySparkException, Py4JJavaError) as error:
        text = str(error)
        if "TABLE_OR_VIEW_NOT_FOUND" in text:
            raise ConfigError(f"[[source]] {source.name}: Spark's catalog has no table {source.path}") from None
        if "ClassNotFoundException" in text or "No suitable driver" in text:
            raise ConfigError(
                f"[[source]] {source.name}: Spark has no JDBC driver for it; add its jar as [spark.conf] "
                '"spark.jars.packages" or "spark.jars", and name its class in options: driver'
            ) from None
        raise


def _refuse_types(view: View) -> None:
    """Types that do not go together, whatever the values.

    Raises:
        DataError: a line for each column, with an example.
    """
    lines = []
    for part in view.parts:
        for name, declared in view.types.items():
            try:
                part.fit(name, declared)
            except GoneError as gone:
                path = f"{name}.{gone.name}"
                lines.append(gone_line(view.source, view.days, path, part.files, len(part.files), gone.found))
            except RefusedError as why:
                value, found = part.columns[name]
                row = part.frame.select(value.alias("x")).filter("x is not null").first()
                where = f" in {in_files(part.files, sum(len(p.files) for p in view.parts))}" if part.files else ""
                begin = view.at(part.files[0] if part.files else None)
                lines.append(
                    f'{begin}: column "{name}" is {found.simpleString()}{where}'
                    f"; declared {declared.simpleString()}: {why}. First: {row[0] if row else 'null'}"
                )
    if lines:
        raise DataError(lines)
