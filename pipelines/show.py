"""Print rows of any table of the warehouse, of one day, one run or one snapshot.

Reads the table through its Iceberg snapshot and writes nothing. With --date only that partition; with
--snapshot the table as it was then (`--snapshot RUN_ID` finds the snapshot that a run committed). `show
tables` lists the tables with their rows.
Fails (2) when there is no such table or snapshot, or the table has no such day.
"""

from __future__ import annotations

import sys

from pipelines.chain import TABLES
from pipelines.cli import config_of, count, exit_status, snapshot, stage_parser
from pipelines.errors import ConfigError


def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__doc__ or "")
    parser.add_argument("table", metavar="TABLE", help=f"tables, or one of {', '.join(TABLES)}")
    parser.add_argument(
        "--snapshot", type=snapshot, help="snapshot id, or the run id that committed it (default: the newest)"
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--limit", type=count(1_000_000), default=20, help="rows to print (default 20)")
    arguments = parser.parse_args(argv)
    config = config_of(arguments)
    if arguments.table not in ("tables", *TABLES):
        raise ConfigError(f'unknown table "{arguments.table}"; the tables are {", ".join(TABLES)}')
    if arguments.table == "tables" and arguments.snapshot:
        raise ConfigError("--snapshot: tables are listed as they are now; name the table whose rows of then are wanted")
    from pipelines.stages.show import work

    work(config, arguments.table, arguments.date, arguments.snapshot, arguments.limit, arguments.format)


if __name__ == "__main__":
    sys.exit(exit_status(main))
