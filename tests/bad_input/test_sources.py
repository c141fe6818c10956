"""Raw files that cannot be read as their source says."""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest
from bad_input.corpus import Case
from deployment import SQL, Deployment

pytestmark = pytest.mark.spark

COLUMNS = {"day": "date", "who": "string", "place": "string", "views": "double", "taps": "double", "cost": "double"}
WRITTEN = (
    'format = "parquet"\npath = "raw/ds={ds}.parquet"\ncolumns = { '
    + ", ".join(f'{name} = "{kind}"' for name, kind in COLUMNS.items())
    + " }"
)
DAY = dt.date(2024, 1, 1)
NEW_YEAR, HOUR = 1_704_067_200_000_000, 3_600_000_000  # microseconds
HEADER = "day,who,place,views,taps,cost"
GOOD = "2024-01-01,adv1,search,100,5,2.5\n2024-01-01,adv2,search,90,4,2.25\n"


def source(
    kind: str,
    path: str,
    options: str = "",
    columns: Mapping[str, str] | None = None,
    more: str = "",
) -> tuple[str, str]:
    """The edit that makes the deployment's source another one; ``columns`` differ from the usual."""
    listed = ", ".join(f'{name} = "{declared}"' for name, declared in (COLUMNS | dict(columns or {})).items())
    lines = [f'format = "{kind}"', f'path = "{path}"', f"columns = {{ {listed} }}", more]
    return WRITTEN, "\n".join([*lines, f"options = {{ {options} }}" if options else ""])


def csv(
    content: str | bytes,
    *words: str,
    name: str = "raw/2024-01-01.csv",
    path: str = "raw/{ds}.csv",
    options: str = 'header = "true"',
    columns: Mapping[str, str] | None = None,
    more: str = "",
    status: int = 3,
) -> Case:
    edit = source("csv", path, options, columns, more)
    return Case(words, "stage_sources --date 2024-01-01", status, edit, files={name: content}, spark=True)


def rows(*lines: str) -> str:
    return "\n".join([HEADER, *lines]) + "\n"


def ill(column: str, value: str, kind: str, *words: str) -> Case:
    """A CSV file with one value that is not of its declared type."""
    cells = dict(zip(HEADER.split(","), GOOD.split("\n")[0].split(","), strict=True)) | {column: value}
    line = ",".join(cells.values())
    named = (f'column "{column}"', f"1 values are not {kind}", "raw/2024-01-01.csv", *words)
    return csv(rows(line), *named, columns={column: kind})


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def zipped(**members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)
    return buffer.getvalue()


def parquet(**columns: Any) -> bytes:
    """A Parquet file with the usual columns, apart from those given; None takes one away."""
    usual = {
        "day": [DAY, DAY],
        "who": ["adv1", "adv2"],
        "place": ["search", "search"],
        "views": [100.0, 90.0],
        "taps": [5.0, 4.0],
        "cost": [2.5, 2.25],
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table({k: v for k, v in (usual | columns).items() if v is not None}), buffer)
    return buffer.getvalue()


def pq_case(content: bytes, *words: str, columns: Mapping[str, str] | None = None, status: int = 3) -> Case:
    edit = source("parquet", "raw/{ds}.parquet", columns=columns)
    files = {"raw/2024-01-01.parquet": content}
    return Case(words, "stage_sources --date 2024-01-01", status, edit, files=files, spark=True)


def in_range(files: Mapping[str, str | bytes], *words: str, edit: tuple[str, str] | None = None) -> Case:
    """Three days at once."""
    edit = edit or source("parquet", "raw/{ds}.parquet")
    return Case(words, "stage_sources --from 2024-01-01 --to 2024-01-03", 3, edit, files=files, spark=True)


def on(day: int, **columns: Any) -> bytes:
    ds = dt.date(2024, 1, day)
    return parquet(**({"day": [ds, ds]} | columns))


def js(content: str | bytes, *words: str, options: str = "", columns: Mapping[str, str] | None = None) -> Case:
    edit = source("json", "raw/{ds}.json", options, columns)
    files = {"raw/2024-01-01.json": content}
    return Case(words, "stage_sources --date 2024-01-01", 3, edit, files=files, spark=True)


