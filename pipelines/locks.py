"""One process at a time, on one machine: a lock that a killed process does not leave behind."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class BusyError(Exception):
    """Another process holds what this one needs; the same command may work later. Exit status 1."""


@contextmanager
def locked(file: Path, busy: str | None = None, wait_s: float = 0) -> Iterator[None]:
    """Hold ``file`` alone; wait for it, or, with ``busy``, refuse after ``wait_s``.

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
