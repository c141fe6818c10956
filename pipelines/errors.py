"""The two errors a person can mend, the exit status each one ends a stage with, and how words reach a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

EXIT_USAGE = 2
EXIT_DATA = 3
EXIT_HOLES = 4  # of `status` alone: a day is missing or stale
EXIT_STOPPED = 130  # Ctrl-C, as shells have it
EXIT_UNREAD = 141  # what read our output went away, as shells have it


class ConfigError(Exception):
    """Wrong use or wrong configuration: nothing was read or written. Exit status 2."""


class DataError(Exception):
    """Data failed a check, or cannot be read: nothing was published. Exit status 3.

    ``lines`` holds one line per failure, each naming table, date, check, column, scenario, count and an example.
    """

    title = "data error"

    def __init__(self, lines: str | Sequence[str]) -> None:
        self.lines = [lines] if isinstance(lines, str) else list(lines)
        super().__init__("\n".join(self.lines))


class ForecastError(DataError):
    """What was forecast broke the rules of forecasts: a fault of the model or of the program, not of the data."""

    title = "forecasts broke their own rules, by no fault of the data"


def said_by_worker(text: str) -> ConfigError | DataError | None:
    """The error that a kernel raised on a Spark worker: on the driver it is the last line of a traceback in another
    error's text."""
    found = re.search(r"^pipelines\.errors\.(Config|Data)Error: (.*)$", text, re.MULTILINE)
    return {"Config": ConfigError, "Data": DataError}[found[1]](found[2]) if found else None


_HIDDEN: dict[str, str] = {}  # values from the environment, and the references that are shown instead


def hide(value: str, reference: str) -> None:
    """Show ``reference`` wherever ``value`` would be printed; a value of a few characters is no secret, and in many
    words."""
    if len(value) > 3:
        _HIDDEN[value] = reference


def plain(text: object) -> str:
    """Text as one line of printable characters: what would break the line, move the cursor or hide a word is shown as
    its escape, and what came from the environment as its reference. Ids, paths and messages of libraries come from
    outside: all that is printed of them goes through this.
    """
    words = str(text)
    for value in sorted(_HIDDEN, key=len, reverse=True):
        words = words.replace(value, _HIDDEN[value])
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in words)