def configured(edit: tuple[str, str], *words: str) -> Case:
    return Case(words, "stage_sources --date 2024-01-01", 2, edit)


OBJECT = {"day": "2024-01-01", "who": "adv1", "place": "search", "views": 100, "taps": 5, "cost": 2.5}
LINE = json.dumps(OBJECT)
NO_COST = json.dumps({name: value for name, value in OBJECT.items() if name != "cost"})
DATED = source("parquet", "raw/{ds}.parquet")
ORC_COST = io.BytesIO()
orc.write_table(pa.table({"day": [DAY], "who": ["a"], "place": ["s"], "views": [1.0], "taps": [1.0]}), ORC_COST)

TEXT = {
    "0 bytes": csv("", "raw/2024-01-01.csv", "is empty, 0 bytes"),
    "blank lines alone": csv("\n\n", "raw/2024-01-01.csv", "no header"),
    "gzip without its ending": csv(gzip.compress(rows(GOOD).encode()), "is gzip", ".gz", "rename"),
    "bzip2 without its ending": csv(bz2.compress(rows(GOOD).encode()), "is bzip2", ".bz2", "rename"),
    "xz without its ending": csv(lzma.compress(rows(GOOD).encode()), "is xz", "does not unpack"),
    "xz": csv(lzma.compress(b"x"), "is xz", ".gz", name="raw/2024-01-01.csv.xz", path="raw/{ds}.csv.xz"),
    "zip": csv(zipped(a__csv=rows(GOOD)), "is zip", "does not unpack", name="raw/2024-01-01.zip", path="raw/{ds}.zip"),
    "zip named gz": csv(zipped(a__csv="x"), "is zip", name="raw/2024-01-01.csv.gz", path="raw/{ds}.csv.gz"),
    "zip in gzip": csv(gzip.compress(zipped(a="x")), "is zip", name="raw/2024-01-01.csv.gz", path="raw/{ds}.csv.gz"),
    "Excel workbook": csv(zipped(xl__x="x") + b"xl/workbook", "is an Excel workbook", "deliver it as CSV"),
    "lz4": csv(
        pa.compress(b"a" * 99, "lz4", asbytes=True), "lz4", name="raw/2024-01-01.csv.lz4", path="raw/{ds}.csv.lz4"
    ),
    "snappy": csv(b"anything", ".snappy", "plain", name="raw/2024-01-01.csv.snappy", path="raw/{ds}.csv.snappy"),
    "plain text named gz": csv(rows(GOOD), "not packed", name="raw/2024-01-01.csv.gz", path="raw/{ds}.csv.gz"),
    "gzip cut off": csv(
        gzip.compress(rows(*GOOD.splitlines() * 9999).encode())[:900],
        "raw/2024-01-01.csv.gz",
        "end",
        name="raw/2024-01-01.csv.gz",
        path="raw/{ds}.csv.gz",
    ),
    "Parquet": csv(parquet(), "is Parquet", 'format = "parquet"'),
    "UTF-16 with tabs": csv(
        rows(GOOD).replace(",", "\t").encode("utf-16"), "UTF-16", 'encoding = "UTF-16"', 'sep = "\\t"'
    ),
    "UTF-16 without a mark": csv(rows(GOOD).encode("utf-16-le"), 'encoding = "UTF-16LE"'),
    "UTF-16 that is none": csv(rows(GOOD), "is not UTF-16", options='header = "true", encoding = "UTF-16"'),
    "latin-1": csv(rows("2024-01-01,Café,search,1,1,1").encode("latin-1"), "not UTF-8", "0xE9", "line 2", "encoding"),
    "latin-1 far below": csv(
        rows(*GOOD.splitlines() * 2000, "2024-01-01,Café,search,1,1,1").encode("latin-1"), "lost_characters", "encoding"
    ),
    "zero bytes within": csv(rows(GOOD.replace("adv1", "a\0")), "zero bytes"),
    "page of an error": csv("<!DOCTYPE html>\n<html><body>Sign in</body></html>", "HTML", "Sign in"),
    "JSON": csv(LINE, 'format = "json"'),
    "titles": csv("Campaign report\nJanuary\n" + rows(GOOD), "header in line 3", "skip_lines = 2"),
    "one title": csv("Report\n" + rows(GOOD), "header in line 2", "skip_lines = 1"),
    "semicolons": csv(rows(GOOD).replace(",", ";"), 'sep = ";"'),
    "tabs": csv(rows(GOOD).replace(",", "\t"), 'sep = "\\t"'),
    "bars": csv(rows(GOOD).replace(",", "|"), 'sep = "|"'),
    "names and no header": csv(rows(GOOD), 'header = "true"', options='sep = ","'),
    "no names": csv(GOOD, "none of the 6 declared columns", "found 2024-01-01, adv1"),
    "renamed": csv(rows(GOOD).replace("cost", "costs", 1), 'column "cost" is gone', 'is it "costs" now?'),
    "other case": csv(rows(GOOD).replace("cost", "COST", 1), 'column "cost" is gone', 'is it "COST" now?'),
    "blank before a name": csv(rows(GOOD).replace(",cost", ", cost", 1), 'column "cost" is gone', 'is it " cost" now?'),
    "a column twice": csv(rows(GOOD).replace("taps,cost", "cost,cost", 1), '"cost" 2 times'),
    "a column twice, in another case": csv(
        HEADER + ",Cost\n" + "2024-01-01,a,s,1,1,1,2\n", '"cost" 2 times: cost, Cost'
    ),
    "thousands unquoted": csv(
        rows("2024-01-01,a,s,1,234,5,61.7", GOOD.strip()), "line 2", "7 cells, expected 6", "1,234"
    ),
    "thousands beside an unused column": csv(
        HEADER + ",note\n2024-01-01,a,s,9,4,1,234.50,x\n" + "2024-01-01,b,s,9,4,1.5,y\n",
        "line 2",
        "8 cells, expected 7",
    ),
    "a short row": csv(rows(*GOOD.splitlines(), "2024-01-01,adv3,search,1"), "line 4", "4 cells, expected 6"),
    "a short row where the SQL takes few": csv(rows(GOOD.strip(), "2024-01-01,adv3"), "line 4", "2 cells, expected 6"),
    "a line break in quotes": csv(rows('2024-01-01,"a', 'b",s,1,1,1'), "line 2", 'multiLine = "true"'),
    "a quote that is not closed": csv(rows('2024-01-01,a,"s,1,1,1', GOOD.strip()), "line 2", "quote", "not closed"),
    "a quote within quotes": csv(rows('2024-01-01,"a"b",s,1,1,1', GOOD.strip()), "line 2", "quote", "doubled"),
    "quotes after backslashes": csv(rows('2024-01-01,"a\\"b",s,1,1,1', GOOD.strip()), "line 2", "quote", "escape"),
    "an unknown encoding": csv(
        rows(GOOD), "encoding", "utf-9", options='header = "true", encoding = "utf-9"', status=2
    ),
    "a number of Java": ill("cost", "7d", "double", '"7d"'),
    "a hexadecimal number": ill("cost", "0x1p3", "double", '"0x1p3"'),
    "a decimal comma": ill("cost", '"1,5"', "double", '"1,5"'),
    "a currency": ill("cost", "$5", "double", '"$5"'),
    "a fraction in a whole number": ill("taps", "7.5", "bigint", '"7.5"'),
    "too large a number": ill("taps", "3000000000", "int", '"3000000000"'),
    "more places than declared": ill("cost", "1.239", "decimal(10,2)", '"1.239"'),
    "a year": ill("day", "2024", "date", '"2024"'),
    "a month": ill("day", "2024-01", "date", '"2024-01"'),
    "a date and more": ill("day", "2024-01-01 garbage", "date", "garbage"),
    "a date with a time": ill("day", "2024-01-01T23:30:00-08:00", "date", "23:30"),
    "a date of five digits": ill("day", "12024-01-01", "date", '"12024-01-01"'),
    "a European date": ill("day", "01.01.2024", "date", '"01.01.2024"'),
    "a time without a date": ill("place", "12:30", "timestamp", '"12:30"'),
    "a zone that would be dropped": ill("place", "2024-01-01 10:00:00+08:00", "timestamp_ntz", "+08:00"),
    "a truth that is none": ill("place", "maybe", "boolean", '"maybe"'),
    "a day before the first": csv(rows("0000-01-01,a,s,1,1,1"), "other_day ds: found 1", "ds=null", "(a, s)"),
    "a name of a megabyte": csv("x" * 2**20 + "\n1\n", "none of the 6 declared columns", "found " + "x" * 97 + "..."),
    "gzip with a flipped bit far below": csv(
        flipped(gzip.compress(rows(*(f"2024-01-01,a{i * 7919},s,{i},1,1" for i in range(9999))).encode())),
        "raw/2024-01-01.csv.gz: cannot be read",
        name="raw/2024-01-01.csv.gz",
        path="raw/{ds}.csv.gz",
    ),
    "deflate that is none": csv(
        b"\x78\x9cnonsense", "unpacked", name="raw/2024-01-01.csv.deflate", path="raw/{ds}.csv.deflate"
    ),
    "gzip with more behind it": csv(
        gzip.compress(rows(GOOD).encode()) + b"x", "unpacked", name="raw/2024-01-01.csv.gz", path="raw/{ds}.csv.gz"
    ),
    "control characters": ill("cost", "\x1b[31mred", "double", "\\x1b[31mred"),
}

