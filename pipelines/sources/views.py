"""Raw sources as typed Spark views: every file's own columns are looked at, read and cast, and only then united.

Files are looked at by the driver, in parallel: the footer of a Parquet or ORC file, the first lines of a CSV or JSON
file. Those that have the same columns are read together. So a column that is gone in one file of a range is named, and
one that has another type there is cast, and neither is read as null.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from functools import partial, reduce
from typing import Any
from urllib.parse import unquote

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipelines.config import Config, Source
from pipelines.errors import ConfigError, DataError
from pipelines.sources.casts import MARK, Fit, GoneError, RefusedError, fit, nearest
from pipelines.sources.files import THREADS, Finding, RawFile, files_of, period
from pipelines.sources.footers import footer
from pipelines.sources.heads import Dialect, UnusableError, csv_names, json_fields, text_head, titles
from pipelines.sources.storage import Storage, scheme_of, storage_of

SHOWN = 8  # names that a line lists
BAD_ROW = "__malformed"
_NAMES_A_LINE = 30
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


@dataclass(frozen=True)
class View:
    """One [[source]] as the SQL sees it."""

    source: Source
    types: dict[str, T.DataType]
    days: str
    parts: tuple[Part, ...]
    storage: Storage | None = None
    findings: list[Finding] = field(default_factory=list)

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


@dataclass(frozen=True)
class _Look:
    """What a file holds: its columns with their types, in order. ``rows``: None where only reading would tell.

    ``titles``: rows of a CSV file to leave out. ``fields``: of JSON, those within structs too, as far as was looked;
    ``whole``: that is all of it.
    """

    file: RawFile
    columns: dict[str, T.StructField | str]
    rows: int | None = None
    titles: tuple[str, ...] = ()
    fields: frozenset[str] = frozenset()
    whole: bool = True


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


def label(source: Source, days: str, file: RawFile | None = None) -> str:
    return f"source {source.name} ds={(file.ds if file else None) or days}"


def some(names: Iterable[str], at_most: int = SHOWN) -> str:
    names = list(names)
    return ", ".join(names[:at_most]) + (f" and {len(names) - at_most} more" if len(names) > at_most else "")


def in_files(files: Sequence[RawFile], of: int) -> str:
    """Where something is, by the first file that has it."""
    return files[0].shown + (f" and {len(files) - 1} more of {of} files" if len(files) > 1 else "")


def _open(spark: SparkSession, config: Config, source: Source, first: date, last: date) -> View:
    days, types = period(first, last), _declared(source)
    if source.format in ("table", "jdbc"):
        frame = _load_table(spark, source)
        found = {name: (F.col(f"`{name}`"), frame.schema[name].dataType) for name in frame.columns}
        lacking = [name for name in types if name not in found]
        if lacking:
            raise DataError([_gone(source, days, name, [], 0, frame.columns) for name in lacking])
        new = {name: kind.simpleString() for name, (_, kind) in found.items() if name not in types}
        view = View(source, types, days, (Part(frame, {name: found[name] for name in types}),))
        view.findings.extend(_new_columns(source, new))
    else:
        storage = storage_of(spark, source.path.resolve())
        files, findings = files_of(config, source, storage, first, last)
        looks = _look(source, storage, days, files)
        if source.format == "json":
            _refuse_absent_fields(spark, source, days, looks)
        else:
            _refuse_missing(source, days, looks)
        view = View(source, types, days, tuple(_parts(spark, source, types, looks)), storage, findings)
        view.findings.extend(_new_columns(source, _undeclared(source, looks)))
        view.findings.extend(_absent_optional(source, looks))
    _refuse_types(view)
    return view


def _declared(source: Source) -> dict[str, T.DataType]:
    types = {}
    for name, kind in source.columns.items():
        try:
            types[name] = T.StructType.fromDDL(f"`x` {kind}")["x"].dataType
        except PySparkException:
            raise ConfigError(f'[[source]] {source.name}: columns: {name} = "{kind}" is no type of Spark') from None
    return types


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


def _look(source: Source, storage: Storage, days: str, files: Sequence[RawFile]) -> list[_Look]:
    """Look into every file.

    Raises:
        DataError: one line for each way in which files are unusable.
    """
    dialect = Dialect.of(source)

    def look(file: RawFile) -> _Look | str:
        try:
            with storage.open(file.path) as opened:
                if source.format in ("parquet", "orc"):
                    end = footer(opened, source.format)
                    return _Look(file, end.columns, end.rows)
                head = text_head(opened, file.path, dialect)
                rows = 0 if head.whole and not head.text.strip() else None
                if source.format == "csv":
                    names = csv_names(head, dialect, list(source.columns), source.skip_lines)
                    return _Look(file, _as_text(names), rows, titles(head, dialect, source.skip_lines))
                found, whole = json_fields(head, dialect)
                names = [name for name in found if "." not in name]
                return _Look(file, _as_text(names), rows, fields=frozenset(found), whole=whole)
        except UnusableError as error:
            return str(error)

    with ThreadPoolExecutor(THREADS) as threads:
        looks = list(threads.map(look, files))
    unusable: dict[str, list[RawFile]] = defaultdict(list)
    for file, found in zip(files, looks, strict=True):
        if isinstance(found, str):
            unusable[found].append(file)
    if unusable:
        good = next((look for look in looks if isinstance(look, _Look)), None)
        raise DataError(
            [
                f"{label(source, days, bad[0])}: {in_files(bad, len(files))}: {why}{_leave_out(bad[0], good)}"
                for why, bad in list(unusable.items())[:SHOWN]
            ]
        )
    return [look for look in looks if isinstance(look, _Look)]


def _as_text(names: Iterable[str]) -> dict[str, T.StructField | str]:
    return {name: T.StructField(name, T.StringType()) for name in names}


def _leave_out(bad: RawFile, good: _Look | None) -> str:
    """A hint for a stray file beside good ones."""
    ending = good.file.path.rpartition("/")[2].rpartition(".")[2] if good else ""
    if not ending or bad.path.endswith(f".{ending}"):
        return ""
    return f'. A file of another kind is left out with options = {{ pathGlobFilter = "*.{ending}" }}'


def _refuse_missing(source: Source, days: str, looks: Sequence[_Look]) -> None:
    """A file without rows may lack columns: pandas writes an empty day so."""
    read = [look for look in looks if look.rows != 0]
    lacking: dict[str, list[_Look]] = defaultdict(list)
    for look in read:
        for name in source.columns:
            if name not in look.columns and name not in look.file.keys and name not in source.optional:
                lacking[name].append(look)
    bare = [look for look in read if not {*look.columns, *look.file.keys} & set(source.columns)]
    if bare and len(source.columns) > 1:
        raise DataError(_none(source, days, bare, len(looks)))
    lines = [
        _gone(source, days, name, [look.file for look in among], len(looks), list(among[0].columns))
        for name, among in lacking.items()
    ]
    for name in source.columns:
        if closed := [look for look in read if isinstance(look.columns.get(name), str)]:
            where, kind = in_files([look.file for look in closed], len(looks)), closed[0].columns[name]
            begin = label(source, days, closed[0].file)
            lines.append(f'{begin}: column "{name}" is {kind} in {where}, which Spark cannot read; write another type')
    if lines:
        raise DataError(lines)


def _none(source: Source, days: str, bare: Sequence[_Look], of: int) -> str:
    found = list(bare[0].columns)
    line = (
        f"{label(source, days, bare[0].file)}: {in_files([look.file for look in bare], of)}: none of the "
        f"{len(source.columns)} declared columns is there; found {some(found, _NAMES_A_LINE) or 'no column'}"
    )
    if source.format != "json" or not found:
        return line
    within = next((name for name in found if name in ("data", "results", "rows", "items", "records")), found[0])
    return f"{line}. If the rows lie within it, write each as a line of its own: jq -c '.{within}[]'"


def _refuse_absent_fields(spark: SparkSession, source: Source, days: str, looks: Sequence[_Look]) -> None:
    """A line of JSON may leave a field out; that no row of a day has it, no reader would tell."""
    by_day: dict[date | None, list[_Look]] = defaultdict(list)
    for look in looks:
        if look.rows != 0:
            by_day[look.file.ds].append(look)
    lacking: dict[str, list[_Look]] = defaultdict(list)
    for among in by_day.values():
        there = frozenset[str]().union(*(look.fields.union(look.file.keys) for look in among))
        for name in _paths(_declared(source)):
            if name not in there and name.partition(".")[0] not in source.optional:
                lacking[name] += among
    if not any(lacking.values()):
        return
    names = list(lacking)
    searched = {look.file.path for among in lacking.values() for look in among if not look.whole}
    seen = _search(spark, source, searched, [name.rpartition(".")[2] for name in names]) if searched else {}
    for place, name in enumerate(names):
        days_with = {look.file.ds for look in lacking[name] if look.file.path in seen and seen[look.file.path][place]}
        lacking[name] = [look for look in lacking[name] if look.file.ds not in days_with]
    bare = [look for look in lacking[names[0]] if not look.fields & set(source.columns)]
    if bare and all(lacking.get(name) for name in source.columns):
        raise DataError(_none(source, days, bare, len(looks)))
    lines = [
        _gone(source, days, name, [look.file for look in among], len(looks), sorted(among[0].fields))
        for name, among in lacking.items()
        if among
    ]
    if lines:
        raise DataError(lines)


def _paths(types: dict[str, T.DataType], above: str = "") -> list[str]:
    """Names of the columns and of the fields in structs: ``metrics``, ``metrics.clicks``."""
    found = []
    for name, kind in types.items():
        found.append(above + name)
        if isinstance(kind, T.StructType):
            found += _paths({inner.name: inner.dataType for inner in kind}, f"{above}{name}.")
    return found


def _search(spark: SparkSession, source: Source, paths: Iterable[str], names: Sequence[str]) -> dict[str, list[bool]]:
    """Whether each name stands anywhere in a file, in quotes, by the file's path: one pass over the text."""
    reader = spark.read.option("__globPaths__", "false")
    text = reader.text([_address(path) for path in paths]).select("value", F.col("_metadata.file_path").alias("file"))
    any_line = [F.max(F.col("value").contains(f'"{name}"')).alias(f"{i}") for i, name in enumerate(names)]
    return {
        path_of(row[0]): [bool(found) for found in row[1:]] for row in text.groupBy("file").agg(*any_line).collect()
    }


