"""What a day of a table was made from, down to source files and the model's training; or what was made from a file.

Back: `m2m lineage marts.forecast_daily --date DAY` prints the commit of that day, those that it read, and theirs: runs,
snapshots, code, configuration, source files, and of a model version its training run and what that learnt from.
--advertiser names the data file that holds its rows, too. Forward: `--source TEXT` (a part of a path, or a pattern with
* and ?, or a [[source]]'s name), or a table with --forward: every day, model version and forecast made from it, and
the commands that mend; --run keeps to the file as one run read it. Reads the commits' own words and the model
registry's; no rows, no Spark. A source file stands for the day that its path names; where it names none, for all days
of the run that read it. Writes nothing.
Fails (2) on wrong use, or where there is no such table, day or file.
"""

from __future__ import annotations

import sys

from pipelines.asked import text
from pipelines.chain import LEDGER, TABLES
from pipelines.cli import config_of, exit_status, snapshot, stage_parser
from pipelines.errors import ConfigError, plain

FOLLOWED = [table for table in TABLES if table != LEDGER]  # a ledger of checks is made from nothing but its run


def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__doc__ or "")
    parser.add_argument("table", nargs="?", type=text, help=f"one of {', '.join(FOLLOWED)}")
    parser.add_argument("--source", type=text, metavar="TEXT", help="follow source files whose path has it")
    parser.add_argument("--run", type=snapshot, metavar="RUN_ID", help="with --source, only as this run read the file")
    parser.add_argument("--forward", action="store_true", help="what was made from the table's day")
    parser.add_argument("--advertiser", type=text, help="name the data file that holds its rows")
    parser.add_argument("--scenario", type=text, help="with --advertiser, in the command that shows the rows")
    parser.add_argument("--json", action="store_true", help="the whole of it, for machines")
    arguments = parser.parse_args(argv)
    config = config_of(arguments)
    if bool(arguments.table) == bool(arguments.source):
        raise ConfigError("give a table and --date, or --source TEXT; m2m lineage --help has an example of each")
    if arguments.table and arguments.table not in FOLLOWED:
        raise ConfigError(f'unknown table "{plain(arguments.table)}"; the tables are {", ".join(TABLES)}')
    if arguments.table and arguments.date is None:
        raise ConfigError(f"{arguments.table}: of which day? give --date YYYY-MM-DD")
    if arguments.run and not arguments.source:
        raise ConfigError("--run: give --source too; it says which of a file's states is meant")
    if arguments.advertiser and (arguments.source or arguments.forward):
        raise ConfigError("--advertiser: files hold many advertisers, so what was made from one is not followed alone")
    if arguments.scenario and not arguments.advertiser:
        raise ConfigError("--scenario: give --advertiser too")
    from pipelines.trace.lineage import work

    work(
        config,
        arguments.table,
        arguments.date,
        arguments.source,
        arguments.forward,
        arguments.run,
        (arguments.advertiser, arguments.scenario),
        arguments.json,
    )


if __name__ == "__main__":
    sys.exit(exit_status(main))
