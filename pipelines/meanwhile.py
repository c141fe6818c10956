"""Something that is done again and again, in a thread, for as long as a block runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def meanwhile(every_s: float, task: Callable[[], object]) -> Iterator[None]:
    """``task()`` every ``every_s`` seconds, the first time after as many; it has ended when the block has."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(every_s):
            task()

    repeating = threading.Thread(target=repeat, daemon=True)
    repeating.start()
    try:
        yield
    finally:
        ended.set()
        repeating.join()
