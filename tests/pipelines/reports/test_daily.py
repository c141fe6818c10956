"""Small tables in, a page out: what it says, what it leaves out, and that nothing of it runs or asks a network."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from pipelines.reports import svg
from pipelines.reports.checks import Kept
from pipelines.reports.daily import page, verdict
from pipelines.reports.day import Commit, Cost, Day, Measure
from pipelines.reports.page import Page, Section, Table, number, render
from pipelines.stages.report import leaving
from pipelines.warehouse.files import write_file
from pipelines.warehouse.store import Folder

DS = date(2024, 3, 30)
HOSTILE = '<script>alert(1)</script>" onload="x" \u202e{{ 7*7 }}'
STAGES = ("stage_sources", "build_sequences", "score", "monitor", "explain", "report")
PROMOTED = datetime(2024, 3, 20, tzinfo=UTC).replace(tzinfo=None)
FAN = {"p05": 79_100.0, "p25": 86_900.0, "p75": 95_100.0, "p95": 106_000.0}


def commit(stage: str, table: str, rows: int = 10, **said: str) -> Commit:
    run_id = f"{stage}-{DS}-0a1b2c3d"
    at = datetime(2024, 3, 31, 6, 30, tzinfo=UTC)
    return Commit(stage, table, DS, run_id, at, 42, rows, 1000, {"code-version": "0.2", **said})


def kept(severity: str, passed: bool, **changes: Any) -> Kept:
    row = {
        "ds": DS,
        "run_id": f"score-{DS}-0a1b2c3d",
        "stage": "score",
        "table": "marts.forecast_daily",
        "check": "volume",
        "column": None,
        "scenario": HOSTILE,
        "severity": severity,
        "expected": "more than 60 % of the usual rows",
        "found": 0.4,
        "example": HOSTILE,
        "passed": passed,
    }
    return Kept(**(row | changes))


def movers(rows: int) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "ds": DS,
                "advertiser_id": HOSTILE,
                "scenario_id": HOSTILE,
                "task": "spend",
                "horizon_days": 7,
                "compared_with": DS - timedelta(days=1),
                "before": 100.0,
                "after": 40.0,
                "by_restated": -50.0,
                "by_new_days": -10.0,
                "by_model": 0.0,
                "by_calibration": 0.0,
                "rank": rank,
            }
            for rank in range(1, rows + 1)
        ]
    )


def whole_day() -> Day:
    """Every table has something of the day, and all that is text in it is hostile."""
    totals = pl.DataFrame(
        [
            {"level": level, "value": value, "task": "spend", "horizon_days": 7, "series": 5, "mean": 91_600.0, **FAN}
            for level, value in [("platform", None), *(("scenario", f"{HOSTILE}{n}") for n in range(40))]
        ]
    )
    days = [DS - timedelta(days=n) for n in range(20)]
    quality = pl.DataFrame(
        [
            {"ds": day, "method": method, "scenario_id": "*", "task": "spend", "horizon_days": 7, "n": 5, "nmae": 0.25,
             "bias": 0.01, "coverage_50": 0.5, "coverage_90": 0.7}
            for day in days[7:] for method in ("*", HOSTILE)
        ]
    )  # fmt: skip
    return Day(
        name="simulated",
        ds=DS,
        config="pipeline.toml",
        horizons=(7,),
        measures=(Measure("clicks", "clicks"), Measure("spend", "usd", money=True)),
        lag_days=7,
        commits=[
            commit("stage_sources", "staged.performance_daily"),
            commit("score", "marts.forecast_daily", 16_755, **{"input.model.champion": "3"}),
        ],
        sources=[("staged.performance_daily", DS, datetime(2024, 3, 31, 6, tzinfo=UTC))],
        stages=STAGES,
        judged=[kept("critical", True), kept("warning", False), kept("info", True, check=f"dirt:drop:{HOSTILE}")],
        checks_page={f"score-{DS}-0a1b2c3d": "../checks/score.html"},
        totals=totals,
        past=pl.DataFrame({"ds": days, "scenario_id": ["a"] * 20, "spend": [12_900.0] * 20}),
        movers=movers(500),
        at_risk=pl.DataFrame(
            {"advertiser_id": [HOSTILE], "scenario_id": [HOSTILE], "probability": [0.9], "value_at_risk": [900.0]}
        ),
        at_risk_sum=(5_585, 1317.4, 1_871.0),
        reasons=pl.DataFrame(
            {"kind": ["at_risk"], "advertiser_id": [HOSTILE], "scenario_id": [HOSTILE], "rank": [1], "task": ["active"],
             "words": [f"no spend for 5 days {HOSTILE}"]}
        ),
        quality=quality,
        backtest=pl.DataFrame(
            {"forecaster": ["challenger", "last_h_days"], "model_version": ["3", None], "task": ["spend"] * 2,
             "horizon_days": [7] * 2, "nmae": [0.22, 0.29]},
            schema_overrides={"horizon_days": pl.Int32},
        ),
        promotions=pl.DataFrame(
            [
                {"ds": DS - timedelta(days=12 - n), "decided_at": PROMOTED + timedelta(days=n),
                 "challenger": str(3 + n),
                 "promoted": n == 0, "dry_run": False, "challenger_nmae": 0.22, "champion_nmae": 0.24,
                 "baseline_nmae": 0.29, "reason": HOSTILE}
                for n in range(4)
            ]
        ),
        turnover=pl.DataFrame(
            {"ds": days, "check": ["changed_ids"] * 20, "column": [HOSTILE] * 20, "expected": [HOSTILE] * 20,
             "found": [n / 100 for n in range(20)]}
        ),
        costs=[Cost("score", f"score-{DS}-0a1b2c3d", 95.0, 130.0, 1800.0, 735_167, 30.0)],
        foot=HOSTILE,
        address="http://localhost:5000/#/experiments/1",
    )  # fmt: skip


def shown(day: Day) -> str:
    return render(page(day))


def words(day: Day) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub("<style.*?</style>|<[^>]*>", " ", shown(day), flags=re.DOTALL)))


def test_the_verdict_is_the_day_in_a_sentence() -> None:
    assert verdict(whole_day()) == (
        "Complete. 16,755 forecasts; spend of the next 7 days 91,600 usd (90 %: 79,100 to 106k), +1.4% on the last 7; "
        "model version 3, 12 days old; 1 warning.",
        "warn",
    )


def test_a_day_without_a_stage_is_incomplete_and_the_page_has_the_command() -> None:
    late = DS - timedelta(days=7)
    day = replace(whole_day(), holes=[("marts.forecast_quality", late, "monitor")])
    assert verdict(day)[0].startswith(f"Incomplete: marts.forecast_quality has no {late}. 16,755 forecasts")
    assert verdict(day)[1] == "bad"
    assert "m2m monitor --config pipeline.toml --date 2024-03-30" in words(day)


def test_a_failed_run_is_told_until_the_stage_publishes() -> None:
    failed = kept("critical", False, stage="build_sequences", run_id=f"build_sequences-{DS}-ffffffff")
    day = replace(whole_day(), judged=[failed])
    assert "1 critical failure" in verdict(day)[0]
    published = replace(day, commits=[*day.commits, commit("build_sequences", "features.sequence_week")])
    assert "critical" not in verdict(published)[0]
    assert f"failed build_sequences-{DS}-ffffffff" in words(published)


def test_what_there_is_is_told() -> None:
    told = words(whole_day())
    for part in (
        "staged.performance_daily 2024-03-30 2024-03-31 06:00 6.0 hours",
        "score warnings 2 0 1 every check",
        "restated history (-50)",
        "Of 5,585 series 1,317 are expected to have no active day in the next 7 days; 1,871 usd are at risk with them.",
        "90.0% 900 1,000 no spend for 5 days",
        "spend 7 5 0.25 0.22 0.29 last_h_days +1.0% 50.0% 70.0%",
        "Version 3 served this day: champion since 2024-03-20 00:00 UTC, trained as of 2024-03-18, 12 days old.",
        "The gate has refused 3 challengers in a row.",
        "95 s 130 s 1,800 MiB 718 KiB 3.2 x",
        "20.9%",  # changed_ids is a ratio
    ):
        assert part in told


def test_what_drifted_is_told_and_what_is_critical_comes_first() -> None:
    rows = [("feed", "drift", "zeros of spend: 40.0%"), ("*", "critical", "rows: none today"), ("feed", "usual", "x")]
    drifted = pl.DataFrame(rows, ["scenario_id", "verdict", "words"], orient="row").with_columns(signal=pl.lit("s"))
    shown = words(replace(whole_day(), drifted=drifted))
    assert "2 of 3 signals have drifted" in shown
    assert shown.index("rows: none today") < shown.index("zeros of spend: 40.0%")
    assert "None of 1 signals has drifted" in words(replace(whole_day(), drifted=drifted.tail(1)))


def test_ids_and_messages_are_text_and_the_page_asks_nobody() -> None:
    made = shown(whole_day())
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&#34; onload=&#34;x&#34; \\u202e{{ 7*7 }}" in made
    assert not re.search(r"<script|\u202e|\sonload=\"|@import|url\(|<img|<iframe", made)
    assert re.findall("(?:src|href)=[\"'](?!#|\\.\\./checks/)([^\"']*)", made) == [
        "http://localhost:5000/#/experiments/1"
    ]
    assert "default-src 'none'" in made


def test_a_page_does_not_grow_with_advertisers() -> None:
    day = whole_day()
    many = replace(day, movers=movers(20_000), judged=[kept("warning", False) for _ in range(5_000)])
    assert len(shown(many)) < 200_000
    assert "19,980 more: m2m show marts.forecast_change --date 2024-03-30" in words(many)
    assert "4,980 more: m2m show ops.validation" in words(many)
    assert "28 smaller ones: m2m show marts.forecast_total" in words(many)


def test_a_day_with_nothing_says_what_makes_it() -> None:
    empty = Day("simulated", DS, "c.toml", (7, 28), [Measure("spend", "usd")], 28, stages=STAGES,
                first_forecast=date(2024, 3, 10))  # fmt: skip
    told = words(empty)
    for part in (
        "No totals of this day. m2m score --config c.toml --date 2024-03-30",
        "No explain run for 2024-03-30. m2m explain --config c.toml --date 2024-03-30",
        "No check of this day is in ops.validation",
        "No forecast has matured yet. The first forecasts, of 2024-03-10, mature on 2024-04-07.",
        "The gate has not decided anything yet.",
        "No run of this day is kept.",
    ):
        assert part in told
    assert verdict(empty) == ("Complete. 0 warnings.", "warn")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (312, "312"), (99_999, "99,999"), (1_234_567, "1.23M"), (999_999, "1M"), (0.22454, "0.225"),
     (99_999.9, "100k"),     (1456.2, "1,456"), (-12_300.5, "-12.3k"), (float("nan"), "–"), (5e15, "5,000T")],
)  # fmt: skip
def test_figures_are_short(value: float, expected: str) -> None:
    assert number(value) == expected


def test_pictures_of_nothing_and_of_what_never_changes() -> None:
    levels = {"p05": 0.0, "p25": 0.0, "mean": 0.0, "p75": 0.0, "p95": 0.0}
    for drawn in (svg.fan([], DS, 7, levels, "x"), svg.line([(DS, 0.0)], "x"), svg.span(0, 0, 0, 0)):
        assert "nan" not in drawn
    gap = svg.line([(DS, 1.0), (DS + timedelta(days=30), 1.0), (DS + timedelta(days=31), 1.0)], "x")
    assert gap.count("<polyline") == 2  # a month without a figure is no line


def test_who_may_leave_is_read_bucket_by_bucket_and_the_first_are_kept(tmp_path: Path) -> None:
    schema = pa.schema(
        [("advertiser_id", pa.string()), ("scenario_id", pa.string()), ("probability", pa.float64()),
         ("value_at_risk", pa.float64()), pa.field("horizon_days", pa.int32())]
    )  # fmt: skip
    files = []
    for bucket in range(3):
        ids = [f"{bucket}-{n:03}" for n in range(100)]
        rows = pl.DataFrame({"advertiser_id": ids, "scenario_id": "a", "probability": 0.5,
                             "value_at_risk": [float(n + bucket) for n in range(100)], "horizon_days": 7},
                            schema_overrides={"horizon_days": pl.Int32})  # fmt: skip
        other = rows.with_columns(pl.lit(28, pl.Int32).alias("horizon_days"))
        files.append(write_file(pl.concat([rows, other]), schema, Folder(str(tmp_path)), DS, bucket))
    first, (series, leave, value) = leaving(files, schema, 7)
    assert first["advertiser_id"].to_list()[:3] == ["2-099", "1-099", "2-098"]
    assert (first.height, series, leave, value) == (20, 300, 150.0, 15_150.0)
    assert leaving(files[:1], schema, 9)[1] == (0, 0.0, None)


def test_a_page_of_nothing_is_a_page() -> None:
    made = render(Page("x", "y", "", [Section("a", "A", [Table(("h",), [])])]))
    assert made.startswith("<!doctype html>")
    assert "<table" not in made
