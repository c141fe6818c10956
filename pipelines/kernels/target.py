"""A table of a run, as workers write it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from pipelines.cli import Run
from pipelines.quality.rules import Rule, count_rows
from pipelines.spark import buckets
from pipelines.warehouse.files import write_file
from pipelines.warehouse.store import Folder

if TYPE_CHECKING:
    from pipelines.warehouse.commits import Warehouse


@dataclass(frozen=True)
class Target:
    """A table of a run, as a worker writes it: rows counted for their rules, then one file a day."""

    schema: pa.Schema
    folder: Folder
    key: tuple[str, ...]
    rules: tuple[Rule, ...]

    @classmethod
    def of(cls, run: Run, warehouse: Warehouse, table: str, rules: Sequence[Rule]) -> Target:
        folder, key = warehouse.folder(table, run.run_id), warehouse.declared(table).key
        return cls(warehouse.arrow_schema(table), folder, key, tuple(rules))

    def count(self, bucket: int, rows: pl.DataFrame) -> pl.DataFrame:
        """Report of the rows, in key order, for the checks."""
        return count_rows(bucket, rows, self.rules, self.key)

    def write(self, bucket: int, rows: pl.DataFrame, ds: date, made_from: str | None = None) -> pl.DataFrame:
        """Write one partition; returns the report of its file."""
        return buckets.file_row(write_file(rows, self.schema, self.folder, ds, bucket, made_from))
