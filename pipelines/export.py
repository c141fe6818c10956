"""Write rows of a table to one Parquet or CSV file, for programs that read no Iceberg: of the newest day, or of --date.

Reads the table through its Iceberg snapshot, bucket by bucket, so that memory does not grow with the advertisers, and
writes nothing but --out, which appears whole or not at all; one of before is replaced. Rows come bucket by bucket, in
the order of the key within each. --advertiser, --scenario, --task and --where choose rows, --columns columns.
CSV: UTF-8 with a header, days as YYYY-MM-DD (UTC), a null is empty and an empty text is "". A text that begins with
= + - @ | % gets a ' before it, lest a spreadsheet run it; how many did is said.
Fails (2) when there is no such table, snapshot, day (the nearest are named) or column, where --out cannot be, or when
CSV cannot hold a column; (3) when a data file is gone or damaged.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipelines.asked import Asked, rows_parser, text
from pipelines.chain import TABLES
from pipelines.cli import config_of, exit_status
from pipelines.errors import ConfigError, plain

KINDS = (".parquet", ".csv")


def main(argv: list[str] | None = None) -> None:
    parser = rows_parser(__doc__ or "", f"one of {', '.join(TABLES)}")
    parser.add_argument("--out", type=text, required=True, metavar="FILE", help="FILE.parquet or FILE.csv")
    arguments = parser.parse_args(argv)
    config, asked, out = config_of(arguments), Asked.of(arguments), Path(arguments.out)
    if asked.table not in TABLES:
        raise ConfigError(f'unknown table "{plain(asked.table)}"; the tables are {", ".join(TABLES)}')
    if out.suffix not in KINDS or "://" in arguments.out:
        raise ConfigError(f"--out {plain(arguments.out)}: expected a local file whose name ends with .parquet or .csv")
    from pipelines.reading.export import work

    work(config, asked, out)


if __name__ == "__main__":
    sys.exit(exit_status(main))
