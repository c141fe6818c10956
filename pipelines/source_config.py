"""``[[source]]``: what a raw input may be, and what its files, columns and options may not say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import field
from typing import Annotated, Literal

from m2m_model.config import Matching, Name, Within, settings
from pipelines.toml_tables import Text, nearest

# Columns that stand beside those of a raw file while it is read.
BAD_ROW = "__malformed"
SOURCE_COLUMNS = frozenset({BAD_ROW, "__file", "_metadata"})

_SPARK_TYPES = (
    "string boolean tinyint byte smallint short int integer bigint long float real double date timestamp timestamp_ntz"
    " timestamp_ltz binary variant decimal(18,2) char(8) varchar(8) array<string> map<string,string> struct<a:string>"
).split()
_SPARK_TYPE = re.compile(
    rf"({'|'.join(name for name in _SPARK_TYPES if name.isidentifier())})"
    r"|(decimal|dec|numeric)(\(([1-9]|[12]\d|3[0-8])(,\s*([0-9]|[12]\d|3[0-8]))?\))?"
    r"|(char|varchar)\([1-9]\d{0,8}\)|(array|map|struct)<.+>",
    re.IGNORECASE | re.DOTALL,
)

# What stands in braces in a source's path, and what may: {home}, {ds}, {ds:%Y%m%d}; ${NAME} is the environment's.
PLACEHOLDER = re.compile(r"(?<!\$)\{([^{}]*)\}|(?<!\$)\{|(?<!\w)\}")
_PLACEHOLDERS = re.compile(r"home|ds(:(?=.*%)([^%{}]|%-?[YmdyjbBaAFGVuU])+)?")
_WRITE_IN_SQL = "declare the column as string, and convert it in the SQL: to_date(day, 'dd.MM.yyyy')"
# Options of Spark's reader that would say something else than the declared columns do.
_NOT_FOR_TEXT = {
    "mode": "a malformed row always stops the run",
    "dateformat": _WRITE_IN_SQL,
    "timestampformat": _WRITE_IN_SQL,
    "timestampntzformat": _WRITE_IN_SQL,
}

# Options that leave files out without a word.
_NEVER = {
    "ignorecorruptfiles": "a file that cannot be read always stops the run",
    "ignoremissingfiles": "a file that is missing always stops the run",
    "modifiedbefore": "path says which files are read",
    "modifiedafter": "path says which files are read",
}

PATH = Matching(r"[^\x00-\x1f]{0,1000}", "a path of at most 1,000 characters, none of them a control one")


@settings
class Source:
    """One raw input; ``name`` is the view that the staging SQL reads.

    ``path`` is relative to pipeline.toml; with ``{ds}`` in it there is one file or folder a day, and ``{home}`` is the
    data set's folder under M2M_HOME. ``columns`` maps each raw column to the Spark type that it must have; a file may
    lack those that are ``optional``. ``marker`` is the file that says that a delivery is complete. ``skip_lines`` says
    how many lines of titles stand above the header of a CSV file.
    """

    name: Name
    format: Literal["csv", "json", "parquet", "orc", "jdbc", "table"]
    path: Annotated[Text, PATH] = Text("")
    options: dict[str, Text] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    marker: Annotated[Text, PATH] = Text("")
    skip_lines: Annotated[int, Within(0, 100)] = 0

    def __post_init__(self) -> None:
        if self.name.lower().startswith("dataset_"):
            raise ValueError("dataset_... is the name of what the SQL returns; take another name")
        if not self.columns:
            raise ValueError("columns are missing; list each raw column with its type")
        if self.format not in ("jdbc", "table") and not self.path:
            raise ValueError('missing key "path"')
        _check_columns(self.columns)
        options = {key.lower() for key in self.options}
        if len(options) < len(self.options):
            raise ValueError("options: one is there twice, in another case")
        if self.format == "jdbc" and not ("url" in options and options & {"dbtable", "query"}):
            raise ValueError("options: jdbc needs url, and dbtable or query")
        for column, kind in self.columns.items():
            if not _SPARK_TYPE.fullmatch(kind.strip()):
                raise ValueError(f'columns {column}: "{kind}" is no Spark type; {nearest(kind.lower(), _SPARK_TYPES)}')
            word = re.split(r"[(< ]", kind.strip().lower())[0]
            if self.format == "csv" and word in ("array", "map", "struct", "variant", "binary"):
                raise ValueError(
                    f"columns {column}: csv holds no {word}; declare it string, and take it apart in the SQL"
                )
        for option in options & set(_NEVER):
            raise ValueError(f"options: {option}: {_NEVER[option]}")
        for option in options & set(_NOT_FOR_TEXT) if self.format in ("csv", "json") else ():
            raise ValueError(f"options: {option}: {_NOT_FOR_TEXT[option]}")
        self._check_files()

    def _check_files(self) -> None:
        """Keys that say where the files are, and what is in them."""
        files = self.format not in ("jdbc", "table")
        for key, given in (("marker", self.marker), ("optional", self.optional)):
            if given and not files:
                raise ValueError(f"{key} is for files, and format is {self.format}")
        if self.skip_lines and self.format != "csv":
            raise ValueError(f"skip_lines is for csv, and format is {self.format}")
        for name in self.optional:
            if name not in self.columns:
                raise ValueError(f'optional: "{name}" is not one of the columns')
        if self.optional and len(set(self.optional)) == len(self.columns):
            raise ValueError("optional: at least one column must be in every file")
        for key, text in (("path", str(self.path)), ("marker", str(self.marker))) if files else ():
            for found in PLACEHOLDER.finditer(text):
                if found[1] is None or not _PLACEHOLDERS.fullmatch(found[1]):
                    shape = "{ds:%Y%m%d}" if "nodash" in found[0] else "{ds}, {ds:%Y%m%d} (any shape of date), {home}"
                    raise ValueError(f"{key}: unknown placeholder {found[0]}; write {shape}")
            if text.partition("{home}")[0] and "{home}" in text:
                raise ValueError(f"{key}: {{home}} is a whole path, and stands at the beginning")
            scheme = text.partition("://")[0]
            if scheme in ("http", "https", "ftp", "ftps", "sftp"):
                raise ValueError(f"{key}: {scheme}:// has no folders to look into; copy the files first")

    def options_now(self) -> dict[str, str]:
        """Options of Spark's reader, with the values of the environment."""
        return {key: text.resolve() for key, text in self.options.items()}


def _check_columns(names: Iterable[str]) -> None:
    """Columns of a source: Spark tells no case, and some are ours while a file is read."""
    seen: dict[str, str] = {}
    for name in names:
        if not re.fullmatch(r"[^\x00-\x1f]{1,256}", name):
            raise ValueError(f'columns: "{name[:60]}" must be 1 to 256 characters, none of them a control one')
        if name.lower() in SOURCE_COLUMNS:
            raise ValueError(
                f'columns: "{name}" is a column of the system\'s own while a file is read; it cannot be used'
            )
        if other := seen.get(name.lower()):
            raise ValueError(f'columns: "{name}" differs from "{other}" in case alone')
        seen[name.lower()] = name
