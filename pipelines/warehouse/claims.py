"""One run at a time on a folder of a store, among all machines that reach it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipelines.locks import BusyError
from pipelines.meanwhile import meanwhile
from pipelines.warehouse.store import Folder

CLAIM = "claim"
_RENEWED_S, _GIVEN_UP_S, _OTHERS_S = 5.0, 30.0, 1.0


@contextmanager
def claimed(folder: Folder, owner: str, busy: str) -> Iterator[None]:
    """Hold a folder of a store alone among all machines that reach it.

    A store has no locks, so a file says who holds it, and is written again and again meanwhile. One that nobody renews
    is of a run that was killed, and is taken over.

    Raises:
        BusyError: another holds it; ``busy`` says what it is about.
    """

    def holder() -> tuple[object, str]:
        found = [info for info in folder.store.found(folder.uri) if info.base_name == CLAIM]
        with suppress(FileNotFoundError):  # released between two looks
            return (found[0].mtime_ns, folder.read(CLAIM).decode()) if found else (None, "")
        return None, ""

    first = holder()
    until = time.monotonic() + _GIVEN_UP_S
    while first[1] and time.monotonic() < until:
        time.sleep(_RENEWED_S / 2)
        now = holder()
        if not now[1]:
            break
        if now != first:
            raise BusyError(f"{busy}, by {now[1]}")
    folder.write(CLAIM, owner.encode())
    time.sleep(_OTHERS_S)  # of two that come at once, the last to write has it
    if (now := holder())[1] != owner:
        raise BusyError(f"{busy}, by {now[1]}")

    def renew() -> None:
        with suppress(OSError):  # a store that is away for a moment
            if holder()[1] in ("", owner):  # another took it over, if we were stopped for long
                folder.write(CLAIM, owner.encode())

    try:
        with meanwhile(_RENEWED_S, renew):
            yield
    finally:
        with suppress(OSError):
            if holder()[1] == owner:  # it may be gone with the folder
                folder.delete(CLAIM)
