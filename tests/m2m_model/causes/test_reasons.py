"""Planted causes: what serves is known, so what each cause does is known too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from m2m_model.causes.changes import anchored, by_rule, of_all, split
from m2m_model.causes.reasons import Amounts, Reason, amount, panel_of, reasons, series_of
from m2m_model.config import KnownFuture, Task
from m2m_model.data.panel import Panel, days_of
from m2m_model.data.spec import SequenceSpec
from m2m_model.forecasts.forecasts import forecast_baseline

LAST, DAYS, WEEKS = date(2024, 3, 31), 63, 8
SPEC = SequenceSpec(
    ("clicks", "spend"), ("logins",), ("industry",), ("surface",),
    (Task("spend", "spend", "sum"), Task("active_days", "active", "days")), (7,), 28,
    known_future=(KnownFuture("budget", "money"),),
)  # fmt: skip


def table(*stopped: int, logins: float = 1.0, budget: float = 70.0) -> pa.Table:
    """A series for each number: so many days ago its rows stopped. 3 clicks and 6 of spend on each day before."""
    first = days_of(LAST) - DAYS + 1
    days = [list(range(first, first + DAYS - gone)) for gone in stopped]
    return pa.table(
        {
            "advertiser_id": [f"a{n}" for n in range(len(stopped))],
            "scenario_id": ["search"] * len(stopped),
            "registered_on": pa.array([LAST - timedelta(days=DAYS)] * len(stopped), pa.date32()),
            "day": pa.array(days, pa.list_(pa.int32())),
            "clicks": [[3.0] * len(of) for of in days],
            "spend": [[6.0] * len(of) for of in days],
            "behavior_day": pa.array(days, pa.list_(pa.int32())),
            "logins": [[logins] * len(of) for of in days],
            "plan_day": pa.array([[days_of(LAST) - 7, days_of(LAST)]] * len(stopped), pa.list_(pa.int32())),
            "budget_next_7": [[35.0, budget]] * len(stopped),
            "industry": ["games"] * len(stopped),
            "surface": ["text"] * len(stopped),
        }
    )


def served(panel: Panel, day: date) -> np.ndarray:
    """A model that is known: last week once more, 10 for the games industry, a tenth of the budget, 2 where there are
    logins, 5 in search; active days as last week."""
    mean_NM = of_all(forecast_baseline("last_h_days", panel, day, all_series=True), panel)
    known = [panel.keys[name].to_numpy(zero_copy_only=False) for name in ("industry", "scenario_id")]
    seen_N = (panel.behavior_NTF[:, :, 0] != 0x7F800000 >> 19).any(1)
    plan_N = np.nan_to_num(np.where(panel.future_NTC[:, -1, 0] == 0x7F800000 >> 19, 0, 7.0))
    mean_NM[:, 0] += 10.0 * (known[0] == "games") + 5.0 * (known[1] == "search") + 2.0 * seen_N + plan_N
    return mean_NM


def explained(rows: pa.Table, asked: list[tuple[int, int]], **kwargs: object) -> list[list[Reason]]:
    panel = Panel.from_sequences(rows, SPEC, LAST, DAYS)
    return reasons(panel, Amounts.of(rows, panel), asked, served, **kwargs)  # type: ignore[arg-type]


def test_an_advertiser_that_stopped_is_told_so_with_figures() -> None:
    (reason, *_), (spend, *_) = explained(table(9), [(0, 1), (0, 0)])
    assert reason.cause == spend.cause == "silence"
    assert reason.effect == pytest.approx(-7)
    assert spend.effect == pytest.approx(-42)
    assert reason.words == (
        "Nothing in the last 9 days (clicks 3, spend 6 a day in the 4 weeks before): active days 7 lower"
    )


def test_every_kind_of_cause_is_found_and_the_strongest_comes_first() -> None:
    (found,) = explained(table(0), [(0, 0)])
    effects = {reason.cause: reason.effect for reason in found}
    assert effects == {
        "attribute:industry": pytest.approx(10), "plan:budget": pytest.approx(7), "scenario": pytest.approx(5),
        "behavior:logins": pytest.approx(2),
    }  # fmt: skip
    assert [reason.words for reason in found] == [
        "Industry is games: spend 10 higher",
        "Budget 70 planned for the next 7 days (35 for the 7 before): spend 7 higher",
        "It is in scenario search: spend 5 higher",
        "Logins 7 in the last 7 days (7 a week in the 4 weeks before): spend 2 higher",
    ]
    assert explained(table(0, budget=float("nan")), [(0, 1)]) == [[]]  # nothing but last week counts, which is as ever


def test_one_metric_that_stopped_is_told_from_the_other() -> None:
    rows = table(0)
    spend = [6.0] * (DAYS - 9) + [0.0] * 9
    rows = rows.set_column(rows.column_names.index("spend"), "spend", pa.array([spend]))
    (found,) = explained(rows, [(0, 0)])
    assert found[0].cause == "last_days:spend"
    assert found[0].words == "No spend in the last 9 days (6 a day in the 4 weeks before): spend 42 lower"


def test_of_a_rule_only_performance_speaks_and_effects_are_of_what_was_published() -> None:
    rows = table(3)
    panel = Panel.from_sequences(rows, SPEC, LAST, DAYS)
    asked, published = [(0, 0)], [48.0]  # twice the rule's own 24
    (found,) = reasons(panel, Amounts.of(rows, panel), asked, by_rule("last_h_days"), published, "last_h_days")
    assert {reason.cause for reason in found} == {"last_days:spend"}
    assert found[0].effect == pytest.approx(2 * (24 - 42))
    assert found[0].words.endswith("spend 36 lower, by the rule last_h_days")


def test_a_young_series_has_no_weeks_before() -> None:
    rows = table(0)
    rows = rows.set_column(2, "registered_on", pa.array([LAST - timedelta(days=5)], pa.date32()))
    for name in ("day", "clicks", "spend", "behavior_day", "logins"):
        at = rows.column_names.index(name)
        rows = rows.set_column(at, name, pa.array([rows[name].to_pylist()[0][-6:]], rows[name].type))
    (found,) = explained(rows, [(0, 0)])
    assert {reason.cause.partition(":")[0] for reason in found} <= {"attribute", "plan", "scenario", "behavior"}


def test_copies_are_the_series_themselves(panel: Panel, make_table: Callable[..., pa.Table]) -> None:
    """Nothing taken away: what a model reads of a copy is what it reads of the series, its advertiser's rest too."""
    amounts = Amounts.of(make_table(), panel)
    places = [5, 5, 17, 0]
    copies = panel_of(panel, [(n, series_of(panel, amounts, n)) for n in places])
    for name in ("performance_NTP", "behavior_NTF", "daily_NTM", "future_NTC"):
        np.testing.assert_array_equal(getattr(copies, name), getattr(panel, name)[places])
    np.testing.assert_array_equal(copies.begun_N, panel.begun_N[places])
    totals = [of.advertiser_total_YM[55:].reshape(-1, of.days, 3) for of in (copies, panel)]
    np.testing.assert_allclose(totals[0], totals[1][panel.advertiser_index_N[places]], rtol=1e-6)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0521, "0.052"), (3.14159, "3.1"), (3, "3"), (42, "42"), (42.5, "42.5"), (1234.5, "1,234")],
)
def test_figures_are_short(value: float, text: str) -> None:
    assert amount(value) == text


