"""The work of `show`: pipelines/show.py says what it reads and writes, and when it fails."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import polars as pl

from pipelines import chain
from pipelines.config import Config
from pipelines.errors import ConfigError, plain
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.days import in_words
from pipelines.warehouse.files import NO_DAY
from pipelines.warehouse.pins import on_day
from pipelines.warehouse.tables import DECLARATIONS


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


def work(config: Config, table: str, ds: date | None, snapshot: str | None, limit: int, layout: str) -> None:
    """Print them, or the list of tables."""
    warehouse = Warehouse.existing(config, ds)
    frame = table_list(warehouse) if table == "tables" else rows_of(warehouse, table, ds, snapshot, limit)
    if layout == "json":
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
