"""What a data set's SQL returned, made what the staged table declares: cast where nothing is lost, refused where
something is."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.errors import ConfigError
from pipelines.spark.sql_files import NOT_MIDNIGHT
from pipelines.toml_tables import nearest

OPTIONAL = {"dirt": "string", "source_rows": "bigint"}
# Spark types that become the wanted one without a loss; a literal null has none of its own (void).
_LOSSLESS = {
    "string": r"void|string collate .*",
    "double": r"void|float|tinyint|smallint|int|bigint|decimal\(.*",  # beyond 2^53 an amount is absurd, and refused
    "bigint": r"void|tinyint|smallint|int|decimal\(\d+,0\)",
    "date": r"void|timestamp|timestamp_ntz",
}
_WRITE = {
    ("date", "string"): "to_date(..., 'yyyy-MM-dd')",
    ("date", "int"): "to_date(cast(... as string), 'yyyyMMdd')",
    ("date", "bigint"): "to_date(cast(... as string), 'yyyyMMdd')",
}


def as_declared(
    frame: DataFrame, name: str, declared: Mapping[str, str], made_here: tuple[str, ...]
) -> tuple[DataFrame, list[str]]:
    """The columns that a staged table takes from the query in the file ``name``, and the names of those it does not.

    Args:
        declared: columns that must be there, with Spark's names of their types.
        made_here: columns that the table has, and the query must not.

    Raises:
        ConfigError: a column is missing, there twice, made here, or of a type that cannot be cast without a loss; or
            one looks like a mistyped ``dirt`` or ``source_rows``.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for field in frame.schema.fields:
        found.setdefault(field.name.lower(), []).append((field.name, field.dataType.simpleString()))
    wrong = []
    taken: dict[str, Column] = {}
    known = {**declared, **OPTIONAL}
    for column, wanted in known.items():
        same = found.pop(column.lower(), [])
        if len(same) > 1:
            wrong.append(f"returns the column {column} {len(same)} times; name each once")
        elif same:
            refusal = _refusal(column, same[0][1], wanted)
            wrong += [refusal] if refusal else []
            taken[column] = _cast(F.col(f"`{same[0][0]}`"), column, same[0][1], wanted)
        elif column in declared:
            spare = [name for name in frame.columns if name.lower() not in map(str.lower, known)]
            hint = nearest(column, spare) if spare else f"it returns {', '.join(frame.columns)}"
            wrong.append(f"must return a column {column}; {hint}")
    others = [column for same in found.values() for column, _ in same]
    for column in others:
        if column.lower() in made_here:
            wrong.append(f"returns a column {column}, which is made here; leave it out")
        elif meant := difflib.get_close_matches(column.lower(), OPTIONAL.keys() - taken, n=1, cutoff=0.7):
            wrong.append(f'returns a column {column} that is not declared; did you mean "{meant[0]}"?')
    if wrong:
        raise ConfigError(f"{name}: {'. '.join(wrong)}")
    return frame.select(*(value.alias(column) for column, value in taken.items())), others


def _refusal(column: str, kind: str, wanted: str) -> str | None:
    if kind == wanted or re.fullmatch(_LOSSLESS[wanted], kind):
        return None
    write = _WRITE.get((wanted, kind), f"cast(... as {wanted})")
    return f"column {column} is {kind}, expected {wanted}; write {write} as {column}"


def _cast(value: Column, column: str, kind: str, wanted: str) -> Column:
    if wanted == "string":  # bytes that are none become U+FFFD, which lost_characters counts
        return F.make_valid_utf8(value.cast(wanted))
    if kind == wanted:
        return value
    if wanted == "date" and kind != "void":
        words = F.concat(
            F.lit(f"{NOT_MIDNIGHT}column {column} is a {kind} with a time of day, expected date, such as "),
            value.cast("string"),
            F.lit(f"; write cast(... as date) as {column}"),
        )
        midnight = value.isNull() | (value == F.date_trunc("day", value))
        return F.when(midnight, value.cast(wanted)).otherwise(F.raise_error(words))
    return value.cast(wanted)