def _gone(source: Source, days: str, name: str, files: Sequence[RawFile], of: int, found: Sequence[str]) -> str:
    where = f" from {in_files(files, of)}" if files else ""
    line = (
        f'{label(source, days, files[0] if files else None)}: column "{name}" is gone{where}; '
        f"found {some(found, _NAMES_A_LINE)}{nearest(name, set(found) - set(source.columns))}"
    )
    if of > len(files) > 0 or (source.format == "json" and files):
        end = "" if line.endswith("?") else "."
        line += f'{end} If files may lack it, write optional = ["{name.partition(".")[0]}"]: it is null there'
    return line


def _undeclared(source: Source, looks: Sequence[_Look]) -> dict[str, str]:
    found: dict[str, str] = {}
    for look in looks:
        for name, kind in look.columns.items():
            if name not in source.columns and name not in found and not name.startswith("_c"):
                found[name] = kind if isinstance(kind, str) else kind.dataType.simpleString()
    return found


def _new_columns(source: Source, new: dict[str, str]) -> list[Finding]:
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


def _absent_optional(source: Source, looks: Sequence[_Look]) -> list[Finding]:
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


def _parts(spark: SparkSession, source: Source, types: dict[str, T.DataType], looks: Sequence[_Look]) -> Iterable[Part]:
    """The files that hold rows, those of one shape together."""
    groups: dict[Any, list[_Look]] = defaultdict(list)
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
    group: Sequence[_Look],
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
        value = F.col(f"`{name}`")
        if name in wanted:
            columns[name] = (value, T.StringType())
        elif name in schema.names:
            columns[name] = _as_time(value, schema[name], declared)
        else:
            columns[name] = (F.lit(None), T.NullType())
    return Part(frame, columns, files, names, again)


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
        options["basePath"] = _address(files[0].base)
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
        _refuse_encoding(spark, source, dialect)
        options["mode"] = "PERMISSIVE" if permissive or left_out else "FAILFAST"
        if permissive or left_out:
            schema = T.StructType([*schema, T.StructField(BAD_ROW, T.StringType())])
            options["columnNameOfCorruptRecord"] = BAD_ROW
    try:
        frame = (
            spark.read.options(**options).schema(schema).format(source.format).load([_address(f.path) for f in files])
        )
    except (PySparkException, Py4JJavaError) as error:
        words = (error.getMessage() if isinstance(error, PySparkException) else str(error.java_exception)) or ""
        raise ConfigError(f"[[source]] {source.name}: options: {words.splitlines()[0][:300]}") from error
    if not left_out:
        return frame
    cells = [F.coalesce(F.col(f"`{name}`"), F.lit("")) for name in schema.names if name != BAD_ROW]
    bad = F.col(BAD_ROW)
    row = F.coalesce(bad, F.concat_ws(dialect.sep, *cells))
    kept = F.when(row.isin(*left_out), F.lit(False))
    if not permissive:
        kept = kept.when(bad.isNotNull(), F.raise_error(F.lit(f"{MARK}a row of source {source.name}")))
    return frame.filter(kept.otherwise(F.lit(True)))


def _refuse_encoding(spark: SparkSession, source: Source, dialect: Dialect) -> None:
    try:
        known = spark._jvm.java.nio.charset.Charset.isSupported(dialect.encoding)
    except (PySparkException, Py4JJavaError):  # a name that no encoding can have
        known = False
    if not known:
        raise ConfigError(f'[[source]] {source.name}: options: encoding = "{dialect.encoding}" is none that Java knows')


def _address(path: str) -> str:
    return path if scheme_of(path) else f"file://{path}"


def path_of(uri: str) -> str:
    """The path of a file that Spark names."""
    return unquote(re.sub(r"^file:/+", "/", uri))


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
                lines.append(_gone(view.source, view.days, path, part.files, len(part.files), gone.found))
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
