"""The two errors a person can mend, and the exit status each one ends a stage with."""

from collections.abc import Sequence

EXIT_USAGE = 2
EXIT_DATA = 3
EXIT_HOLES = 4  # of `status` alone: a day is missing or stale


class ConfigError(Exception):
    """Wrong use or wrong configuration: nothing was read or written. Exit status 2."""


class DataError(Exception):
    """Data failed a check, or cannot be read: nothing was published. Exit status 3.

    ``lines`` holds one line per failure, each naming table, date, check, column, scenario, count and an example.
    """

    def __init__(self, lines: str | Sequence[str]) -> None:
        self.lines = [lines] if isinstance(lines, str) else list(lines)
        super().__init__("\n".join(self.lines))
