"""How a raw column becomes one of the declared type, with nothing lost: what does not fit stops the run.

Spark's own casts are more lenient than a person would be: a double loses its fraction, a struct is taken by position,
``7d`` is a number, ``2024`` a date. Each rule here says which values fit; the rest is counted and named.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql import types as T

MARK = "does not fit its declared type: "

_ZONE = r"(\s?(Z|UTC|GMT|[+-]\d{1,2}(:?\d{2})?|[A-Za-z]+(/[A-Za-z_]+)+))?"
_DAY = r"\d{4}-\d{1,2}-\d{1,2}"
_NUMBER = r"^\s*[-+]?((\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|(?i:nan|inf(inity)?))\s*$"
_DATE = rf"^\s*{_DAY}([T ]0{{1,2}}:00(:00(\.0+)?)?(Z|\s?UTC|[+-]00:?00)?)?\s*$"
_TIME = rf"^\s*{_DAY}([T ]\d{{1,2}}:\d{{2}}(:\d{{2}}(\.\d{{1,9}})?)?%s)?\s*$"

_WHOLE = (T.ByteType, T.ShortType, T.IntegerType, T.LongType)
_REAL = (T.FloatType, T.DoubleType)
_TIMES = (T.TimestampType, T.TimestampNTZType)
_TEXT = (T.StringType, T.CharType, T.VarcharType)


class RefusedError(Exception):
    """A column of this type cannot be the declared one whatever its values: why, and the way out."""


class GoneError(Exception):
    """A field of a struct is not there: its name, and those that are."""

    def __init__(self, name: str, found: Iterable[str]) -> None:
        super().__init__(name)
        self.name, self.found = name, list(found)


@dataclass(frozen=True)
class Fit:
    """``made``: the value in its declared type. ``fits``: whether a value that is not null can be so; None: each does.
    ``stops``: Spark's own cast stops at one that does not."""

    made: Column
    fits: Column | None = None
    stops: bool = False

    def checked(self, value: Column, what: str) -> Column:
        """The value, or the end of the query."""
        if self.fits is None or self.stops:
            return self.made
        return F.when(value.isNull() | self.fits, self.made).otherwise(F.raise_error(F.lit(MARK + what)))


def fit(value: Column, found: T.DataType, declared: T.DataType) -> Fit:
    """Make a value of type ``found`` one of type ``declared``.

    Raises:
        RefusedError: the types do not go together.
        GoneError: a declared field is not in a struct.
    """
    if isinstance(found, T.NullType):
        return Fit(F.lit(None).cast(declared))
    if found.simpleString() == declared.simpleString():
        return Fit(value)
    match declared:
        case T.StructType():
            return _struct(value, found, declared)
        case T.ArrayType() if isinstance(found, T.ArrayType):
            return _array(value, found, declared)
        case T.MapType() if isinstance(found, T.MapType) and found.keyType == declared.keyType:
            return _map(value, found, declared)
    made = value.cast(declared)
    if isinstance(found, _TEXT):
        return _from_text(value, declared, made)
    exact = Fit(made, value.try_cast(declared).isNotNull(), stops=True)
    fraction = isinstance(found, _REAL) or (isinstance(found, T.DecimalType) and found.scale > 0)
    match declared:
        case T.StringType() | T.CharType() | T.VarcharType():
            if fraction:
                raise RefusedError(
                    "an id would become 1000037.0; write it as text, or declare it bigint and cast it in the SQL"
                )
            if isinstance(found, (*_WHOLE, *_TIMES, T.DecimalType, T.BooleanType, T.DateType, T.BinaryType)):
                return Fit(made)
        case T.ByteType() | T.ShortType() | T.IntegerType() | T.LongType():
            if fraction:
                return Fit(made, (value % 1 == 0) & value.try_cast(declared).isNotNull())
            if isinstance(found, (*_WHOLE, T.DecimalType, T.BooleanType)):
                return exact
        case T.FloatType() | T.DoubleType():
            if isinstance(found, (*_WHOLE, *_REAL, T.DecimalType)):
                return Fit(made)
        case T.DecimalType():
            if isinstance(found, _REAL):  # 33.300000000000004 is 33.3, as far as a double can tell
                near = F.abs(made_try := value.try_cast(declared).cast("double")) >= 0
                close = F.abs(made_try - value) <= F.greatest(F.lit(1.0), F.abs(value)) * 1e-9
                return Fit(made, F.coalesce(near & close, F.lit(False)))
            if isinstance(found, (*_WHOLE, T.DecimalType)):
                return Fit(made, F.coalesce(value.try_cast(declared) == value, F.lit(False)))
        case T.BooleanType():
            if isinstance(found, _WHOLE):
                return Fit(made, value.isin(0, 1))
        case T.DateType():
            if isinstance(found, _TIMES):
                return Fit(made, value.cast("date").cast(found) == value)
        case T.TimestampType() | T.TimestampNTZType():
            if isinstance(found, (T.DateType, *_TIMES)):
                return Fit(made)
    raise RefusedError(_way_out(found, declared))


