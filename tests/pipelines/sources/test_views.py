"""Raw files become typed views, each read with its own columns."""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest
from deployment import SQL, TOML
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from pipelines.config import load_config
from pipelines.sources.casts import RefusedError, fit
from pipelines.sources.views import View, register_sources

DAY = dt.date(2024, 1, 1)
LINE = "2024-01-01,a,1\n"
HEADER = "day,who,cost\n"
Reading = Callable[..., tuple[list[Any], View]]


@pytest.fixture
def read(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reading:
    """The rows (without their names) and the view of one source over the files given."""
    monkeypatch.setenv("M2M_HOME", str(tmp_path / "home"))
    (tmp_path / "performance_daily.sql").write_text(SQL)

    def read(
        kind: str,
        path: str,
        files: Mapping[str, bytes | str | pa.Table],
        columns: Mapping[str, str] | None = None,
        more: str = "",
        last: int = 1,
    ) -> tuple[list[Any], View]:
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, pa.Table):
                pq.write_table(content, tmp_path / name)
            else:
                (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        listed = ", ".join(
            f'{name} = "{declared}"'
            for name, declared in (columns or {"day": "date", "who": "string", "cost": "double"}).items()
        )
        before, _, after = TOML.partition("[[source]]")
        source = f'[[source]]\nname = "raw_day"\nformat = "{kind}"\npath = "{path}"\ncolumns = {{ {listed} }}\n{more}\n'
        (tmp_path / "pipeline.toml").write_text(before + source + "[staging]" + after.partition("[staging]")[2])
        (view,) = register_sources(spark, load_config(tmp_path / "pipeline.toml"), DAY, dt.date(2024, 1, last))
        found = sorted((tuple(row) for row in spark.table("raw_day").collect()), key=str)
        return found, view

    return read


def on(day: int) -> list[dt.date]:
    return [dt.date(2024, 1, day)]


HEADERS = 'options = { header = "true" }'


@pytest.mark.parametrize(
    ("name", "content", "more"),
    [
        ("raw/1.csv", HEADER + LINE, HEADERS),
        ("raw/1.csv", b"\xef\xbb\xbf" + (HEADER + LINE).encode(), HEADERS),
        ("raw/1.csv", b"\xef\xbb\xbf" + (HEADER + LINE).encode(), 'options = { header = "true", multiLine = "true" }'),
        ("raw/1.csv", (HEADER + LINE).replace("\n", "\r\n"), HEADERS),
        ("raw/1.csv", "\n" + HEADER + "\n" + LINE, HEADERS),
        ("raw/1.csv.gz", gzip.compress((HEADER + LINE).encode()), HEADERS),
        ("raw/1.csv.bz2", bz2.compress((HEADER + LINE).encode()), HEADERS),
        ("raw/1.csv.zst", pa.compress((HEADER + LINE).encode(), "zstd", asbytes=True), HEADERS),
        (
            "raw/1.csv",
            ("#x\n" + HEADER + LINE).replace(",", ";"),
            'options = { header = "true", sep = ";", comment = "#" }',
        ),
        ("raw/1.csv", (HEADER + LINE).encode("utf-16"), 'options = { header = "true", encoding = "UTF-16" }'),
        (
            "raw/1.csv",
            (HEADER + LINE).replace(",", "\t").encode("utf-16-be"),
            'options = { header = "true", encoding = "UTF-16BE", sep = "\\t" }',
        ),
        ("raw/1.csv", f"Report\n1,2,3\n{HEADER}{LINE}", f"skip_lines = 2\n{HEADERS}"),
        ("raw/[EU] {x}: 06:00.csv", HEADER + LINE, HEADERS),
        ("raw/day 1 #%20?.csv", HEADER + LINE, HEADERS),
    ],
)
def test_csv_of_every_kind(read: Reading, name: str, content: bytes | str, more: str) -> None:
    found, _ = read("csv", "raw/*", {name: content}, more=more)
    assert found == [(DAY, "a", 1.0)]


def test_csv_without_a_header(read: Reading) -> None:
    columns = {"_c0": "date", "_c2": "double"}
    assert read("csv", "1.csv", {"1.csv": LINE}, columns)[0] == [(DAY, 1.0)]
    titled = f'Report\n"of, January"\n1,2,3\n{LINE}'
    assert read("csv", "2.csv", {"2.csv": titled}, columns, "skip_lines = 3")[0] == [(DAY, 1.0)]


def test_quotes_in_csv(read: Reading) -> None:
    rows = 'day,who,cost\n2024-01-01,"a ""b"", c",1\n2024-01-01,5" pipe,2\n2024-01-01,"",3\n2024-01-01,,4\n'
    found, _ = read("csv", "1.csv", {"1.csv": rows}, more=HEADERS)
    assert [row[1] for row in sorted(found, key=lambda row: row[2])] == ['a "b", c', '5" pipe', None, None]
    rows = 'day,who,cost\n2024-01-01,"a \\"b\\" c",1\n'
    found, _ = read("csv", "2.csv", {"2.csv": rows}, more='options = { header = "true", escape = "\\\\" }')
    assert found[0][1] == 'a "b" c'


def test_values_over_lines_and_other_encodings(read: Reading) -> None:
    rows = 'day,who,cost\n2024-01-01,"a\nb",1\n'
    found, _ = read("csv", "1.csv", {"1.csv": rows}, more='options = { header = "true", multiLine = "true" }')
    assert found[0][1] == "a\nb"
    raw = "day,who,cost\n2024-01-01,Café €,1\n".encode("cp1252")
    found, _ = read("csv", "2.csv", {"2.csv": raw}, more='options = { header = "true", encoding = "windows-1252" }')
    assert found[0][1] == "Café €"


def test_csv_files_of_other_columns_are_read_by_name(read: Reading) -> None:
    files = {
        "2024-01-01.csv": HEADER + LINE,
        "2024-01-02.csv": "cost,note,day,who\n2,x,2024-01-02,b\n",
        "2024-01-03.csv": "day,who\n2024-01-03,c\n",
    }
    found, view = read("csv", "{ds}.csv", files, more=f'{HEADERS}\noptional = ["cost"]', last=3)
    assert [row[1:] for row in found] == [("a", 1.0), ("b", 2.0), ("c", None)]
    assert [(finding.check, finding.column, finding.example) for finding in view.findings] == [
        ("new_column", "note", "note string"),
        ("optional_column", "cost", "2024-01-03.csv"),
    ]


def test_parquet_whose_types_change_over_the_days(read: Reading) -> None:
    files = {
        "2024-01-01.parquet": pa.table({"day": on(1), "who": ["a"], "cost": [1]}),
        "2024-01-02.parquet": pa.table({"day": on(2), "who": ["b"], "cost": [2.0]}),
        "2024-01-03.parquet": pa.table({"who": pa.nulls(1), "cost": ["3"], "day": ["2024-01-03"], "new": [1]}),
        "2024-01-04.parquet": pa.table({name: pa.nulls(0) for name in ("day", "who")}),
    }
    found, view = read(
        "parquet", "{ds}.parquet", files, {"day": "date", "who": "string", "cost": "bigint"}, more="", last=4
    )
    assert found == [(on(1)[0], "a", 1), (on(2)[0], "b", 2), (on(3)[0], None, 3)]
    assert len(view.parts) == 3
    assert [finding.example for finding in view.findings] == ["new bigint"]


def test_times_in_nanoseconds_are_times(read: Reading) -> None:
    midnight = 1_704_067_200_000_000_000
    table = pa.table(
        {
            "day": pa.array([midnight, None], pa.timestamp("ns")),
            "zoned": pa.array([midnight + 1_500, -1_500], pa.timestamp("ns", "UTC")),
            "number": pa.array([5, 6], pa.timestamp("ns")),
            "unused": pa.array([1, 2], pa.time64("us")),
        }
    )
    columns = {"day": "date", "zoned": "timestamp", "number": "bigint"}
    found, _ = read("parquet", "1.parquet", {"1.parquet": table}, columns)
    assert {row[0] for row in found} == {DAY, None}
    assert {row[2] for row in found} == {5, 6}
    micros = {row[1].replace(tzinfo=None).microsecond for row in found}
    assert micros == {1, 999_998}


def test_structs_are_taken_by_name(read: Reading) -> None:
    inner = pa.array([{"spend": 2.5, "clicks": 7, "extra": "x"}])
    table = pa.table({"day": on(1), "m": inner, "l": pa.array([[{"b": 1.0, "a": "x"}, None]])})
    columns = {"day": "date", "m": "struct<clicks:bigint,spend:double>", "l": "array<struct<a:string,b:bigint>>"}
    found, _ = read("parquet", "1.parquet", {"1.parquet": table}, columns)
    assert found == [(DAY, Row(clicks=7, spend=2.5), [Row(a="x", b=1), None])]


def test_folders_of_name_and_value_are_columns_as_they_are_written(read: Reading) -> None:
    table = pa.table({"cost": [1.0]})
    files = {f"raw/day=2024-01-0{day}/who={who}/1.parquet": table for day in (1, 2) for who in ("007", "a%3Ab")}
    found, _ = read("parquet", "raw", files)
    assert found == [(on(day)[0], who, 1.0) for day in (1, 2) for who in ("007", "a:b")]
    found, _ = read("parquet", "raw/day={ds}", files, more='options = { basePath = "raw" }')
    assert found == [(DAY, "007", 1.0), (DAY, "a:b", 1.0)]


def test_a_column_of_the_file_is_not_taken_from_its_folder(read: Reading) -> None:
    table = pa.table({"day": on(1), "who": ["in the file"], "cost": [1.0]})
    found, _ = read("parquet", "raw/who=folder", {"raw/who=folder/1.parquet": table})
    assert found == [(DAY, "in the file", 1.0)]


def test_json_with_fields_that_come_and_go(read: Reading) -> None:
    row = {"day": "2024-01-01", "who": "a", "m": {"x": "1", "y": 2.5}}
    lines = "\n".join(map(json.dumps, [row | {"cost": 1}, row, row | {"m": None, "new": 1}]))
    columns = {"day": "date", "who": "string", "cost": "double", "m": "struct<y:double,x:bigint>"}
    found, view = read("json", "1.json", {"1.json": lines}, columns)
    assert sorted((row[2], row[3]) for row in found if row[2]) == [(1.0, Row(y=2.5, x=1))]
    assert [finding.example for finding in view.findings] == ["new string"]


def test_a_json_field_that_only_late_rows_have_is_found(read: Reading) -> None:
    lines = '{"day": "2024-01-01", "who": "a"}\n' * 3_000 + '{"day": "2024-01-01", "who": "b", "cost": 2}\n'
    found, _ = read("json", "1.json", {"1.json": lines})
    assert len(found) == 3_001
    assert sum(row[2] or 0 for row in found) == 2.0


def test_json_of_several_lines_and_an_empty_file(read: Reading) -> None:
    text = json.dumps([{"day": "2024-01-01", "who": "a", "cost": 1}], indent=1)
    found, _ = read("json", "1.json", {"1.json": text}, more='options = { multiLine = "true" }')
    assert found == [(DAY, "a", 1.0)]
    found, _ = read("json", "2.json", {"2.json": ""})
    assert found == []


def test_orc(read: Reading, tmp_path: Path) -> None:
    orc.write_table(pa.table({"day": on(1), "who": ["a"], "cost": [Decimal("1.5")]}), str(tmp_path / "2024-01-01.orc"))
    orc.write_table(pa.table({"who": ["b"], "day": on(2), "cost": [2]}), str(tmp_path / "2024-01-02.orc"))
    found, _ = read("orc", "{ds}.orc", {}, last=2)
    assert found == [(on(1)[0], "a", 1.5), (on(2)[0], "b", 2.0)]


def test_an_address_is_looked_at_through_the_connector_that_reads_it(
    read: Reading, spark: SparkSession, tmp_path: Path
) -> None:
    """Hadoop's view file system stands in for the bucket: its own listing, its own streams."""
    settings = spark._jsc.hadoopConfiguration()
    settings.set("fs.s3a.impl", "org.apache.hadoop.fs.viewfs.ViewFileSystemOverloadScheme")
    settings.set("fs.viewfs.overload.scheme.target.file.impl", "org.apache.hadoop.fs.LocalFileSystem")
    settings.set("fs.viewfs.mounttable.mounted.link./raw", f"file://{tmp_path}/mounted")
    table = pa.table({"day": on(1), "who": ["a"], "cost": [1.0]})
    files = {
        "mounted/2024-01-01/a b.parquet": table,
        "mounted/2024-01-01/_SUCCESS": b"",
        "mounted/day=2024-01-01/x.csv": "who,cost\nb,2\n",
    }
    try:
        found, view = read("parquet", "s3a://mounted/raw/{ds}", files, more='marker = "_SUCCESS"')
        assert found == [(DAY, "a", 1.0)]
        assert [file.path for part in view.parts for file in part.files] == ["s3a://mounted/raw/2024-01-01/a b.parquet"]
        found, _ = read("csv", "s3a://mounted/raw/day=*/*.csv", {}, more=HEADERS)
        assert found == [(DAY, "b", 2.0)]
    finally:
        settings.unset("fs.s3a.impl")


GOOD: dict[str, list[str]] = {
    "double": ["1", " 1.5 ", "-.5", "5.", "+1e3", "1E-3", "NaN", "-Infinity", "inf"],
    "bigint": ["1", "-7", " 8 ", "+9"],
    "decimal(10,2)": ["1", "1.2", "-1.20", "1.25"],
    "date": ["2024-01-31", "2024-1-3", " 2024-01-31 ", "2024-01-31T00:00:00Z", "2024-01-31 00:00:00.000"],
    "timestamp": [
        "2024-01-31",
        "2024-01-31 10:00",
        "2024-01-31T10:00:00.123456+02:00",
        "2024-01-31 10:00:00 Europe/Berlin",
    ],
    "timestamp_ntz": ["2024-01-31", "2024-01-31 10:00:00"],
    "boolean": ["true", "F", "yes", "0"],
}
BAD: dict[str, list[str]] = {
    "double": ["7d", "5f", "5F", "0x1p3", "1,5", "1_000", "", " ", "--", "1.2.3", "٣"],
    "bigint": ["7.0", "1e3", "7L", "9223372036854775808", ""],
    "decimal(10,2)": ["1.239", "1e", "٣", "123456789.00"],
    "date": [
        "2024",
        "2024-01",
        "2024-01-31 garbage",
        "2024-01-31T10:00",
        "12024-01-31",
        "2024-02-30",
        "2024-01-31T00:00:00-08:00",
    ],
    "timestamp": ["2024", "2024-01", "10:00", "T10:00", "2024-01-31T10", "2024-01-31 25:00", "2024-01-31 x"],
    "timestamp_ntz": ["2024-01-31 10:00:00+02:00", "2024-01-31T10:00:00Z", "12:00"],
    "boolean": ["maybe", "2", ""],
}


def test_text_is_taken_where_it_is_whole(spark: SparkSession) -> None:
    for kind in GOOD:
        declared = spark.createDataFrame([], f"x {kind}").schema["x"].dataType
        texts = spark.createDataFrame([(text,) for text in GOOD[kind] + BAD[kind]], "text string")
        rule = fit(F.col("text"), texts.schema["text"].dataType, declared)
        assert rule.fits is not None
        fits = {row[0]: row[1] for row in texts.select("text", rule.fits).collect()}
        assert [text for text in GOOD[kind] if not fits[text]] == [], kind
        assert [text for text in BAD[kind] if fits[text]] == [], kind
        good = spark.createDataFrame([(text,) for text in GOOD[kind]], "text string")
        assert None not in [row[0] for row in good.select(rule.checked(F.col("text"), "text")).collect()], kind


@pytest.mark.parametrize(
    ("found", "declared"),
    [
        ("double", "string"),
        ("float", "string"),
        ("decimal(9,2)", "string"),
        ("bigint", "date"),
        ("int", "timestamp"),
        ("array<int>", "string"),
        ("struct<a:int>", "string"),
        ("string", "array<string>"),
        ("double", "date"),
        ("timestamp", "bigint"),
        ("date", "double"),
        ("string", "struct<a:int>"),
        ("double", "boolean"),
    ],
)
def test_types_that_do_not_go_together_are_refused(spark: SparkSession, found: str, declared: str) -> None:
    frame = spark.range(0).selectExpr(f"cast(null as {found}) as a", f"cast(null as {declared}) as b")
    with pytest.raises(RefusedError):
        fit(F.col("a"), frame.schema["a"].dataType, frame.schema["b"].dataType)
