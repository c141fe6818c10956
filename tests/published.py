"""Days of any table, committed as a stage would commit them, without the stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

import polars as pl

from pipelines.reading.rows import bucket_of
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.files import write_file


def publish(warehouse: Warehouse, table: str, ds: date, rows: Iterable[Mapping[str, Any]], run: str) -> None:
    """Replace a day by some rows. What they do not name is null, or, where it may not be, 0 or the column's name."""
    declared, schema, folder = warehouse.declared(table), warehouse.arrow_schema(table), warehouse.folder(table, run)
    frame = read_empty(warehouse, table)
    empty = {
        column.name: None if column.null else column.name if column.type == "string" else 0
        for column in declared.columns
        if not column.type.startswith("list")
    }
    buckets = warehouse.config.dataset.buckets if "bucket" in declared.partition else 1
    full = []
    for row in rows:
        own = row.get("advertiser_id") or (row.get("value") if row.get("level") == "advertiser" else None)
        bucket = {"bucket": bucket_of(own, buckets) if own else -1} if "bucket" in declared.partition else {}
        full.append(empty | {"ds": ds, "run_id": run} | bucket | dict(row))
    made = pl.DataFrame([{name: row[name] for name in frame.columns} for row in full], schema=frame.schema)
    made = made.sort(*declared.key, nulls_last=True)
    by = ["bucket"] if "bucket" in declared.partition else ["ds"]
    parts = [(key[0] if by == ["bucket"] else 0, part) for key, part in made.group_by(by, maintain_order=True)]
    files = [write_file(part, schema, folder, ds, bucket) for bucket, part in parts]
    warehouse.commit(table, [ds], files, {"run-id": run, "stage": "test"})


def read_empty(warehouse: Warehouse, table: str) -> pl.DataFrame:
    """No row of a table."""
    return warehouse.scan(table, limit=0).clear()