OPTIONS = {
    name: csv(rows(GOOD), "[[source]] raw_day: options", *words, options=f'header = "true", {option}', status=2)
    for name, option, *words in (
        ("no separator", 'sep = ""', "sep is empty"),
        ("a quote of two", "quote = \"''\"", "value of quote cannot be more than one character"),
        ("a comment of two", 'comment = "##"', "value of comment cannot be more than one character"),
        ("a number in words", 'maxColumns = "many"', "maxColumns should be an integer. Found many."),
        ("a truth that is none", 'multiLine = "yes"', 'multiLine: For input string: "yes"'),
    )
}

JSON = {
    "not JSON": js(rows(GOOD), "does not begin like JSON", "day,who"),
    "an envelope": js(
        json.dumps({"data": [OBJECT], "paging": {}}), "none of the 6 declared columns", "jq -c '.data[]'"
    ),
    "a long envelope": js(json.dumps({"items": [OBJECT] * 2000}), "none of the 6 declared columns", "jq -c '.items[]'"),
    "several lines an object": js(json.dumps([OBJECT], indent=1), 'multiLine = "true"'),
    "several lines an object, long": js(json.dumps([OBJECT] * 2000, indent=1), 'multiLine = "true"'),
    "several objects a line": js(LINE * 3, "several objects in one line"),
    "many objects a line": js(LINE * 2000, "several objects in one line"),
    "multiLine on lines": js(f"{LINE}\n{LINE}\n", "more than one object", options='multiLine = "true"'),
    "a line cut off": js(f"{LINE}\n{LINE[:30]}\n", "line 2", "is no JSON object"),
    "a line of text": js(f'{LINE}\n"text"\n', "line 2", "is no JSON object"),
    "a field in no row": js(f"{NO_COST}\n{NO_COST}\n", 'column "cost" is gone', "optional"),
    "a field in no row, long": js(f"{NO_COST}\n" * 2000, 'column "cost" is gone', "optional"),
    "a field that is elsewhere in rows far below": js(
        f"{NO_COST}\n" * 2000 + json.dumps(json.loads(NO_COST) | {"note": {"cost": 1}, "text": '"cost"'}),
        'column "cost" is gone',
    ),
    "a name with a dot for a field within": js(
        json.dumps(OBJECT | {"m": {"x": 1}}), 'column "m.x" is gone', columns={'"m.x"': "double"}
    ),
    "lists too deep": js(f'{{"x": {"[" * 5000}{"]" * 5000}}}', "too deep in each other"),
    "single quotes": js(str(OBJECT), "first line that is no JSON: {'day'"),
    "a renamed field": js(LINE.replace("cost", "costs"), 'column "cost" is gone', 'is it "costs" now?'),
    "a field in another case": js(LINE.replace("cost", "Cost"), 'column "cost" is gone', 'is it "Cost" now?'),
    "a field within that is gone": js(
        json.dumps(OBJECT | {"place": {"name": "s"}}),
        'column "place.id" is gone',
        columns={"place": "struct<name:string,id:string>"},
    ),
    "latin-1": js(LINE.replace("adv1", "Café").encode("latin-1"), "not UTF-8", "0xE9"),
    "text in a number": js(LINE.replace("2.5", '"a lot"'), 'column "cost": 1 values are not double', "a lot"),
    "text in a number within": js(
        json.dumps(OBJECT | {"place": {"id": "7d"}}), 'column "place": 1 values', columns={"place": "struct<id:double>"}
    ),
}

