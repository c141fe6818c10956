"""A day's forecasts, as workers read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from pipelines.warehouse.files import DataFile, by_bucket, read_files
from pipelines.warehouse.sequences import SERIES

if TYPE_CHECKING:
    from pipelines.warehouse.pins import Pin


@dataclass(frozen=True)
class Published:
    """A day's files by bucket, and how they are read."""

    files: Mapping[int, Sequence[DataFile]]
    schema: pa.Schema
    horizon_days: int  # of rows that do not say: written before the column was added

    @classmethod
    def of(cls, pin: Pin, files: Iterable[DataFile], horizon_days: int) -> Published:
        return cls(by_bucket(files), pin.schema, horizon_days)

    def rows(self, bucket: int, columns: Sequence[str]) -> pl.DataFrame:
        names = [*SERIES, "horizon_days", *columns]
        rows = read_files(self.files.get(bucket, ()), self.schema, names)
        return rows.with_columns(pl.col("horizon_days").fill_null(self.horizon_days))
