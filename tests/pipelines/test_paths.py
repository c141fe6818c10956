"""Paths and URIs, one made of the other, whatever a path holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy
from pyarrow.fs import LocalFileSystem
from pyiceberg.io.pyarrow import PyArrowFileIO

from pipelines.paths import local_path, sqlite_path, sqlite_uri
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


def test_uris() -> None:
    assert (
        local_path("file:///x y") == local_path("file:/x y") == PyArrowFileIO.parse_location("file:///x y")[2] == "/x y"
    )
    assert local_path("s3://bucket/x") is None
    assert sqlite_path("postgresql://host/base") is None
