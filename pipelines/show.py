"""Print rows of any table of the warehouse, of one day, one run or one snapshot.

Reads the table through its Iceberg snapshot and writes nothing. With --date only that partition; with
--snapshot the table as it was then (`--snapshot RUN_ID` finds the snapshot that a run committed). `show
tables` lists the tables with their rows.
Fails (2) when there is no such table or snapshot, or the table has no such day.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import polars as pl

from pipelines import chain
from pipelines.cli import config_of, count, exit_status, snapshot, stage_parser
from pipelines.errors import ConfigError, plain
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.days import in_words
from pipelines.warehouse.files import NO_DAY
from pipelines.warehouse.pins import on_day
from pipelines.warehouse.tables import DECLARATIONS, declared


def rows_of(
    warehouse: Warehouse, name: str, ds: Any = None, snapshot: str | None = None, limit: int | None = 20
) -> pl.DataFrame:
    """Up to ``limit`` rows of a table, ordered by its key."""
    snapshot_id = warehouse.snapshot_named(name, snapshot) if snapshot else None
    if ds:
        then = {file.ds for file in warehouse.files(name, snapshot_id=snapshot_id)}
        days = then if snapshot_id else warehouse.days(name)
        if ds not in days:
            known = f"it has {in_words(days, 5)}" if days else "nothing was written to it yet"
            raise ConfigError(f"{name}: no day {ds}; {known}. It is written by: {chain.writer(name)}")
    where = on_day(ds) if ds else None
    frame = warehouse.scan(name, where, limit=limit, snapshot_id=snapshot_id)
    return frame.sort(*warehouse.declared(name).key, nulls_last=True)


def table_list(warehouse: Warehouse) -> pl.DataFrame:
    """Every table: days, rows, files, current snapshot."""
    rows = []
    for name in DECLARATIONS:
        files = warehouse.files(name)
        days = [str(file.ds) for file in files if file.ds != NO_DAY]
        snapshot = warehouse.snapshot_id(name)
        rows.append(
            (name, min(days, default=""), max(days, default=""), sum(f.rows for f in files), len(files), snapshot)
        )
    return pl.DataFrame(rows, schema=["table", "first_ds", "last_ds", "rows", "files", "snapshot"], orient="row")


def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__doc__ or "")
    parser.add_argument("table", metavar="TABLE", help=f"tables, or one of {', '.join(DECLARATIONS)}")
    parser.add_argument(
        "--snapshot", type=snapshot, help="snapshot id, or the run id that committed it (default: the newest)"
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--limit", type=count(1_000_000), default=20, help="rows to print (default 20)")
    arguments = parser.parse_args(argv)
    config = config_of(arguments)
    if arguments.table != "tables":
        declared(arguments.table, config)
    elif arguments.snapshot:
        raise ConfigError("--snapshot: tables are listed as they are now; name the table whose rows of then are wanted")
    warehouse = Warehouse.existing(config, arguments.date)
    if arguments.table == "tables":
        frame = table_list(warehouse)
    else:
        frame = rows_of(warehouse, arguments.table, arguments.date, arguments.snapshot, arguments.limit)
    if arguments.format == "json":
        for row in frame.iter_rows(named=True):
            line = json.dumps(row, default=str, ensure_ascii=False)
            print(line if line.isprintable() else json.dumps(row, default=str).replace("\x7f", "\\u007f"))
        return
    texts = frame.select(pl.col(pl.String)).to_dict()
    frame = frame.with_columns(values.map_elements(plain, pl.String) for values in texts.values())
    with pl.Config(
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_width_chars=200,
        tbl_hide_dataframe_shape=True,
        fmt_str_lengths=60,
        tbl_hide_column_data_types=True,
    ):
        print(frame)


if __name__ == "__main__":
    sys.exit(exit_status(main))
