"""SQL lives in files, one query each, named after the table it makes; this is the one place that reads them.

A data set brings SQL of its own. Spark's parser reads it before anything runs, so that a command in it never does;
what is wrong in it, and what the data made of it, is told in one line.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import ParseException, PySparkException
from pyspark.errors.exceptions.base import QueryContextType
from pyspark.sql import DataFrame, SparkSession

from pipelines.errors import ConfigError, DataError
from pipelines.toml_tables import nearest

_HERE = Path(__file__).resolve()
# Beside the packages in a checkout, inside them in a wheel.
SHARED = next(
    (path for path in (_HERE.parents[1] / "sql", _HERE.parents[2] / "sql") if path.is_dir()), _HERE.parents[2]
)
# Classes of SQLSTATE: what stands in the query, and what its data did.
_WRONG_SQL = ("42", "0A")
_WRONG_DATA = ("21", "22", "23", "54", "P0")
_SOURCE = ("MALFORMED_RECORD_IN_PARSING", "FAILED_READ_FILE")  # a data exception, but no doing of the query
_QUOTED = re.compile(r"""--[^\n]*|/\*.*?\*/|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`[^`]*`""", re.DOTALL)
# A day that is staged again must come out the same.
_UNREPEATABLE = re.compile(
    r"\b(rand|randn|random|randstr|uniform|uuid|shuffle|monotonically_increasing_id|spark_partition_id|now|curdate"
    r"|current_date|current_time|current_timestamp|localtimestamp)\s*\(|\b(current_date|current_timestamp)\b",
    re.IGNORECASE,
)
_TEMPLATE = re.compile(r"\$\{[^}]*\}?|\{\{.*?\}\}")
_DEEP, _TOO_DEEP = "java.lang.StackOverflowError", "brackets or terms lie too deep in each other; divide the query"
NOT_MIDNIGHT = "not midnight: "  # begins what `pipelines.spark.returned` raises inside a query


@dataclass(frozen=True)
class Query:
    """The one query of a SQL file that messages call ``name``."""

    name: str
    text: str

    def frame(self, spark: SparkSession, views: Iterable[str] = (), **parameters: Any) -> DataFrame:
        """Its rows, analysed and not yet run, with bound parameters (``:name``).

        Args:
            views: what it may read, for the nearest name of one that is misspelled.

        Raises:
            ConfigError: it names a column, view, function or parameter that there is not, or mixes types that do not
                go together.
        """
        try:
            return spark.sql(self.text, args=parameters)
        except (PySparkException, Py4JJavaError) as error:
            raise self.explain(spark, error, views, parameters) or error from None

    def explain(
        self,
        spark: SparkSession,
        error: PySparkException | Py4JJavaError,
        views: Iterable[str] = (),
        parameters: Iterable[str] = (),
    ) -> ConfigError | DataError | None:
        """What the query did wrong (ConfigError), or its data (DataError), in one line; None if it was neither."""
        condition, state, sentence = _told(error)
        if NOT_MIDNIGHT in sentence:
            return ConfigError(f"{self.name}: {sentence.partition(NOT_MIDNIGHT)[2]}")
        contexts = error.getQueryContext() if isinstance(error, PySparkException) else []
        own = [context for context in contexts if context.contextType() == QueryContextType.SQL]
        if (contexts and not own) or condition.split(".")[0] in _SOURCE:
            return None
        at = own[0].startIndex() if own else -1
        fragment = own[0].fragment() if own else ""
        where = (
            _where(self.name, self.text, at)
            if at >= 0 and self.text[at : at + len(fragment)] == fragment
            else self.name
        )
        if state[:2] in _WRONG_SQL:
            return ConfigError(f"{where}: {_unknown(spark, error, views, parameters) or sentence}")
        if state[:2] in _WRONG_DATA:
            return DataError(f"{where}: {sentence}" + (f" In: {_short(fragment)}" if fragment else ""))
        return None


def run_sql(spark: SparkSession, path: Path, **parameters: Any) -> DataFrame:
    """The query of one of our own SQL files."""
    return read_query(spark, path, str(path)).frame(spark, **parameters)


def bound(path: Path, **names: str | None) -> str:
    """The query of one of our own SQL files for an engine that binds no parameters: names in their places."""

    def literal(parameter: re.Match[str]) -> str:
        name = names[parameter[1]]
        return "null" if name is None else "'" + name.replace("'", "''") + "'"

    query = re.sub(r"--[^\n]*", "", path.read_text(encoding="utf-8"))
    return re.sub(r":(\w+)", literal, query)


def read_query(spark: SparkSession, path: Path, name: str) -> Query:
    """The query of a SQL file, parsed and not run.

    Raises:
        ConfigError: the file is missing, no UTF-8, empty, not SQL, or something else than one query.
    """
    if not path.is_file():
        raise ConfigError(f"{name}: no such SQL file")
    content = path.read_bytes()
    try:
        text = re.sub(r"\r\n?", "\n", content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{name} line {line}: not UTF-8: byte 0x{content[error.start]:02X}; save it as UTF-8"
        ) from None
    if not _bare(text).strip(";"):
        raise ConfigError(f"{name}: no query in it; write one SELECT")
    if refusal := _refusal(spark, text):
        found, at, words = refusal
        if _bare(text[:at]).endswith(";"):
            words = "a second statement begins; the file must hold one SELECT"
        elif found:
            words = f"cannot be parsed at {found}: {_line(text, at)}"
        raise ConfigError(f"{_where(name, text, at)}: {words}")
    _refuse_words(name, text)
    # In brackets only a query can stand, by Spark's own grammar. A ";" that was fine without them ends the statement.
    while refusal := _refusal(spark, f"({text}\n)"):
        found, at, _ = refusal
        if found != ";":
            command = f"{found.upper()} is a command, and was not run; the file must hold one SELECT"
            raise ConfigError(f"{_where(name, text, at - 1)}: {command}")
        text = text[: at - 1]
    return Query(name, text)


def _refuse_words(name: str, text: str) -> None:
    """What Spark would take, and nobody can have meant."""
    template = _TEMPLATE.search(re.sub(r"--[^\n]*", lambda comment: " " * len(comment[0]), text))
    chance = _UNREPEATABLE.search(_QUOTED.sub(lambda part: " " * len(part[0]), text))
    if template:
        why = f"{_short(template[0])} is filled in by nobody; the days are :from_ds and :to_ds"
        raise ConfigError(f"{_where(name, text, template.start())}: {why}")
    if chance:
        why = "gives other values whenever it is run; take what the data say, :from_ds and :to_ds"
        raise ConfigError(f"{_where(name, text, chance.start())}: {chance[1] or chance[2]} {why}")


def _bare(text: str) -> str:
    """Without comments and blanks."""
    return re.sub(r"--[^\n]*|/\*.*?\*/|\s+", "", text, flags=re.DOTALL)


def _refusal(spark: SparkSession, text: str) -> tuple[str, int, str] | None:
    """Why Spark's parser refuses a statement: the token that it could not place, where that stands, and in words;
    nothing is run."""
    try:
        spark._jsparkSession.sessionState().sqlParser().parsePlan(text)
    except ParseException as error:
        found = str((error.getMessageParameters() or {}).get("error", ""))
        token = found[1:-1] if found[:1] == "'" else found
        sentence = _sentence(error.getMessage() or "")
        if place := re.search(r"\(line (\d+), pos (\d+)\)", str(error)):
            lines = text.split("\n")[: int(place[1]) - 1]
            return token, sum(len(line) + 1 for line in lines) + int(place[2]), sentence
        contexts = error.getQueryContext()
        return token, contexts[0].startIndex() if contexts else 0, sentence
    except Py4JJavaError as error:
        if _DEEP not in str(error):
            raise
        return "", 0, _TOO_DEEP
    return None


def _told(error: PySparkException | Py4JJavaError) -> tuple[str, str, str]:
    """Condition, SQLSTATE and sentence of an error, which some of Spark's ways up lose in a Java trace."""
    if isinstance(error, PySparkException):
        return error.getCondition() or "", error.getSqlState() or "", _sentence(error.getMessage() or "")
    text = str(error)
    if pattern := re.search(r"PatternSyntaxException: (.*)", text):
        return "", _WRONG_SQL[0], f"a regular expression is wrong: {pattern[1]}"
    if _DEEP in text:
        return "", _WRONG_SQL[0], _TOO_DEEP
    if found := re.search(r"\[([A-Z_0-9.]+)\] (.*?) SQLSTATE: (\w{5})", text, re.DOTALL):
        return found[1], found[3], _sentence(found[2])
    return "", "", ""


def _unknown(
    spark: SparkSession, error: PySparkException | Py4JJavaError, views: Iterable[str], parameters: Iterable[str]
) -> str | None:
    """In words, for an error about a name that there is not."""
    if isinstance(error, Py4JJavaError):
        return None
    given = {key: str(value).replace("`", "") for key, value in (error.getMessageParameters() or {}).items()}
    known: Iterable[str]
    match (error.getCondition() or "").split("."):
        case ["UNRESOLVED_COLUMN" | "UNRESOLVED_FIELD", *_]:
            kind, name = "no column ", given.get("objectName") or given.get("fieldName", "")
            known = [*filter(None, given.get("proposal", "").split(", ")), *(f":{name}" for name in parameters)]
        case ["TABLE_OR_VIEW_NOT_FOUND"]:
            kind, name, known = "no source ", given["relationName"], views
        case ["UNRESOLVED_ROUTINE"]:
            kind, name = "no function ", given["routineName"]
            functions = spark._jsparkSession.sessionState().functionRegistry().listFunction().mkString(",").split(",")
            known = difflib.get_close_matches(name, [text.rsplit(".", 1)[-1].strip("`") for text in functions], n=1)
        case ["UNBOUND_SQL_PARAMETER"]:
            kind, name, known = "nothing is bound to :", given["name"], parameters
            if name.startswith("_"):  # a ? in the query
                kind, name = "nothing is bound to ", "?"
        case _:
            return None
    listed = list(known)
    return f'{kind}"{name}"' + (f"; {nearest(name, listed)}" if listed else "")


def _where(name: str, text: str, at: int) -> str:
    return f"{name} line {text[: max(at, 0)].count(chr(10)) + 1}"


def _line(text: str, at: int) -> str:
    """The line of a query around a position, shortened."""
    begin = text.rfind("\n", 0, at) + 1
    return _short(text[begin:].split("\n", 1)[0])


def _sentence(message: str) -> str:
    """Spark's own words, without its condition, state, plan and the advice to be less strict."""
    text = re.sub(
        r"^\s*\[[\w.]+\]\s*(You may get a different result due to the upgrading to Spark [^:]*:)?", "", message
    )
    text = re.split(r"\s*(?:If necessary,? set |1\) You can set |SQLSTATE: |For more |Please,? refer to|== SQL)", text)[
        0
    ]
    return _short(text.replace("`", ""), 300)


def _short(text: str, limit: int = 120) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[:limit]}..."
