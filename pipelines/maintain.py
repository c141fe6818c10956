"""House-keeping: snapshots that nobody needs any more, files that no snapshot refers to, folders of dead runs.

Reads every table's metadata and lists its folder; the same for the data set's `runs`. Without --apply it writes
nothing and shows what would go. A snapshot is kept when it is younger than [maintenance] keep_snapshots_days, is the
newest, or was read by the run of such a one or by that of a model version that an alias names: every kept run can be
replayed. It says of which days the replays end. Model versions and their runs stay. A file is removed when no kept
snapshot refers to it and it is older than [maintenance] keep_files_hours: younger ones may belong to a run that has
not committed yet. With --restore it looks into one table's metadata alone, and writes to the catalog which of it is
the newest that can be read.
Fails (2) on wrong use, or when a table's folder is another's as well; (3) when there is nothing to restore.
"""

from __future__ import annotations

import sys

from pipelines.chain import TABLES
from pipelines.cli import config_of, exit_status, stage_parser


def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__doc__ or "")
    parser.add_argument("--apply", action="store_true", help="remove what would go (default: only show it)")
    parser.add_argument(
        "--restore",
        metavar="TABLE",
        choices=("all", *TABLES),
        help="instead: let the catalog name the newest state of a table (or of all) that can be read",
    )
    arguments = parser.parse_args(argv)
    config = config_of(arguments)
    from pipelines.stages import maintain

    if arguments.restore and config.home.is_dir():  # the catalog itself may be lost
        maintain.restore_tables(config, TABLES if arguments.restore == "all" else [arguments.restore])
    else:
        maintain.work(config, arguments.apply)


if __name__ == "__main__":
    sys.exit(exit_status(main))
