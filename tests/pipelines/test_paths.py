"""Paths and URIs, one made of the other, whatever a path holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy
from pyarrow.fs import LocalFileSystem
from pyiceberg.io.pyarrow import PyArrowFileIO

from pipelines.paths import check_location, local_path, sqlite_path, sqlite_uri
from pipelines.warehouse.store import Store

ODD = ["plain", "a b é", "x#y", "x%20y", "x?y", "[1]", "{a}*", "s3:", "%", "a:b", "a b é#x%20[1]?", "\\q'\"$&;=+~"]


@pytest.mark.parametrize("name", ODD)
def test_a_sqlite_uri_opens_its_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "x.db"
    path.parent.mkdir(parents=True)
    with sqlalchemy.create_engine(sqlite_uri(path)).begin() as connection:
        connection.execute(sqlalchemy.text("create table t (x int)"))
    assert path.exists()
    assert sqlite_path(sqlite_uri(path)) == path


@pytest.mark.parametrize("name", ODD)
def test_we_and_pyiceberg_find_a_location_in_the_same_place(name: str) -> None:
    assert local_path(f"/home/{name}") == f"/home/{name}"
    assert PyArrowFileIO.parse_location(f"/home/{name}") == ("file", "", f"/home/{name}")
    assert Store().filesystem(f"/home/{name}") == (LocalFileSystem(), f"/home/{name}")


@pytest.mark.parametrize("location", ["s3://b/a?x", "s3://b/a#1", "gs://b#/a", "scratch", "ftp://b/a"])
def test_what_would_put_all_files_into_one_is_no_location(location: str) -> None:
    with pytest.raises(ValueError, match="scratch: "):
        check_location("scratch", location)


@pytest.mark.parametrize("location", ["s3://b", "s3://b/a b é%20", "file:///a?b#c", "/a?b#c"])
def test_what_is_a_location(location: str) -> None:
    check_location("scratch", location)
    assert PyArrowFileIO.parse_location(f"{location}/x")[2].endswith("/x") or location.startswith("file:")


def test_uris() -> None:
    assert (
        local_path("file:///x y") == local_path("file:/x y") == PyArrowFileIO.parse_location("file:///x y")[2] == "/x y"
    )
    assert local_path("s3://bucket/x") is None
    assert sqlite_path("postgresql://host/base") is None
