"""Rules of drift on made-up series: quiet where nothing was planted, loud within three days where something was."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from m2m_model.arrays import Floats, Ints
from m2m_model.config import ACTIVE, Task
from m2m_model.data.grid import to_grid
from m2m_model.data.spec import SequenceSpec
from pipelines.config import ALL_SCENARIOS, Drift
from pipelines.kernels.drift import JUDGED, PAST, counts
from pipelines.life.incidents import drifted
from pipelines.quality.drift import (
    CRITICAL,
    DRIFT,
    EARLY,
    FEW,
    IGNORED,
    TOGETHER,
    USUAL,
    Signal,
    in_doubt,
    judge,
    new_categories,
    of_day,
)
from pipelines.stages.drift import matured, rows_of

SPEC = SequenceSpec(
    metrics=("clicks", "spend"),
    behaviors=(),
    advertiser_attributes=(),
    scenario_attributes=(),
    tasks=(Task("spend", "spend", "sum"), Task("active_days", ACTIVE, "days")),
    horizons_days=(7,),
    window_days=56,
)
DAYS, SERIES = PAST + JUDGED, 300
PLANTED = DAYS - TOGETHER
Values = Floats  # (N, T, P), NaN: no row


def world(seed: int = 0) -> tuple[Values, np.ndarray[Any, Any]]:
    """Two scenarios with weekends, zeros and gaps, and half a newcomer a day in each."""
    random = np.random.default_rng(seed)
    size_N1 = np.exp(random.normal(3, 1, (2 * SERIES, 1)))
    week_T = np.where(np.arange(DAYS) % 7 < 5, 1.0, 0.6)
    clicks_NT = random.poisson(size_N1 * week_T * np.exp(random.normal(0, 0.3, (2 * SERIES, DAYS))))
    value_NTP = np.stack([clicks_NT, clicks_NT * 0.4], 2).astype(float)
    value_NTP[random.random((2 * SERIES, DAYS)) < 0.15] = np.nan
    value_NTP[random.random((2 * SERIES, DAYS)) < 0.1] = 0
    for late, series in enumerate(range(0, 2 * SERIES, 2 * SERIES // DAYS)):
        value_NTP[series, :late] = np.nan
    return value_NTP, np.array(["feed", "search"], object)[np.arange(2 * SERIES) % 2]


def judged(value_NTP: Values, scenario_N: Any, days: int = DAYS, width: float = 1.0) -> dict[tuple[str, str], Any]:
    """What the rules say of the last of so many days, by scenario and signal."""
    point_NTP: Ints = to_grid(value_NTP[:, :days])
    scenarios, counted = counts(point_NTP, np.zeros((*point_NTP.shape[:2], 0), np.int16), scenario_N, SPEC)
    together = {key: np.concatenate([v, v.sum(0, keepdims=True)])[:, PAST:] for key, v in counted.items()}
    return {(who, j.signal): j for who, j in of_day([*scenarios, ALL_SCENARIOS], together, width)}


def bad(found: dict[tuple[str, str], Any]) -> set[tuple[str, str]]:
    return {key for key, j in found.items() if j.verdict in (DRIFT, CRITICAL)}


def times(factor: float, metric: int | slice) -> Callable[[Values, Any], None]:
    def plant(own_nTP: Values, random: Any) -> None:
        own_nTP[:, PLANTED:, metric] *= factor

    return plant


def zeros(own_nTP: Values, random: Any) -> None:
    late_nt = own_nTP[:, PLANTED:, 1]
    late_nt[(random.random(late_nt.shape) < 0.22) & (late_nt > 0)] = 0


def gone(share: float) -> Callable[[Values, Any], None]:
    def plant(own_nTP: Values, random: Any) -> None:
        own_nTP[random.random(len(own_nTP)) < share, PLANTED:] = np.nan

    return plant


def newcomers(own_nTP: Values, random: Any) -> None:
    born = random.choice(len(own_nTP), 24, replace=False)
    for series, day in zip(born, PLANTED + np.arange(24) % TOGETHER, strict=True):
        own_nTP[series, :day] = np.nan


@pytest.mark.parametrize(
    ("plant", "signal", "verdict"),
    [
        (times(1.5, slice(None)), "level of spend", DRIFT),
        (times(0.6, slice(None)), "level of clicks", DRIFT),
        (times(1.5, 1), "level of spend beside other metrics", DRIFT),
        (times(100, 1), "level of spend", CRITICAL),
        (times(0.01, 1), "level of spend", CRITICAL),
        (zeros, "zeros of spend", DRIFT),
        (gone(0.15), "absent advertisers", DRIFT),
        (gone(0.15), "gone advertisers", DRIFT),
        (gone(1.0), "rows", CRITICAL),
        (newcomers, "new advertisers", DRIFT),
    ],
)
def test_a_planted_drift_is_seen_within_three_days_in_its_scenario(
    plant: Callable[[Values, Any], None], signal: str, verdict: str
) -> None:
    value_NTP, scenario_N = world()
    own_N = scenario_N == "feed"
    own_nTP = value_NTP[own_N]
    plant(own_nTP, np.random.default_rng(1))
    value_NTP[own_N] = own_nTP
    assert bad(judged(value_NTP, scenario_N, PLANTED)) == set()
    found = judged(value_NTP, scenario_N)
    assert found["feed", signal].verdict == verdict, found["feed", signal]
    assert {who for who, _ in bad(found)} <= {"feed", ALL_SCENARIOS}
    clicks = "level of clicks beside other metrics"
    assert signal != "level of spend beside other metrics" or ("feed", clicks) not in bad(found)


def test_quiet_days_are_quiet() -> None:
    alarms = [bad(judged(*world(seed), DAYS - late)) for seed in range(4) for late in range(0, 12, 3)]
    assert sum(map(bool, alarms)) <= 1, alarms


def test_a_missing_day_is_told_once_and_a_closed_weekday_never() -> None:
    value_NTP, scenario_N = world()
    value_NTP[:, -1] = np.nan
    found = judged(value_NTP, scenario_N)
    assert {key: j.verdict for key, j in found.items()} == {(ALL_SCENARIOS, "rows"): CRITICAL}
    assert found[ALL_SCENARIOS, "rows"].words.startswith("rows: none today; usual are ")
    value_NTP[:, (DAYS - 1) % 7 :: 7] = np.nan
    assert bad(judged(value_NTP, scenario_N)) == set()


def test_few_rows_and_few_days_are_not_judged_and_say_so() -> None:
    value_NTP, scenario_N = world()
    few = judged(value_NTP[:20], scenario_N[:20])
    assert few["feed", "zeros of spend"].verdict == FEW
    assert few["feed", "level of spend"].verdict == USUAL  # judged, and wider
    wide = judged(value_NTP, scenario_N)["feed", "level of spend"]
    assert few["feed", "level of spend"].high > wide.high
    assert judged(value_NTP, scenario_N, PAST + 15)["feed", "level of spend"].verdict == EARLY


def test_wider_limits_and_ignored_signals_tell_less() -> None:
    value_NTP, scenario_N = world()
    value_NTP[:, PLANTED:] *= 1.5
    assert bad(judged(value_NTP, scenario_N))
    assert bad(judged(value_NTP, scenario_N, width=4)) == set()
    found = [(who, j) for (who, _), j in judged(value_NTP, scenario_N).items()]
    told = rows_of(found, Drift(ignore=("level of",)))
    assert set(told.filter(pl.col("signal").str.starts_with("level of"))["verdict"]) == {IGNORED}
    assert told.filter(pl.col("verdict").is_in([DRIFT, CRITICAL])).is_empty()


def test_a_single_odd_day_is_no_drift_but_a_grotesque_one_is() -> None:
    random = np.random.default_rng(2)
    value_T = random.normal(0, 0.05, JUDGED)
    rows_T = np.full(JUDGED, 500.0)
    for off, expected in ((0.3, USUAL), (0.8, DRIFT), (3.0, CRITICAL)):
        odd_T = value_T.copy()
        odd_T[-1] += off
        assert judge(Signal("level of spend", "level", odd_T, rows_T)).verdict == expected


def categories(new_rows: float) -> list[Any]:
    schema = ["attribute", "scenario_id", "category", "rows"]
    then = pl.DataFrame([("tier", "feed", "gold", 50.0)], schema, orient="row")
    now = pl.DataFrame([("tier", "feed", "gold", 95.0), ("tier", "feed", "GOLD", new_rows)], schema, orient="row")
    return [j for _, j in new_categories(then, now)]


def test_a_new_category_in_five_percent_of_the_rows_is_drift() -> None:
    (found,) = categories(5)
    assert (found.verdict, found.words) == (DRIFT, 'new categories of tier: 1, 5.0% of the rows, the first "GOLD"')
    assert categories(2)[0].verdict == USUAL


def test_intervals_narrowed_by_half_show_with_the_first_forecasts_that_mature() -> None:
    as_of, random = date(2024, 5, 1), np.random.default_rng(3)
    days = [as_of - timedelta(days=n) for n in range(40)]
    rows = {
        "ds": days, "method": "*", "scenario_id": "feed", "task": "spend", "horizon_days": 7, "n": 200, "nmae": 0.5,
        "coverage_90": [0.62, *random.normal(0.9, 0.015, 39)],
    }  # fmt: skip
    quality = pl.DataFrame(rows)
    known = quality.select("ds", "scenario_id", "task", "horizon_days", expected_nmae=pl.lit(0.4))
    coverage, ratio = (j for _, j in matured(quality, known, as_of, False, 1.0))
    assert (coverage.signal, coverage.verdict) == ("coverage of spend", DRIFT)
    assert ratio.words == "error over expected of spend: NMAE 0.500, expected were 0.400"
    assert ratio.found == pytest.approx(1.25)


def table(*verdicts: str) -> pl.DataFrame:
    """Days of one scenario's spend, and of another that is as usual."""
    rows = [
        {"ds": date(2024, 3, 1) + timedelta(days=n), "scenario_id": scenario, "signal": "level of spend",
         "verdict": verdict if scenario == "feed" else USUAL, "words": f"level of spend on day {n}"}
        for n, verdict in enumerate(verdicts) for scenario in ("feed", "search")
    ]  # fmt: skip
    return pl.DataFrame(rows)


def test_an_incident_a_scenario_since_the_first_day_in_a_row() -> None:
    (found,) = drifted(table(DRIFT, USUAL, DRIFT, CRITICAL), date(2024, 3, 4))
    assert (found.title, found.since) == ("drift in scenario feed: 1 signal", date(2024, 3, 3))
    assert found.lines == ["level of spend on day 3"]
    assert list(drifted(table(DRIFT, USUAL), date(2024, 3, 2))) == []


def test_what_is_critical_on_the_last_days_holds_a_promotion_and_drift_does_not() -> None:
    assert in_doubt(table(CRITICAL, USUAL, USUAL), date(2024, 3, 3)) == (
        "the last days of scenario feed are in doubt: level of spend on day 0 on 2024-03-01"
    )
    assert in_doubt(table(CRITICAL, USUAL, USUAL, USUAL), date(2024, 3, 4)) == ""
    assert in_doubt(table(DRIFT, DRIFT), date(2024, 3, 2)) == ""
