"""Sums of a cell on two days in, the rule that they break out."""

from __future__ import annotations

import polars as pl
import pytest

from pipelines.kernels.sound import BESIDE, COLLAPSE, LEVEL_JUMP, SERIES, judged


def cell(
    mean: float, before: float, level: float = 100.0, level_before: float = 100.0, width: float = 1.0, was: float = 1.0
) -> pl.DataFrame:
    """Widths are shares of the means."""
    row = ("search", "spend", 7, SERIES, mean, before, level, level_before, width * mean, was * before)
    return pl.DataFrame([row], schema=list(BESIDE), orient="row").cast(BESIDE)


@pytest.mark.parametrize(
    ("sums", "rule"),
    [
        (cell(110, 100), None),
        (cell(1000, 100), LEVEL_JUMP),
        (cell(10, 100), LEVEL_JUMP),
        (cell(0, 100), LEVEL_JUMP),
        (cell(1000, 100, level=1000), None),  # as the data did
        (cell(105, 100, level=5), None),  # the data alone moved: one order that is now older than 28 days
        (cell(100, 1000), None),  # back to the level of the data
        (cell(100, 0), None),
        (cell(100, 20, level=500, level_before=500), None),  # restated since: nearer to it than before
        (cell(100, 100, width=0.0), COLLAPSE),
        (cell(100, 100, width=0.3), COLLAPSE),
        (cell(100, 100, width=0.4), None),
        (cell(100, 100, width=0.0, was=0.1), None),  # there was nothing to collapse
        (cell(1000, 100, level=0), None),  # nothing to hold it against
    ],
)
def test_a_rule_is_broken_by_what_the_data_did_not_do(sums: pl.DataFrame, rule: str | None) -> None:
    found = judged([sums], factor=3.0)
    assert found["rule"].drop_nulls().to_list() == ([rule] if rule else [])


def test_sums_of_buckets_are_added_up_and_few_series_are_not_judged() -> None:
    half = cell(500, 50, 50, 50).with_columns(series=pl.lit(SERIES / 2))
    assert judged([half], 3.0).is_empty()
    (found,) = judged([half, half], 3.0).iter_rows(named=True)
    assert found["found"] == 10.0
    expected = f"spend over 7 days, {SERIES} series: 10.0 times the total of the day before, where their last 28 days"
    assert found["words"] == f"{expected} are 1.0 times"
    narrow = judged([cell(100, 100, width=0.0)], 3.0)["words"].item()
    assert narrow.endswith("p05 to p95 is 0.0 of the mean, 1.0 the day before")
    assert judged([], 3.0).is_empty()
