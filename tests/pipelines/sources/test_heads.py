"""What the first bytes of a text file tell."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import zlib

import pyarrow as pa
import pytest

from pipelines.sources.csv_heads import csv_names, titles
from pipelines.sources.heads import Dialect, Head, UnusableError, text_head
from pipelines.sources.json_heads import json_fields

NAMES = ["day", "who", "cost"]
TEXT = "day,who,cost\n2024-01-01,a,1\n"


def dialect(**options: str) -> Dialect:
    return Dialect(options)


def head(raw: bytes, name: str = "a.csv", **options: str) -> Head:
    return text_head(io.BytesIO(raw), name, dialect(**options))


@pytest.mark.parametrize(
    ("row", "options", "cells"),
    [
        ("a,b,c", {}, ["a", "b", "c"]),
        ("a,,", {}, ["a", "", ""]),
        ('a,"b,c",d', {}, ["a", "b,c", "d"]),
        ('"a ""quoted"" one",b', {}, ['a "quoted" one', "b"]),
        ('"a \\"quoted\\" one",b', {"escape": "\\"}, ['a "quoted" one', "b"]),
        ("a||b|c", {"sep": "||"}, ["a", "b|c"]),
        ("a\tb", {"sep": "\\t"}, ["a", "b"]),
        ("a;b", {"delimiter": ";"}, ["a", "b"]),
        ("'a,b',c", {"quote": "'"}, ["a,b", "c"]),
        ('a "b" c,d', {}, ['a "b" c', "d"]),
        (" a , b", {"ignoreleadingwhitespace": "true"}, ["a ", "b"]),
    ],
)
def test_cells_are_parted_as_spark_parts_them(row: str, options: dict[str, str], cells: list[str]) -> None:
    assert dialect(**options).cells(row) == cells


def test_cells_as_long_as_a_file_are_parted_too() -> None:
    long = "x" * (1 << 22)
    assert dialect().cells(f'{long},"{long}"') == [long, long]


def test_lines_end_where_the_source_says() -> None:
    assert [row for _, row in dialect(linesep="|").rows("a,b|1,2|")] == ["a,b", "1,2"]


def test_a_value_may_go_on_in_the_next_line_where_that_is_said() -> None:
    text = 'a,b\n1,"x\ny"\n'
    assert [row for _, row in dialect(multiline="true").rows(text)] == ["a,b", '1,"x\ny"']
    assert [number for number, _ in dialect().rows(text)] == [1, 2, 3]


def test_blank_lines_and_comments_are_no_rows() -> None:
    assert list(dialect(comment="#").rows("\n# made today\n\na,b\n")) == [(4, "a,b")]


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_lines_end_in_any_way(ends: str) -> None:
    assert csv_names(head(TEXT.replace("\n", ends).encode()), dialect(header="true"), NAMES) == NAMES


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("a.csv", TEXT.encode()),
        ("a.csv", b"\xef\xbb\xbf" + TEXT.encode()),
        ("a.csv.gz", gzip.compress(TEXT.encode())),
        ("a.csv.GZ", gzip.compress(TEXT.encode())),
        ("a.csv.bz2", bz2.compress(TEXT.encode())),
        ("a.csv.deflate", zlib.compress(TEXT.encode())),
        ("a.csv.zst", pa.compress(TEXT.encode(), "zstd", asbytes=True)),
    ],
)
def test_a_file_that_spark_unpacks_is_looked_into(name: str, raw: bytes) -> None:
    found = head(raw, name)
    assert found == Head(TEXT, whole=True)


@pytest.mark.parametrize("encoding", ["UTF-16", "UTF-16LE", "UTF-16BE", "UTF-32", "windows-1252", "ISO-8859-1"])
def test_encodings(encoding: str) -> None:
    text = TEXT.replace("who", "wée")
    found = head(text.encode(encoding), encoding=encoding)
    assert csv_names(found, dialect(header="true"), ["day", "wée"]) == ["day", "wée", "cost"]


def test_an_encoding_that_java_alone_knows_is_left_to_spark() -> None:
    assert csv_names(head(TEXT.encode(), encoding="x-MacRoman9"), dialect(header="true"), NAMES) == NAMES


def test_a_character_that_the_head_cuts_in_two_is_no_fault() -> None:
    raw = b"day,who\n" + "é".encode() * 40_000
    assert not head(raw).whole


def test_a_header_longer_than_a_head() -> None:
    names = [f"a_long_name_of_column_{i}" for i in range(9_000)]
    found = head(",".join(names).encode() + b"\n1\n")
    assert csv_names(found, dialect(header="true"), names) == names


def test_without_a_header_columns_are_counted() -> None:
    assert csv_names(Head("1,2,3\n", whole=True), dialect(), ["_c0"]) == ["_c0", "_c1", "_c2"]


def test_the_index_that_pandas_writes_has_no_name() -> None:
    assert csv_names(Head(f",{TEXT}", whole=True), dialect(header="true"), NAMES) == ["_c0", *NAMES]


def test_columns_that_nobody_declared_may_be_there_twice() -> None:
    names = csv_names(Head("day,note,who,note,cost\n", whole=True), dialect(header="true"), NAMES)
    assert names == ["day", "note#1", "who", "note#3", "cost"]


def test_title_lines_are_skipped() -> None:
    found = Head(f'Report\n"1, January"\n{TEXT}', whole=True)
    assert csv_names(found, dialect(header="true"), NAMES, 2) == NAMES
    assert set(titles(found, dialect(header="true"), 2)) == {'"1, January"', "1, January", "day,who,cost"}
    assert titles(found, dialect(header="true"), 0) == ()


def test_fields_of_json_lines() -> None:
    lines = '{"a": 1, "b": {"c": 2}}\n\n[{"d": 3}, {"a": 4}]\n{"e": {}}\n'
    assert json_fields(Head(lines, whole=True), dialect()) == ([("a",), ("b",), ("b", "c"), ("d",), ("e",)], True)


def test_of_json_lines_that_go_on_the_whole_ones_are_taken() -> None:
    assert json_fields(Head('{"a": 1}\n{"b": 2, "c', whole=False), dialect()) == ([("a",)], False)


def test_json_of_several_lines() -> None:
    text = json.dumps([{"a": 1}, {"b": 2}], indent=2)
    assert json_fields(Head(text, whole=True), dialect(multiline="true")) == ([("a",), ("b",)], True)
    assert json_fields(Head(text[:20], whole=False), dialect(multiline="true")) == ([("a",)], False)


def test_an_object_longer_than_a_head_is_no_row() -> None:
    assert json_fields(Head('{"paging": {"next": 2}, "data": [{"a": 1}, ', whole=False), dialect()) == (
        [("paging",), ("data",)],
        True,
    )


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ('{"a": 1}{"a": 2}', {}, "several objects in one line"),
        ('{"a": 1}\n{"a": 2}', {"multiline": "true"}, "more than one object"),
        ('{\n"a": 1}', {}, 'multiLine = "true"'),
        ("a,b\n1,2", {}, "does not begin like JSON"),
    ],
)
def test_json_that_spark_would_read_in_part(text: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(UnusableError, match=words):
        json_fields(Head(text, whole=True), dialect(**options))
