"""Which days of which table are missing, stale or lost, and the commands that mend them, in order; and whether the
champion is who the ledger says.

Reads the tables' Iceberg metadata and asks whether their files are there: no Spark, no rows. Looks at the --days
(default 28) up to --date (default: yesterday). The tables of a stage are expected to have every day since its first
one, those of monitor since the first forecasts. A day is *stale* when a day that it was made from has been written
since, with other rows or for the first time (its lineage names the snapshots that it read), or when the run that wrote
another table of the stage ended before this one. It is *lost* when a data file of it is gone. An alias of MLflow that
was moved outside ops.promotion is told, with the two commands of which one mends it; where MLflow cannot be asked, a
line says so. Writes nothing and makes no table.
Fails (4) when a day is missing, stale or lost or an alias was moved, (2) on wrong use or where there is no catalog.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

from pipelines.cli import config_of, count, exit_status, stage_parser
from pipelines.errors import EXIT_HOLES


def main(argv: list[str] | None = None) -> int:
    parser = stage_parser(__doc__ or "")
    parser.add_argument(
        "--days", type=count(3660), default=28, help="how many days up to --date to look at (default 28)"
    )
    arguments = parser.parse_args(argv)
    config = config_of(arguments)
    last = arguments.date or datetime.now(UTC).date() - timedelta(days=1)
    from pipelines.stages.status import work

    whole = work(config, max(config.dataset.first_day, last - timedelta(days=arguments.days - 1)), last)
    return 0 if whole else EXIT_HOLES


if __name__ == "__main__":
    sys.exit(exit_status(main))