def _from_text(value: Column, declared: T.DataType, made: Column) -> Fit:
    cast = value.try_cast(declared).isNotNull()
    match declared:
        case T.StringType() | T.CharType() | T.VarcharType() | T.BinaryType():
            return Fit(made)
        case T.FloatType() | T.DoubleType():
            return Fit(made, value.rlike(_NUMBER))
        case T.DecimalType():
            plain = value.rlike(rf"^\s*[-+]?\d*\.?\d{{0,{declared.scale}}}0*\s*$")
            whole = plain | (value.try_cast("decimal(38,18)") == value.try_cast(declared))
            return Fit(made, value.rlike(_NUMBER) & cast & F.coalesce(whole, F.lit(False)))
        case T.DateType():
            return Fit(made, value.rlike(_DATE) & cast)
        case T.TimestampType():
            return Fit(made, value.rlike(_TIME % _ZONE) & cast)
        case T.TimestampNTZType():
            return Fit(made, value.rlike(_TIME % "") & cast)
        case T.BooleanType() | T.ByteType() | T.ShortType() | T.IntegerType() | T.LongType():
            return Fit(made, cast, stops=True)
    raise RefusedError("declare it as string, and take it apart in the SQL")


def _struct(value: Column, found: T.DataType, declared: T.StructType) -> Fit:
    """By name: Spark casts by position, and clicks would become spend."""
    if not isinstance(found, T.StructType):
        raise RefusedError(_way_out(found, declared))
    fields = []
    for field in declared:
        if field.name not in found.names:
            raise GoneError(field.name, found.names)
        try:
            fields.append(
                (field.name, value[field.name], fit(value[field.name], found[field.name].dataType, field.dataType))
            )
        except GoneError as gone:
            raise GoneError(f"{field.name}.{gone.name}", gone.found) from None
    made = F.struct(*(part.checked(inner, name).alias(name) for name, inner, part in fields))
    asked = [inner.isNull() | part.fits for _, inner, part in fields if part.fits is not None]
    return Fit(F.when(value.isNotNull(), made), reduce(Column.__and__, asked) if asked else None, stops=True)


def _array(value: Column, found: T.ArrayType, declared: T.ArrayType) -> Fit:
    def one(item: Column) -> Fit:
        return fit(item, found.elementType, declared.elementType)

    made = F.transform(value, lambda item: one(item).checked(item, "an element"))
    if one(F.lit(None)).fits is None:
        return Fit(made)
    return Fit(made, F.forall(value, lambda item: item.isNull() | one(item).fits), stops=True)


def _map(value: Column, found: T.MapType, declared: T.MapType) -> Fit:
    def one(item: Column) -> Fit:
        return fit(item, found.valueType, declared.valueType)

    made = F.transform_values(value, lambda _, item: one(item).checked(item, "a value"))
    if one(F.lit(None)).fits is None:
        return Fit(made)
    fits = F.forall(F.map_values(value), lambda item: item.isNull() | one(item).fits)
    return Fit(made, fits, stops=True)


def _way_out(found: T.DataType, declared: T.DataType) -> str:
    if isinstance(declared, (T.DateType, *_TIMES)) and isinstance(found, (*_WHOLE, *_REAL)):
        return f"declare it as {found.simpleString()}, and write timestamp_seconds() or timestamp_millis() in the SQL"
    return f"declare it as {found.simpleString()}, and convert it in the SQL"


def column(name: str) -> Column:
    """The column of exactly that name, whatever signs it holds."""
    return F.col(f"`{name.replace('`', '``')}`")


def nearest(name: str, among: Iterable[str]) -> str:
    """A hint at the name that a column has now; empty if there is none like it."""
    by_lower = {other.lower(): other for other in among}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f'; is it "{by_lower[close[0]]}" now?' if close else ""