TYPED = {
    "0 bytes": pq_case(b"", "cannot be read as parquet", "0 bytes"),
    "CSV": pq_case(rows(GOOD).encode(), "cannot be read as parquet", "begins with the text"),
    "zip": pq_case(zipped(a="x"), "cannot be read as parquet", "it is zip"),
    "cut off": pq_case(parquet()[:-200], "cannot be read as parquet", "damaged or cut off"),
    "no footer": pq_case(b"PAR1" + bytes(64) + b"PAR1", "cannot be read as parquet", "damaged"),
    "pages overwritten": pq_case(
        parquet(who=[f"adv{i}" for i in range(2)])[:30] + b"\xff" * 40 + parquet()[70:], "raw/2024-01-01.parquet"
    ),
    "renamed": pq_case(parquet(cost=None, costs=[1.0, 2.0]), 'column "cost" is gone', 'is it "costs" now?'),
    "two that differ in case": pq_case(parquet(Cost=[1.0, 2.0]), "Cost", "cost"),
    "an id of double": pq_case(parquet(who=[1000037.0, None]), 'column "who" is double', "1000037.0", "bigint"),
    "an id of decimal": pq_case(
        parquet(who=pa.array([1, 2], pa.decimal128(9, 2))), 'column "who" is decimal(9,2)', "declared string"
    ),
    "fractions in a whole number": pq_case(
        parquet(taps=[0.77, -0.4]), 'column "taps": 2 values are not bigint', '"0.77"', columns={"taps": "bigint"}
    ),
    "decimal fractions in a whole number": pq_case(
        parquet(taps=[Decimal("1.25"), Decimal("2.00")]),
        'column "taps": 1 values are not int',
        columns={"taps": "int"},
    ),
    "not a number in a whole number": pq_case(
        parquet(taps=[float("nan"), 1.0]), 'column "taps": 1 values are not bigint', columns={"taps": "bigint"}
    ),
    "too large a number": pq_case(
        parquet(taps=[2**40, 1]), 'column "taps": 1 values are not int', columns={"taps": "int"}
    ),
    "cents in a decimal": pq_case(
        parquet(cost=[1.239, 2.0]), 'column "cost": 1 values are not decimal(10,2)', columns={"cost": "decimal(10,2)"}
    ),
    "a truth of 2": pq_case(
        parquet(place=[1, 2]), 'column "place": 1 values are not boolean', columns={"place": "boolean"}
    ),
    "a time in a date": pq_case(
        parquet(day=pa.array([NEW_YEAR + 13 * HOUR, NEW_YEAR], pa.timestamp("us"))),
        'column "day": 1 values are not date',
        "13:00",
    ),
    "midnight elsewhere": pq_case(
        parquet(day=pa.array([NEW_YEAR - 8 * HOUR] * 2, pa.timestamp("us", "UTC"))),
        'column "day": 2 values are not date',
        "2023-12-31 16:00:00",
        "time zone",
    ),
    "midnight elsewhere, in nanoseconds": pq_case(
        parquet(day=pa.array([1704038400000000000] * 2, pa.timestamp("ns", "UTC"))),
        'column "day": 2 values are not date',
        "2023-12-31 16:00:00",
    ),
    "seconds as a date": pq_case(parquet(day=[1704067200, 1704067200]), 'column "day" is bigint', "timestamp_seconds"),
    "a number as a date": pq_case(parquet(day=[20240101, 20240101]), 'column "day" is bigint', "declared date"),
    "text dates": pq_case(parquet(day=["2024-01-01", "2024-01"]), 'column "day": 1 values are not date', '"2024-01"'),
    "a list as text": pq_case(parquet(place=[["a"], ["b"]]), 'column "place" is array<string>', "declared string"),
    "a list of fractions": pq_case(
        parquet(place=[[1.5], [2.0]]), 'column "place": 1 values', columns={"place": "array<bigint>"}
    ),
    "a struct's field is gone": pq_case(
        parquet(place=[{"id": 1}, {"id": 2}]),
        'column "place.name" is gone',
        columns={"place": "struct<id:bigint,name:string>"},
    ),
    "a fraction in a struct": pq_case(
        parquet(place=[{"id": 1.5}, {"id": 2.0}]), 'column "place": 1 values', columns={"place": "struct<id:bigint>"}
    ),
    "a type that Spark cannot read": pq_case(
        parquet(place=pa.array([1, 2], pa.time64("us"))), 'column "place"', "time64"
    ),
    "an empty day of pandas": pq_case(
        parquet(**{name: pa.nulls(0) for name in COLUMNS}), "empty_day", "found 1", "0 rows"
    ),
    "no column at all": pq_case(parquet(**dict.fromkeys(COLUMNS), x=[1]), "none of the 6 declared columns", "found x"),
    "ORC without a column": Case(
        ('column "cost" is gone', "raw/2024-01-01.orc"),
        "stage_sources --date 2024-01-01",
        3,
        source("orc", "raw/{ds}.orc"),
        files={"raw/2024-01-01.orc": ORC_COST.getvalue()},
        spark=True,
    ),
    "no ORC": Case(
        ("cannot be read as orc", "Parquet"),
        "stage_sources --date 2024-01-01",
        3,
        source("orc", "raw/{ds}.orc"),
        files={"raw/2024-01-01.orc": parquet()},
        spark=True,
    ),
}

