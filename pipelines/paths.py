"""Paths and URIs: the one place where one becomes the other. A path may hold blanks, accents, ``#``, ``?``, ``%``."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

# What PyIceberg opens with pyarrow.
SCHEMES = tuple("file s3 s3a s3n gs gcs abfs abfss wasb wasbs hdfs viewfs oss".split())
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


def ends_early(location: str) -> bool:
    """Whether an address has what is read as something else than a part of the path: all files in it would be one."""
    scheme, colon, rest = location.partition("://")
    return bool(colon) and scheme != "file" and bool(re.search("[?#]", rest))


def check_location(key: str, location: str) -> None:
    """Refuse what is neither an absolute path nor the URI of a storage that there are files on.

    Raises:
        ValueError: naming ``key``.
    """
    scheme, colon, _ = location.partition("://")
    if not (scheme in SCHEMES if colon else location.startswith("/")):
        raise ValueError(f"{key}: expected an absolute path, or an address that begins with {', '.join(SCHEMES)}://")
    if ends_early(location):
        raise ValueError(f"{key}: an address has no ? and no #")
