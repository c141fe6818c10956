"""One bucket of forecasts made again, beside what was published: only counts and examples come back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from pipelines.errors import DataError
from pipelines.kernels.scored import Serving
from pipelines.quality.forecasts import KEY
from pipelines.warehouse.files import DataFile, read_files

# Relative: the network counts in 32 bits, and another processor adds up in another order (two threads: 1e-6 at most).
TOLERANCE = 1e-5
FOUND = pl.Schema(
    {
        "bucket": pl.Int32(),
        "what": pl.String(),  # of those below, or a column
        "rows": pl.Int64(),
        "near": pl.Int64(),  # of a column: not the same bits, and within TOLERANCE
        "largest": pl.Float64(),  # relative difference
        "example": pl.String(),
    }
)
COMPARED, MISSING, ADDED, TWICE, LOST, UNREADABLE = "rows:", "missing:", "added:", "twice:", "lost:", "unreadable:"
_KEY = list(KEY)
Found = tuple[str, int, int, float | None, str | None]  # a row of FOUND without its bucket


@dataclass(frozen=True)
class Wanted:
    """Which forecasts of the day."""

    advertiser: str | None = None
    scenario: str | None = None
    task: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """What is asked for, by its column."""
        asked = {"advertiser_id": self.advertiser, "scenario_id": self.scenario, "task": self.task}
        return {column: text for column, text in asked.items() if text is not None}


@dataclass(frozen=True)
class Replaying:
    """One replay, as every bucket needs it: what forecasts, what was published, which of it, the columns that are not
    compared, and those that were ``added`` to the table later: rows of before do not have them."""

    serving: Serving
    files: Mapping[int, Sequence[DataFile]]
    schema: pa.Schema
    wanted: Wanted
    apart: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


def compare_bucket(job: Replaying, bucket: int) -> pl.DataFrame:
    """Kernel of one bucket; rows of ``FOUND``."""
    return pl.DataFrame([(bucket, *one) for one in _compared(job, bucket)], FOUND, orient="row")


def _compared(job: Replaying, bucket: int) -> Iterator[Found]:
    files, wanted = job.files.get(bucket, ()), job.wanted.named
    try:
        published = read_files(files, job.schema).filter(**wanted)
    except DataError as error:
        yield LOST, sum(file.rows for file in files), 0, None, error.lines[0]
        return
    try:
        made = _made(job, bucket).filter(**wanted)
    except DataError as error:
        yield UNREADABLE, published.height, 0, None, error.lines[0]
        return
    older = [name for name in job.added if name in made.columns and published[name].null_count() == published.height]
    yield from compared(published, made.drop(older))


def compared(published: pl.DataFrame, made: pl.DataFrame) -> Iterator[Found]:
    """What differs between published forecasts and those that were made again, in all columns of these."""
    for what, rows in (
        (MISSING, made.join(published, on=_KEY, how="anti")),
        (ADDED, published.join(made, on=_KEY, how="anti")),
        (TWICE, published.filter(published.select(_KEY).is_duplicated())),
    ):
        if rows.height:
            yield what, rows.height, 0, None, _named(rows, 0)
    one_each = published.unique(_KEY, keep="first").sort(_KEY)
    both = one_each.join(made, on=_KEY, how="inner", suffix=":again", maintain_order="left")
    yield COMPARED, both.height, 0, None, None
    for column in (name for name in made.columns if name not in KEY):
        one, other = both[column], both[f"{column}:again"]
        if one.dtype.is_float():
            a, b = (side.cast(pl.Float64).to_numpy() for side in (one, other))
            same = a.view(np.int64) == b.view(np.int64)
            with np.errstate(all="ignore"):
                apart = np.where(same | (a == b), 0.0, np.abs(a - b) / np.maximum(np.abs(a), np.abs(b)))
            apart = np.nan_to_num(apart, nan=np.inf)
        else:
            apart = np.where(one.ne_missing(other).to_numpy(), np.inf, 0.0)
            same = apart == 0
        if not same.all():
            far, worst = int((apart > TOLERANCE).sum()), int(apart.argmax())
            said = f"{_named(both, worst)}: published {one[worst]}, again {other[worst]}"
            yield column, far, int((~same).sum()) - far, float(apart.max()), said


def _made(job: Replaying, bucket: int) -> pl.DataFrame:
    """The bucket's forecasts once more."""
    serving = job.serving
    if bucket not in serving.sequences.files:
        return read_files([], job.schema)
    return serving.rows(serving.forecasts(serving.panel(bucket)), bucket).select(
        name for name in job.schema.names if name not in job.apart
    )


def _named(rows: pl.DataFrame, row: int) -> str:
    advertiser, scenario, task, horizon = rows.select(_KEY).row(row)
    return f"({advertiser}, {scenario}, {task}, {horizon} days)"
