"""Paths and URIs: the one place where one becomes the other. A path may hold blanks, accents, ``#``, ``?``, ``%``."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from pyarrow.fs import FileSystem, LocalFileSystem

_SQLITE = "sqlite:///"


def sqlite_uri(path: Path) -> str:
    """SQLAlchemy's URI of a database file. Only what it would take for more than a character is encoded: MLflow makes
    the file's folder without decoding, and would leave an empty one beside it."""
    return _SQLITE + str(path).replace("%", "%25").replace("?", "%3F")


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite URI; None for any other database."""
    return Path(unquote(uri.removeprefix(_SQLITE).partition("?")[0])) if uri.startswith(_SQLITE) else None


def local_path(location: str) -> str | None:
    """The path of a location on local disk, else None; as in PyIceberg, what follows ``file://`` is not encoded."""
    scheme, colon, rest = location.partition(":")
    if not colon or not scheme.isalnum():
        return location
    return rest.removeprefix("//") if scheme == "file" else None


def filesystem(location: str) -> tuple[FileSystem, str]:
    """The file system of a location of the warehouse, and the path in it."""
    path = local_path(location)
    found: tuple[FileSystem, str] = (LocalFileSystem(), path) if path else FileSystem.from_uri(location)
    return found
