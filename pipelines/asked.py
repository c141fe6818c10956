"""Which rows a person asks for: the arguments that `show` and `export` share, and what they say."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import date

from pipelines.cli import snapshot, stage_parser
from pipelines.errors import plain

NEWEST, ALL = "newest", "all"


@dataclass(frozen=True)
class Asked:
    """Rows of a table: of a day (or of the newest, or of all), as they are or as a snapshot had them, and which."""

    table: str
    day: date | str = NEWEST
    snapshot: str | None = None
    advertiser: str | None = None
    scenario: str | None = None
    task: str | None = None
    where: str | None = None
    columns: tuple[str, ...] = ()

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Asked:
        """As the command line of ``rows_parser`` says it."""
        day, columns = arguments.date or NEWEST, (arguments.columns or "").split(",")
        chosen = tuple(name.strip() for name in columns if name.strip())
        named = {name: getattr(arguments, name) for name in ("snapshot", "advertiser", "scenario", "task", "where")}
        return cls(arguments.table, day, **named, columns=chosen)

    @property
    def filters(self) -> bool:
        """Whether some rows of the day are not wanted."""
        return any(text is not None for text in (self.advertiser, self.scenario, self.task, self.where))


def text(value: str) -> str:
    """Of the command line, a text that a table can hold."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f'"{plain(value[:60])}" is not UTF-8') from None
    return value


def rows_parser(description: str, tables: str) -> argparse.ArgumentParser:
    """Parser of a command that reads rows; ``tables`` says what may stand for TABLE."""
    parser = stage_parser(description, (NEWEST, ALL))
    parser.add_argument("table", metavar="TABLE", help=tables)
    parser.add_argument(
        "--snapshot", type=snapshot, help="snapshot id, or the run id that committed it (default: the table as it is)"
    )
    parser.add_argument("--advertiser", type=text, metavar="ID", help="rows of one advertiser; only its bucket is read")
    parser.add_argument("--scenario", type=text, metavar="ID", help="rows of one scenario")
    parser.add_argument("--task", type=text, metavar="NAME", help="rows of one task")
    parser.add_argument(
        "--where",
        type=text,
        metavar="SQL",
        help="rows for which this is true, as \"spend > 100 and method like 'blend%%'\"",
    )
    parser.add_argument("--columns", type=text, metavar="A,B", help="these alone, in this order; all: every one")
    return parser
