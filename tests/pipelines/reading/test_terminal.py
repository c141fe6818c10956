"""What a terminal of any width gets: nothing wider than it, and nothing left out without a word."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime

import polars as pl
import pytest

from pipelines.reading.terminal import figure, shown

TEXTS = ["a", "camp 1|High|240 x 400", "x" * 90, "广告" * 30, "e\u0301" * 10, "", None, "a\nb\x1b[2J"]
ROWS = pl.DataFrame(
    {
        "ds": [date(2024, 1, 1)] * 8,
        "advertiser_id": TEXTS,
        "scenario_id": list("aabbccdd"),
        "mean": [0.0, 1.5, 1e-9, 12345678.9, float("nan"), float("inf"), None, -0.5],
        "n": list(range(8)),
        "passed": [True, None] * 4,
        "decided_at": [datetime(2024, 1, 1, 5, tzinfo=UTC).replace(tzinfo=None)] * 8,
        "day": [[0, 1], [5]] * 4,
        "spend": [[0.1, 2.0, 3.0, 4.0], []] * 4,
        "run_id": ["score-2024-01-01-93cab6c5"] * 8,
        **{f"column_{number}": [float(number), 0.5] * 4 for number in range(20)},
    }
)


def places(text: str) -> int:
    import unicodedata

    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


@pytest.mark.parametrize("width", [40, 80, 100, 140, 200, 400])
@pytest.mark.parametrize("seed", range(6))
def test_no_line_is_wider_than_the_terminal_and_what_is_missing_is_named(width: int, seed: int) -> None:
    chance = random.Random(seed)
    frame = ROWS.select(chance.sample(ROWS.columns, chance.randint(1, len(ROWS.columns))))
    frame = frame.sample(chance.randint(0, 8), seed=seed)
    found = shown(frame, ["ds", "advertiser_id"], width)
    assert all(places(line) <= width and line.isprintable() for line in found.lines), found.lines
    text = "\n".join(found.lines)
    assert set(found.left_out) < {*frame.columns} or not found.left_out
    assert all(name in text for name in frame.columns if name not in found.left_out)
    assert not any(name in text.split() for name in found.left_out)
    assert text.count("…") >= found.cut


def test_where_there_is_room_all_is_there_whole() -> None:
    found = shown(ROWS, [], None)
    assert (found.left_out, found.cut, len(found.lines)) == ([], 0, 9)
    assert "x" * 90 in found.lines[3]
    assert r"a\nb\x1b[2J" in found.lines[8]
    assert "1970-01-01..1970-01-02" in found.lines[1]
    assert "4: 0.1000, 2, 3, …" in found.lines[1]


def test_the_key_stays_and_what_is_alike_stands_above() -> None:
    found = shown(ROWS.select("run_id", "ds", *ROWS.columns[1:5]), ["advertiser_id", "scenario_id"], 60)
    assert found.lines[0] == "all rows: run_id score-2024-01-01-93cab6c5, ds 2024-01-01"
    assert found.lines[1].split()[:2] == ["advertiser_id", "scenario_id"]


def test_a_single_row_is_a_column_a_line() -> None:
    lines = shown(ROWS.head(1), [], 80).lines
    assert lines[:2] == ["ds             2024-01-01", "advertiser_id  a"]
    assert len(lines) == len(ROWS.columns)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (7.0, "7"),
        (5061.52, "5,061.5"),
        (85.871, "85.87"),
        (0.16873, "0.1687"),
        (0.0123456, "0.01235"),
        (1e-9, "1e-09"),
        (-1234.56, "-1,234.6"),
        (1e15, "1e+15"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_figures(value: float, text: str) -> None:
    assert figure(value) == text