YESTERDAY = LAST - timedelta(days=1)


def means_of(value: float) -> Callable[[Panel, date], np.ndarray]:
    """A model that says value more for the games industry and for each day that it knows."""

    def means(panel: Panel, day: date) -> np.ndarray:
        games_N1 = (panel.keys["industry"].to_numpy(zero_copy_only=False) == "games")[:, None]
        return value + 10.0 * games_N1 + panel.index_of(day) + np.zeros((len(panel), len(SPEC.targets)))

    return means


def parts(*args: object, **kwargs: object) -> list[float]:
    """The four causes of the only series and target."""
    found = split(*args, **kwargs)  # type: ignore[arg-type]
    return [float(cause_NM[0, 0]) for cause_NM in vars(found).values()]


def test_a_change_is_split_by_what_was_planted() -> None:
    now = Panel.from_sequences(table(0), SPEC, LAST, DAYS)
    then = replace(now, keys=now.keys.set_column(2, "industry", pa.array(["travel"])))
    one, other, mixed = means_of(1.0), means_of(4.0), means_of(3.0)
    known, today = one(then, YESTERDAY), one(now, LAST)
    assert parts(known, today, then, now, YESTERDAY, one, one, same=True) == [
        0,
        11,
        0,
        0,
    ]  # a day, and another industry
    assert parts(known - 5, today, then, now, YESTERDAY, one, one, same=True) == [
        5,
        11,
        0,
        0,
    ]  # the past was restated by 5
    after = other(now, LAST)
    assert parts(known - 5, after, then, now, YESTERDAY, one, other, mixed) == [5, 11, 2, 1]
    assert parts(known, after, then, now, YESTERDAY, one, other) == [0, 11, 3, 0]  # a baseline took over
    assert parts(known, after, then, now, YESTERDAY, None, other) == [0, 11, 3, 0]  # what served then is gone
    assert parts(known, after, then, now, YESTERDAY, None, None) == [0, 0, 14, 0]
    assert parts(known, after, then, now, YESTERDAY, None, None, same=True) == [0, 14, 0, 0]
    assert parts(known * (1 + 1e-7), today, then, now, YESTERDAY, one, one, same=True)[0] == 0  # rounding is no cause
    assert parts(known, today + 2, then, now, YESTERDAY, one, other, one) == [0, 11, 0, 2]  # another calibration


def test_a_series_that_a_model_does_not_know_yet_is_all_news() -> None:
    now = Panel.from_sequences(table(0), SPEC, LAST, DAYS)
    nobody = lambda panel, day: np.full((1, 2), np.nan)  # noqa: E731
    before, after = np.full((1, 2), 2.0), np.full((1, 2), 5.0)
    assert parts(before, after, now, now, YESTERDAY, nobody, nobody, same=True) == [0, 3, 0, 0]


def test_what_was_added_to_a_rule_then_is_added_in_proportion() -> None:
    panel = Panel.from_sequences(table(0, 1, 12), SPEC, LAST, DAYS)
    own = by_rule("last_h_days")
    before = own(panel, YESTERDAY) * 1.5 + np.array([[0.0], [0.0], [0.25]])
    again = anchored(own, panel, YESTERDAY, before)
    np.testing.assert_allclose(again(panel, YESTERDAY), before)
    np.testing.assert_allclose(again(panel, LAST)[:, 0], [63, 54, 0.25])
