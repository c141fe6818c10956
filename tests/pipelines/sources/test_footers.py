"""What the footer of a Parquet or ORC file tells."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest
from pyspark.sql import types as T

from pipelines.sources.footers import Footer, footer
from pipelines.sources.heads import UnusableError

TYPES = {
    "bool": (pa.bool_(), "boolean"),
    "int8": (pa.int8(), "tinyint"),
    "int64": (pa.int64(), "bigint"),
    "uint8": (pa.uint8(), "smallint"),
    "uint32": (pa.uint32(), "bigint"),
    "uint64": (pa.uint64(), "decimal(20,0)"),
    "float32": (pa.float32(), "float"),
    "text": (pa.large_string(), "string"),
    "category": (pa.dictionary(pa.int8(), pa.string()), "string"),
    "bytes": (pa.binary(), "binary"),
    "date": (pa.date32(), "date"),
    "us": (pa.timestamp("us"), "timestamp_ntz"),
    "zoned": (pa.timestamp("ms", "Asia/Shanghai"), "timestamp"),
    "ns": (pa.timestamp("ns"), "bigint"),
    "decimal": (pa.decimal128(12, 3), "decimal(12,3)"),
    "none": (pa.null(), "void"),
    "list": (pa.list_(pa.int32()), "array<int>"),
    "map": (pa.map_(pa.string(), pa.float64()), "map<string,double>"),
    "struct": (pa.struct({"b": pa.int64(), "a": pa.string()}), "struct<b:bigint,a:string>"),
    "time": (pa.time64("us"), None),
    "half": (pa.float16(), None),
}


def written(table: pa.Table, **options: object) -> Footer:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    buffer.seek(0)
    return footer(buffer, "parquet")


def test_types_are_those_that_spark_reads() -> None:
    table = pa.table({name: pa.nulls(2, kind) for name, (kind, _) in TYPES.items()})
    found = written(table)
    assert found.rows == 2
    names = {
        name: field.dataType.simpleString() if isinstance(field, T.StructField) else None
        for name, field in found.columns.items()
    }
    assert names == {name: kind for name, (_, kind) in TYPES.items()}


def test_old_timestamps_are_times() -> None:
    found = written(pa.table({"t": pa.nulls(1, pa.timestamp("ns"))}), use_deprecated_int96_timestamps=True)
    field = found.columns["t"]
    assert isinstance(field, T.StructField)
    assert field.dataType == T.TimestampType()


def test_orc() -> None:
    buffer = io.BytesIO()
    orc.write_table(pa.table({"a": [1, 2, 3], "t": pa.array([1, 2, 3], pa.timestamp("us"))}), buffer)
    buffer.seek(0)
    found = footer(buffer, "orc")
    assert found.rows == 3
    assert [field.dataType for field in found.columns.values() if isinstance(field, T.StructField)] == [
        T.LongType(),
        T.TimestampType(),
    ]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "0 bytes"),
        (b"day,who\n", "begins with the text"),
        (b"PK\x03\x04" + bytes(99), "it is zip"),
        (b"PAR1" + bytes(99) + b"PAR1", "damaged or cut off"),
        (b"\x00\xff" * 99, "damaged or cut off"),
    ],
)
def test_what_is_no_parquet_is_named(raw: bytes, words: str) -> None:
    with pytest.raises(UnusableError, match=words):
        footer(io.BytesIO(raw), "parquet")
