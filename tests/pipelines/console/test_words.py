"""How figures, methods and texts from outside are said."""

from __future__ import annotations

import pytest

from pipelines.console import words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1240.4, "1,240"),
        (0.0, "0.0"),
        (0.314, "0.31"),
        (31.41, "31.4"),
        (2_345_678, "2.35 m"),
        (-4.2e9, "-4.20 bn"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_a_figure_has_the_digits_that_count(value: float | None, text: str) -> None:
    assert words.figure(value) == text


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("m2m", "the M2M network, version 3"),
        ("blend:last_h_days@0.7", "70 % the M2M network, version 3, the rest the last days once more"),
        ("blend:cold_start@1", "100 % the M2M network, version 3, the rest the rule for newcomers"),
        ("blend:tsb", "the M2M network, version 3 with TSB smoothing, for series with many empty days"),
        ("baseline:mean_28", "the average of the last 28 days alone (model version 3 leaves it to that)"),
        ("baseline:a_new_one", "a_new_one alone (model version 3 leaves it to that)"),
        ("silent", "the rule for those without a recent row"),
        ("something else", "something else"),
    ],
)
def test_who_made_a_forecast_is_said_in_words(method: str, said: str) -> None:
    assert words.method(method, "3") == said


def test_why_a_baseline_made_it_is_said() -> None:
    lost = "cell: loses to mean_28 in the backtest of 2024-03-10, ratio 1.31 (95 %: 1.20 .. 1.42)"
    said = "the average of the last 28 days alone"
    assert words.method("baseline:mean_28", "3", lost) == f"{said} ({lost.removeprefix('cell: ')})"
    assert words.method("baseline:mean_28", None, "no champion: 3 cannot be loaded") == (
        f"{said} (no champion: 3 cannot be loaded)"
    )
    assert words.method("baseline:mean_28", "3", "champion, which gives the network no part here") == (
        f"{said} (model version 3 leaves it to that)"
    )


def test_an_expectation_is_a_sentence() -> None:
    row = {"horizon_days": 7, "mean": 1240.0, "p05": 800.0, "p95": 1900.0, "p_zero": 0.02, "point": 1180.0}
    assert words.expectation({**row, "method": "m2m", "model_version": "3"}) == (
        "next 7 days: 1,240 expected, 90 %: 800 .. 1,900; nothing at all with 2 %. Best single figure: 1,180. "
        "Made by the M2M network, version 3."
    )


@pytest.mark.parametrize("text", ["![x](http://evil/x.png)", "<script>", "# big", "$x$", ":red[x]", "`a`", "**b**"])
def test_nothing_from_outside_becomes_markup(text: str) -> None:
    quoted = words.quoted(text)
    assert quoted.replace("\\", "") == text
    for place, char in enumerate(text):
        if not char.isalnum() and char != " ":
            assert f"\\{char}" in quoted, place


def test_a_line_break_does_not_begin_a_block() -> None:
    assert "\n" not in words.quoted("a\n# b")