THREE = {f"raw/2024-01-0{day}.parquet": on(day) for day in (1, 2, 3)}
RANGES = {
    "renamed midway": in_range(
        THREE | {"raw/2024-01-03.parquet": on(3, cost=None, costs=[1.0, 2.0])},
        "ds=2024-01-03",
        'column "cost" is gone from raw/2024-01-03.parquet',
        'is it "costs" now?',
    ),
    "begins midway": in_range(
        THREE | {f"raw/2024-01-0{day}.parquet": on(day, cost=None) for day in (1, 2)},
        "ds=2024-01-01",
        "raw/2024-01-01.parquet and 1 more of 3 files",
        'optional = ["cost"]',
    ),
    "fractions on one day": in_range(
        THREE | {"raw/2024-01-02.parquet": on(2, taps=[0.5, 1.0])},
        "ds=2024-01-02",
        'column "taps": 1 values are not bigint',
        "raw/2024-01-02.parquet",
        edit=source("parquet", "raw/{ds}.parquet", columns={"taps": "bigint"}),
    ),
    "double ids on one day": in_range(
        THREE | {"raw/2024-01-02.parquet": on(2, who=[1.0, None])},
        "ds=2024-01-02",
        'column "who" is double',
        "First: 1.0",
    ),
    "a CSV column lost on one day": in_range(
        {f"raw/2024-01-0{day}.csv": rows(f"2024-01-0{day},a,s,1,1,1") for day in (1, 2)}
        | {"raw/2024-01-03.csv": "day,who,place,views,taps\n2024-01-03,a,s,1,1\n"},
        "ds=2024-01-03",
        'column "cost" is gone from raw/2024-01-03.csv',
        edit=source("csv", "raw/{ds}.csv", 'header = "true"'),
    ),
    "a JSON field lost on one day": in_range(
        {f"raw/2024-01-0{day}.json": LINE.replace("-01-01", f"-01-0{day}") for day in (1, 2)}
        | {"raw/2024-01-03.json": NO_COST.replace("-01-01", "-01-03")},
        "ds=2024-01-03",
        'column "cost" is gone from raw/2024-01-03.json',
        edit=source("json", "raw/{ds}.json"),
    ),
    "one file damaged": in_range(
        THREE | {"raw/2024-01-02.parquet": on(2)[:-9]}, "ds=2024-01-02", "raw/2024-01-02.parquet", "damaged"
    ),
    "one day missing": in_range({"raw/2024-01-01.parquet": on(1), "raw/2024-01-03.parquet": on(3)}, "1 of 3 files"),
}


