"""Print rows of any table of the warehouse: of the newest day, of one day, of all; as it is, or as a snapshot had it.

Reads the table through its Iceberg snapshot and writes nothing. `show tables` lists the tables with their days and
rows, and says how another program opens the catalog. --advertiser, --scenario, --task and --where choose rows, --sort
orders all of them before --limit cuts; what is left out, rows and columns, is said. A table is as wide as the terminal;
--columns and --format json have the values whole; --format files names the data files that hold the rows, for programs
that read Parquet and no Iceberg (docs/read_the_tables.md). `--snapshot RUN_ID` finds the snapshot that a run committed.
Fails (2) when there is no such table, snapshot, day or column, or an expression that is none.
"""

from __future__ import annotations

import sys

from pipelines.asked import Asked, rows_parser, text
from pipelines.chain import TABLES
from pipelines.cli import config_of, count, exit_status
from pipelines.errors import ConfigError, plain


def main(argv: list[str] | None = None) -> None:
    parser = rows_parser(__doc__ or "", f"tables, or one of {', '.join(TABLES)}")
    parser.add_argument(
        "--sort", type=text, action="append", default=[], metavar="COLUMN[:desc]", help="order all rows by a column"
    )
    parser.add_argument("--format", choices=("table", "json", "files"), default="table")
    parser.add_argument("--limit", type=count(1_000_000), default=20, help="rows to print (default 20)")
    arguments = parser.parse_args(argv)
    config, asked = config_of(arguments), Asked.of(arguments)
    if asked.table not in ("tables", *TABLES):
        raise ConfigError(f'unknown table "{plain(asked.table)}"; the tables are {", ".join(TABLES)}')
    if asked.table == "tables" and (asked.snapshot or asked.filters or arguments.sort or arguments.format == "files"):
        given = "--snapshot" if asked.snapshot else "a filter, --sort or --format files"
        raise ConfigError(f"{given}: tables are listed as they are now; name the table whose rows of then are wanted")
    if arguments.format == "files" and {asked.scenario, asked.task, asked.where} != {None}:
        raise ConfigError("--format files: a file has rows of all scenarios and tasks; choose these where it is read")
    from pipelines.reading.show import work

    work(config, asked, arguments.limit, arguments.sort, arguments.format)


if __name__ == "__main__":
    sys.exit(exit_status(main))
