"""One process at a time: locks that a killed process does not leave behind."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import NullPool, create_engine, text

from pipelines.paths import sqlite_path

_TABLES = 0x6D326D  # of PostgreSQL's locks, the one that is taken for a database's tables


class BusyError(Exception):
    """Another process holds what this one needs; the same command may work later. Exit status 1."""


@contextmanager
def locked(file: Path, busy: str | None = None, wait_s: float = 0) -> Iterator[None]:
    """Hold ``file`` alone among this machine's processes; wait for it, or, with ``busy``, refuse after ``wait_s``.

    Raises:
        BusyError: another process holds it; ``busy`` says what it is about.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + wait_s
    with file.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise BusyError(busy) from None
                time.sleep(0.1)
        yield


@contextmanager
def tables_made_by_one(uri: str) -> Iterator[None]:
    """While a library opens a database and makes or migrates its tables: of two that find it empty the second waits,
    where it would fail halfway. Databases but SQLite and PostgreSQL are not locked."""
    if file := sqlite_path(uri):
        with locked(file.with_suffix(".lock")):
            yield
    elif uri.startswith("postgresql"):
        with create_engine(uri, poolclass=NullPool).begin() as connection:
            connection.execute(text(f"select pg_advisory_xact_lock({_TABLES})"))
            yield
    else:
        yield
