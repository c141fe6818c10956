"""Files with the same columns, read together as one frame: each by its own columns, cast only when they are united."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipelines.errors import ConfigError
from pipelines.source_config import BAD_ROW, Source
from pipelines.sources.casts import MARK, Fit, column, fit
from pipelines.sources.files import RawFile
from pipelines.sources.heads import Dialect
from pipelines.sources.looks import Look
from pipelines.sources.storage import address, scheme_of

# Options that Spark is not asked about: what they would change is decided here.
_OURS = {
    "mode",
    "enforceschema",
    "inferschema",
    "columnnameofcorruptrecord",
    "mergeschema",
    "basepath",
    "columnpruning",
}
_OURS |= {"recursivefilelookup", "pathglobfilter", "path", "paths"}
# Hadoop's checksummed file system cannot open a name with a colon, its plain one can.
_PLAIN_FILES = {
    "fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem",
    "fs.file.impl.disable.cache": "true",
}


@dataclass(frozen=True)
class Part:
    """Files with the same columns, as one frame. ``columns``: each declared one, as it stands in the frame, and the
    type that it has there. ``again`` reads text once more, its malformed rows in the column ``BAD_ROW``."""

    frame: DataFrame
    columns: dict[str, tuple[Column, T.DataType]]
    files: tuple[RawFile, ...] = ()
    names: tuple[str, ...] = ()
    again: Callable[[], DataFrame] | None = None

    def fit(self, name: str, declared: T.DataType) -> Fit:
        value, found = self.columns[name]
        return fit(value, found, declared)


def parts_of(
    spark: SparkSession, source: Source, types: dict[str, T.DataType], looks: Sequence[Look]
) -> Iterable[Part]:
    """The files that hold rows, those of one shape together."""
    groups: dict[Any, list[Look]] = defaultdict(list)
    for look in looks:
        if look.rows == 0:
            continue
        wanted = tuple(key for key in look.file.keys if key in types and key not in look.columns)
        if source.format == "csv":
            shape: Any = tuple(look.columns)
        elif source.format == "json":
            shape = ()
        else:
            shape = tuple(str(look.columns.get(name)) for name in types)
        groups[(shape, wanted, look.file.base if wanted else "", look.file.keys if wanted else ())].append(look)
    if not groups:
        yield Part(spark.range(0).toDF("none"), {name: (F.lit(None), T.NullType()) for name in types})
    for (_, wanted, _, _), group in groups.items():
        yield _part(spark, source, types, group, wanted)


def _part(
    spark: SparkSession,
    source: Source,
    types: dict[str, T.DataType],
    group: Sequence[Look],
    wanted: tuple[str, ...],
) -> Part:
    first, files = group[0], tuple(look.file for look in group)
    names = tuple(first.columns)
    again = None
    if source.format == "csv":
        schema = T.StructType([T.StructField(name, T.StringType()) for name in names])
    elif source.format == "json":
        names = tuple(types)
        schema = T.StructType([T.StructField(name, _text(kind)) for name, kind in types.items() if name not in wanted])
    else:
        fields = [found for name in types if isinstance(found := first.columns.get(name), T.StructField)]
        schema = T.StructType([found for found in fields if not isinstance(found.dataType, T.NullType)])
    left_out = frozenset(title for look in group for title in look.titles)
    load = partial(_load, spark, source, files, schema, wanted, left_out)
    if source.format in ("csv", "json"):
        again = partial(load, permissive=True)
    frame = load()
    columns: dict[str, tuple[Column, T.DataType]] = {}
    for name, declared in types.items():
        value = column(name)
        if name in wanted:
            columns[name] = (value, T.StringType())
        elif name in schema.names:
            columns[name] = _as_time(value, schema[name], declared)
        else:
            columns[name] = (F.lit(None), T.NullType())
    return Part(frame, columns, files, names, again)


def json_text(spark: SparkSession, source: Source, types: dict[str, T.DataType], files: Sequence[RawFile]) -> DataFrame:
    """What JSON files hold of the declared fields, as text; a malformed row has none of them."""
    schema = T.StructType([T.StructField(name, _text(kind)) for name, kind in types.items()])
    return _load(spark, source, files, schema, (), frozenset(), permissive=True)


def _text(kind: T.DataType) -> T.DataType:
    """The type with all that is no struct, array or map as text, which the strict casts then look at."""
    match kind:
        case T.StructType():
            return T.StructType([T.StructField(inner.name, _text(inner.dataType)) for inner in kind])
        case T.ArrayType():
            return T.ArrayType(_text(kind.elementType))
        case T.MapType():
            return T.MapType(T.StringType(), _text(kind.valueType))
    return T.StringType()


def _as_time(value: Column, found: T.StructField, declared: T.DataType) -> tuple[Column, T.DataType]:
    """A count of nanoseconds, as pandas writes its times, is a time unless it is declared as a number."""
    if "nanos" not in found.metadata or not isinstance(declared, (T.DateType, T.TimestampType, T.TimestampNTZType)):
        return value, found.dataType
    kind = T.TimestampType() if found.metadata["type"] == "timestamp" else T.TimestampNTZType()
    return F.timestamp_micros(((value - F.pmod(value, F.lit(1000))) / 1000).cast("bigint")).cast(kind), kind


def _load(
    spark: SparkSession,
    source: Source,
    files: Sequence[RawFile],
    schema: T.StructType,
    wanted: Sequence[str],
    left_out: frozenset[str],
    permissive: bool = False,
) -> DataFrame:
    dialect = Dialect.of(source)
    options = {key: value for key, value in source.options_now().items() if key.lower() not in _OURS}
    options["__globPaths__"] = "false"  # what signs a path holds was looked at already
    if wanted:
        options["basePath"] = address(files[0].base)
    if any(":" in file.path and not scheme_of(file.path) for file in files):
        options |= _PLAIN_FILES
    if source.format == "csv":
        # All cells of a row are looked at, whatever the SQL uses: surplus ones are no shift of the rest.
        strict = {"columnPruning": "false", "enforceSchema": "true", "escape": '"'}
        strict["unescapedQuoteHandling"] = "STOP_AT_DELIMITER" if permissive else "RAISE_ERROR"
        options = strict | options | ({"multiLine": "true"} if dialect.wide else {})
    if source.format == "json" and "encoding" in dialect.options and not dialect.is_true("multiline"):
        options = {"lineSep": "\n"} | options
    if source.format in ("csv", "json"):
        options["mode"] = "PERMISSIVE" if permissive or left_out else "FAILFAST"
        if permissive or left_out:
            schema = T.StructType([*schema, T.StructField(BAD_ROW, T.StringType())])
            options["columnNameOfCorruptRecord"] = BAD_ROW
    try:
        frame = (
            spark.read.options(**options).schema(schema).format(source.format).load([address(f.path) for f in files])
        )
    except (PySparkException, Py4JJavaError) as error:
        raise ConfigError(f"[[source]] {source.name}: options: {_first_words(error)}") from error
    if not left_out:
        return frame
    cells = [F.coalesce(column(name), F.lit("")) for name in schema.names if name != BAD_ROW]
    bad = F.col(BAD_ROW)
    row = F.coalesce(bad, F.concat_ws(dialect.sep, *cells))
    kept = F.when(row.isin(*left_out), F.lit(False))
    if not permissive:
        kept = kept.when(bad.isNotNull(), F.raise_error(F.lit(f"{MARK}a row of source {source.name}")))
    return frame.filter(kept.otherwise(F.lit(True)))


def refuse_options(spark: SparkSession, source: Source) -> None:
    """Ask Spark's reader of text whether it takes the options; it would say so only when a query runs.

    Raises:
        ConfigError: it does not.
    """
    if source.format not in ("csv", "json"):
        return
    jvm: Any = spark._jvm
    encoding = Dialect.of(source).encoding
    if source.format == "csv" and not Dialect.of(source).sep:
        raise ConfigError(f"[[source]] {source.name}: options: sep is empty; write the sign between cells")
    try:
        known = jvm.java.nio.charset.Charset.isSupported(encoding)
    except (PySparkException, Py4JJavaError):  # a name that no encoding can have
        known = False
    if not known:
        raise ConfigError(f'[[source]] {source.name}: options: encoding = "{encoding}" is none that Java knows')
    given = jvm.PythonUtils.toScalaMap({"lineSep": "\n"} | source.options_now())
    catalyst = jvm.org.apache.spark.sql.catalyst
    try:
        if source.format == "csv":
            catalyst.csv.CSVOptions(given, False, "UTC")
        else:
            catalyst.json.JSONOptions(given, "UTC", BAD_ROW)
    except (PySparkException, Py4JJavaError) as error:
        words = _first_words(error)
        named = [f" {key}" for key, value in source.options.items() if f'"{value}"' in words]
        raise ConfigError(f"[[source]] {source.name}: options{''.join(named)}: {words}") from None


def _first_words(error: PySparkException | Py4JJavaError) -> str:
    words = (error.getMessage() if isinstance(error, PySparkException) else error.java_exception.getMessage()) or ""
    return re.sub(r"^\[[\w.]+\] | SQLSTATE: .*", "", (words.splitlines() or [str(error)])[0])[:300]
