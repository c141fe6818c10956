"""What the footer of a Parquet or ORC file tells: its rows, its columns and the types that Spark reads them as."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
from pyspark.sql import types as T

from pipelines.sources.heads import HEAD, UnusableError, kind_of

NANOS = {"nanos": True}  # metadata of a field that Spark reads as a count of nanoseconds
_SIMPLE = {
    pa.bool_(): T.BooleanType(),
    pa.int8(): T.ByteType(),
    pa.int16(): T.ShortType(),
    pa.int32(): T.IntegerType(),
    pa.int64(): T.LongType(),
    pa.uint8(): T.ShortType(),
    pa.uint16(): T.IntegerType(),
    pa.uint32(): T.LongType(),
    pa.uint64(): T.DecimalType(20, 0),
    pa.float32(): T.FloatType(),
    pa.float64(): T.DoubleType(),
    pa.date32(): T.DateType(),
    pa.date64(): T.DateType(),
    pa.null(): T.NullType(),
}


@dataclass(frozen=True)
class Footer:
    """Rows and columns of a file; a column of a type that Spark cannot read has None."""

    rows: int
    columns: dict[str, T.StructField | str]


def footer(file: BinaryIO, kind: str) -> Footer:
    """The footer of a ``parquet`` or ``orc`` file.

    Raises:
        UnusableError: it is none.
    """
    try:
        if kind == "orc":
            found = orc.ORCFile(file)
            return Footer(found.nrows, {field.name: _field(field, frozenset(), kind) for field in found.schema})
        parquet = pq.ParquetFile(file)
        leaves = [parquet.schema.column(i) for i in range(len(parquet.schema))]
        int96 = frozenset(leaf.path for leaf in leaves if leaf.physical_type == "INT96")
        return Footer(
            parquet.metadata.num_rows, {field.name: _field(field, int96, kind) for field in parquet.schema_arrow}
        )
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UnusableError(_why(file, kind, error)) from None


def _why(file: BinaryIO, kind: str, error: Exception) -> str:
    file.seek(0)
    raw = file.read(HEAD)
    begins = kind_of(raw)
    if not raw:
        return f"cannot be read as {kind}: it is empty, 0 bytes"
    if begins and begins.lower() != kind:
        return f"cannot be read as {kind}: it is {begins}"
    if not begins and raw[:200].isascii() and all(byte >= 9 for byte in raw[:200]):
        return f"cannot be read as {kind}: it begins with the text {raw[:60].decode('ascii')!r}"
    reason = re.split(r"[\n]|\. ", str(error))[0]
    return f"cannot be read as {kind}: it is damaged or cut off ({reason[:150]})"


def _field(field: pa.Field, int96: frozenset[str], kind: str) -> T.StructField | str:
    """The column as Spark reads it, or the name of a type that it cannot read."""
    if pa.types.is_timestamp(field.type) and field.type.unit == "ns" and kind == "parquet" and field.name not in int96:
        zoned = T.TimestampType() if field.type.tz else T.TimestampNTZType()
        return T.StructField(field.name, T.LongType(), metadata=NANOS | {"type": zoned.simpleString()})
    found = spark_type(field.type, kind, field.name in int96)
    return T.StructField(field.name, found) if found else str(field.type)


def spark_type(kind: pa.DataType, file_format: str, int96: bool = False) -> T.DataType | None:
    """The type that Spark reads a column as; None if it cannot."""
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return T.StringType()
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return T.BinaryType()
    if pa.types.is_dictionary(kind):
        return spark_type(kind.value_type, file_format)
    if pa.types.is_duration(kind):
        return T.LongType()
    if pa.types.is_decimal(kind):
        return T.DecimalType(kind.precision, kind.scale) if kind.precision <= 38 and kind.scale >= 0 else None
    if pa.types.is_timestamp(kind):
        if file_format == "parquet" and kind.unit == "ns" and not int96:
            return T.LongType()
        return T.TimestampType() if kind.tz or int96 or file_format == "orc" else T.TimestampNTZType()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        within = spark_type(kind.value_type, file_format)
        return T.ArrayType(within) if within else None
    if pa.types.is_map(kind):
        key, item = spark_type(kind.key_type, file_format), spark_type(kind.item_type, file_format)
        return T.MapType(key, item) if key and item else None
    if pa.types.is_struct(kind):
        fields = [(field.name, spark_type(field.type, file_format)) for field in kind]
        # A field that Spark cannot read is left out; whoever declares it is told that it is not there.
        return T.StructType([T.StructField(name, found) for name, found in fields if found])
    return None