def folder(files: Mapping[str, str | bytes], *words: str, more: str = "", path: str = "raw/{ds}") -> Case:
    edit = source("parquet", path, more=more)
    return Case(words, "stage_sources --date 2024-01-01", 3, edit, files=files, spark=True)


PLACES = {
    "no file": Case(("1 of 1 files are missing", "only late"), "stage_sources --date 2024-01-01", 3, DATED, spark=True),
    "another shape of date": folder(
        {"raw/20240101.parquet": parquet()}, "missing", "{ds:%Y%m%d}", path="raw/{ds}.parquet"
    ),
    "another shape of date, German": folder({"raw/01.01.2024.pq": parquet()}, "{ds:%d.%m.%Y}", path="raw/{ds}.pq"),
    "another ending": folder({"raw/2024-01-01.pq": b""}, "raw has 2024-01-01.pq", path="raw/{ds}.parquet"),
    "only _SUCCESS": folder({"raw/2024-01-01/_SUCCESS": b""}, "no data files, only _SUCCESS"),
    "only what is being written": folder({"raw/2024-01-01/_temporary/0/a.parquet": b"x"}, "only _temporary"),
    "only folders": folder({"raw/2024-01-01/eu/a.parquet": parquet()}, "only folders: eu", "recursiveFileLookup"),
    "a stray file": folder(
        {"raw/2024-01-01/a.parquet": parquet(), "raw/2024-01-01/README.txt": "hi"}, "README.txt", "pathGlobFilter"
    ),
    "nothing that fits the filter": Case(
        ("no file that fits pathGlobFilter *.pq",),
        "stage_sources --date 2024-01-01",
        3,
        source("parquet", "raw/{ds}", 'pathGlobFilter = "*.pq"'),
        files={"raw/2024-01-01/a.parquet": parquet()},
        spark=True,
    ),
    "no marker": folder(
        {"raw/2024-01-01/a.parquet": parquet()}, "1 of 1 markers", "_SUCCESS", more='marker = "_SUCCESS"'
    ),
    "no marker beside": folder(
        {"raw/2024-01-01/a.parquet": parquet()}, "markers", "done/20240101.ok", more='marker = "done/{ds:%Y%m%d}.ok"'
    ),
    "a folder's value that is no date": folder(
        {"raw/day=2024-13/a.parquet": parquet(day=None)}, 'column "day": 2 values are not date', '"2024-13"', path="raw"
    ),
    "a checksum of older content": Case(
        ("raw/2024-01-01.csv", "checksum", "raw/.2024-01-01.csv.crc"),
        "stage_sources --date 2024-01-01",
        3,
        source("csv", "raw/{ds}.csv", 'header = "true"'),
        files={"raw/2024-01-01.csv": rows(GOOD), "raw/.2024-01-01.csv.crc": b"crc\0\0\0\2\0\1\2\3\4"},
        spark=True,
    ),
    "a hidden file": Case(
        ("_2024-01-01.parquet", "begins with _"),
        "stage_sources --date 2024-01-01",
        2,
        source("parquet", "raw/_{ds}.parquet"),
        files={"raw/_2024-01-01.parquet": parquet()},
        spark=True,
    ),
    "no connector": Case(
        ("s3a://", "no connector", "hadoop-aws"),
        "stage_sources --date 2024-01-01",
        2,
        source("parquet", "s3a://bucket/{ds}.parquet"),
        spark=True,
    ),
    "no connector for s3": Case(
        ("s3://", "write s3a://"),
        "stage_sources --date 2024-01-01",
        2,
        source("parquet", "s3://bucket/{ds}.parquet"),
        spark=True,
    ),
    "a table that there is not": Case(
        ("no table nowhere",), "stage_sources --date 2024-01-01", 2, source("table", "nowhere"), spark=True
    ),
    "a day that the SQL filters away": Case(
        ("the files hold 2 rows", "from 2023-12-31 to 2023-12-31"),
        "stage_sources --date 2024-01-01",
        3,
        source("parquet", "raw/{ds}.parquet", columns={"day": "timestamp"}),
        files={
            "raw/2024-01-01.parquet": parquet(day=pa.array([NEW_YEAR - 8 * HOUR] * 2, pa.timestamp("us", "UTC"))),
            "performance_daily.sql": "select date(day) as ds, who as advertiser_id, place as scenario_id, views, taps, "
            "cost as spend from raw_day where date(day) between :from_ds and :to_ds",
        },
        spark=True,
    ),
}

