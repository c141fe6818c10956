"""What stops a day of changes and reasons: each rule is broken once, by hand."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from pipelines.quality.explanations import change_rules, reason_rules
from pipelines.quality.rules import Rule, count_rows

DS, KEY = date(2024, 3, 10), ("ds", "advertiser_id", "scenario_id", "task", "horizon_days")
OF = {"ds": DS, "scenario_id": "feed", "task": "spend", "horizon_days": 7}
CHANGE = OF | {"compared_with": date(2024, 3, 9), "before": 10.0, "after": 14.0, "by_restated": 1.0}
CHANGE |= {"by_new_days": 3.5, "by_model": -0.5, "by_calibration": 0.0}
REASON = OF | {"advertiser_id": "a", "kind": "mover", "cause": "silence", "words": "Nothing"}


def broken(rows: list[dict[str, object]], rules: list[Rule], *key: str) -> set[str]:
    report = count_rows(0, pl.DataFrame(rows).sort(*KEY, *key), rules, (*KEY, *key))
    return set(report.filter(pl.col("counter") != "rows")["counter"])


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ({}, set()),
        ({"by_new_days": 3.5 + 1e-4}, {"not_the_change"}),
        ({"by_model": float("nan")}, {"not_finite", "not_the_change"}),
        ({"compared_with": DS}, {"not_earlier"}),
        ({"rank": 3}, {"rank"}),
        ({"advertiser_id": "b", "rank": 2}, {"duplicate_key", "rank"}),
    ],
)
def test_a_change_that_cannot_be_is_found(fault: dict[str, object], found: set[str]) -> None:
    rows = [CHANGE | {"advertiser_id": "a", "rank": 1} | fault, CHANGE | {"advertiser_id": "b", "rank": 2}]
    assert broken(rows, change_rules()) == found


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ({}, set()),
        ({"effect": float("inf")}, {"not_finite", "not_strongest_first"}),
        ({"effect": -6.0}, {"not_strongest_first"}),
        ({"words": ""}, {"no_words"}),
        ({"kind": "other"}, {"unknown_kind", "rank"}),
        ({"rank": 3}, {"rank"}),
    ],
)
def test_a_reason_that_cannot_be_is_found(fault: dict[str, object], found: set[str]) -> None:
    rows = [REASON | {"rank": 1, "effect": -5.0}, REASON | {"rank": 2, "effect": 4.0} | fault]
    assert broken(rows, reason_rules(), "kind", "rank") == found