SETTINGS = {
    "ds_nodash": configured(source("csv", "raw/{ds_nodash}.csv"), "unknown placeholder {ds_nodash}", "{ds:%Y%m%d}"),
    "a template of Airflow": configured(source("csv", "raw/{{ ds }}.csv"), "unknown placeholder", "{ds}"),
    "another name of the day": configured(source("csv", "raw/{date}.csv"), "unknown placeholder {date}", "{ds}"),
    "hours": configured(source("csv", "raw/{ds:%Y%m%d%H}.csv"), "unknown placeholder {ds:%Y%m%d%H}"),
    "no shape": configured(source("csv", "raw/{ds:yyyyMMdd}.csv"), "unknown placeholder {ds:yyyyMMdd}", "%Y%m%d"),
    "a brace alone": configured(source("csv", "raw/{ds.csv"), "unknown placeholder {"),
    "an unknown marker": configured(source("csv", "raw/{ds}", more='marker = "{day}.ok"'), "marker", "{day}"),
    "a web address": configured(source("csv", "https://host/{ds}.csv"), "https://", "copy the files"),
    "mode": configured(source("csv", "a.csv", 'mode = "PERMISSIVE"'), "mode", "always stops"),
    "a format of dates": configured(source("csv", "a.csv", 'dateFormat = "dd.MM.yyyy"'), "dateformat", "to_date"),
    "an optional column that is none": configured(
        source("csv", "a.csv", more='optional = ["costs"]'), '"costs"', "not one"
    ),
    "optional all": configured(
        source("csv", "a.csv", more=f"optional = {json.dumps([*COLUMNS])}"), "at least one column"
    ),
    "titles of Parquet": configured(source("parquet", "a", more="skip_lines = 2"), "skip_lines is for csv"),
    "too many titles": configured(source("csv", "a", more="skip_lines = 500"), "skip_lines", "100"),
    "a marker of a table": configured(source("table", "a", more='marker = "_SUCCESS"'), "marker is for files"),
    "a struct in CSV": configured(source("csv", "a", columns={"place": "struct<a:int>"}), "csv holds no struct"),
}

CASES = {
    f"{group}: {name}": case
    for group, cases in {
        "text": TEXT,
        "option": OPTIONS,
        "json": JSON,
        "typed": TYPED,
        "range": RANGES,
        "place": PLACES,
        "setting": SETTINGS,
    }.items()
    for name, case in cases.items()
}


@pytest.mark.parametrize("name", CASES)
def test_a_source_that_cannot_be_read_is_named(
    refuse: Callable[[Case], None], deployment: Deployment, name: str
) -> None:
    # A scenario of any declared type: what is tried is the reading, not the type that the SQL returns.
    sql = SQL.replace("place as scenario_id", "cast(place as string) as scenario_id")
    (deployment.folder / "performance_daily.sql").write_text(sql)
    refuse(CASES[name])
