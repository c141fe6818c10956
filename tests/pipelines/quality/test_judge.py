"""Literal counters in, literal results out; the rules are judged by the real Great Expectations."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from jinja2 import Environment

from pipelines.config import CHECKS
from pipelines.errors import DataError
from pipelines.quality.judge import (
    CheckResult,
    failures,
    format_failure,
    raise_on_critical,
    run_checks,
)
from pipelines.quality.pages import publish
from pipelines.quality.rules import Check
from pipelines.reports.advice import ADVICE

MON, TUE = date(2020, 4, 6), date(2020, 4, 7)
NEGATIVE = Check("negative", "spend", "negative.spend", "at least 0", max_value=0)
DUPLICATE = Check("duplicate_key", None, "duplicate_key", "one row per (advertiser_id, scenario_id)", max_value=0)
NOT_ASCII = Check("not_ascii", "scenario_id", "not_ascii", "only ASCII characters", max_value=0, severity="warning")


@dataclass(frozen=True)
class Stage:
    run_id: str = "stage_sources-2020-04-07-0a1b2c3d"
    stage: str = "stage_sources"


RUN = Stage()


def counters(*rows: tuple[Any, ...], columns: str = "negative.spend") -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["ds", "scenario_id", *columns.split()])


def judged(frame: pd.DataFrame, *checks: Check) -> list[tuple[date | None, str, str | None, float, bool]]:
    results = run_checks("performance_daily", frame, checks, RUN)
    return [(r.ds, r.check, r.scenario, r.found, r.passed) for r in results]


def failure(**changes: Any) -> CheckResult:
    row: dict[str, Any] = {
        "run_id": RUN.run_id,
        "stage": RUN.stage,
        "table": "performance_daily",
        "ds": TUE,
        "check": "negative",
        "column": "spend",
        "scenario": "abc",
        "severity": "critical",
        "expected": "at least 0",
        "found": 312.0,
        "example": "(camp 1, abc) spend=-3.2",
        "passed": False,
    }
    return CheckResult(**(row | changes))


def test_a_check_that_holds_is_one_result_a_day() -> None:
    frame = counters((TUE, "a", 0, 0), (TUE, "b", 0, 0), (MON, "a", 0, 0), columns="negative.spend duplicate_key")
    assert judged(frame, NEGATIVE, DUPLICATE) == [
        (MON, "negative", None, 0.0, True),
        (TUE, "negative", None, 0.0, True),
        (MON, "duplicate_key", None, 0.0, True),
        (TUE, "duplicate_key", None, 0.0, True),
    ]


def test_a_check_that_fails_is_one_result_per_failing_scenario() -> None:
    columns = "negative.spend negative.spend!example"
    frame = counters((MON, "a", 0, None), (TUE, "a", 2, "(x, a) spend=-1"), (TUE, "b", 0, None), columns=columns)
    passed, failed = run_checks("performance_daily", frame, [NEGATIVE], RUN)
    assert (passed.ds, passed.passed, passed.example) == (MON, True, None)
    assert failed == failure(scenario="a", found=2.0, example="(x, a) spend=-1")


def test_two_failing_scenarios_of_one_day_are_two_results() -> None:
    assert judged(counters((TUE, "a", 1), (TUE, "b", 3), (TUE, "c", 0)), NEGATIVE) == [
        (TUE, "negative", "a", 1.0, False),
        (TUE, "negative", "b", 3.0, False),
    ]


def test_rows_without_a_day_or_a_scenario_are_judged_too() -> None:
    frame = counters((None, "a", 1), (TUE, None, 4), (None, None, 0))
    assert judged(frame, NEGATIVE) == [(TUE, "negative", None, 4.0, False), (None, "negative", "a", 1.0, False)]


def test_a_counter_that_was_not_counted_is_not_judged() -> None:
    assert judged(counters((MON, None, None), (TUE, None, 0)), NEGATIVE) == [(TUE, "negative", None, 0.0, True)]


def test_no_counters_give_no_results() -> None:
    assert judged(counters(), NEGATIVE) == []


@pytest.mark.parametrize("day", [date(1, 1, 1), date(9999, 12, 31)])
def test_a_day_that_timestamps_cannot_hold_is_named(day: date) -> None:
    assert judged(counters((day, "a", 1)), NEGATIVE) == [(day, "negative", "a", 1.0, False)]


def test_days_may_arrive_as_timestamps() -> None:
    frame = counters((TUE, "a", 1)).assign(ds=lambda f: pd.to_datetime(f["ds"]).astype("datetime64[ms]"))
    assert judged(frame, NEGATIVE) == [(TUE, "negative", "a", 1.0, False)]


def test_bounds_are_inclusive_on_both_sides() -> None:
    frame = counters((MON, "a", 0.5), (MON, "b", 2), (TUE, "a", 0.4), (TUE, "b", 2.1), columns="ratio")
    check = Check("volume", None, "ratio", "0.5 to 2 times the usual", min_value=0.5, max_value=2)
    assert judged(frame, check) == [
        (MON, "volume", None, 2.0, True),
        (TUE, "volume", "a", 0.4, False),
        (TUE, "volume", "b", 2.1, False),
    ]


def test_at_least_keeps_the_smallest_value_of_the_day() -> None:
    frame = counters((MON, "a", 9), (MON, "b", 5), (TUE, "a", float("inf")), (TUE, "b", 4), columns="rows")
    assert judged(frame, Check("rows", None, "rows", "at least 5 rows", min_value=5)) == [
        (MON, "rows", None, 5.0, True),
        (TUE, "rows", "b", 4.0, False),
    ]


def test_warnings_go_on_and_come_after_what_is_critical() -> None:
    frame = counters((TUE, "é", 1, 0), columns="not_ascii negative.spend")
    raise_on_critical(run_checks("performance_daily", frame, [NOT_ASCII, NEGATIVE], RUN))
    frame["negative.spend"] = 2
    results = run_checks("performance_daily", frame, [NOT_ASCII, NEGATIVE], RUN)
    assert [result.severity for result in failures(results)] == ["critical", "warning"]
    with pytest.raises(DataError) as error:
        raise_on_critical(results)
    assert error.value.lines == [
        "performance_daily ds=2020-04-07 scenario=é: negative spend: found 2; expected at least 0"
    ]


def test_a_failure_is_told_in_one_line() -> None:
    assert format_failure(failure()) == (
        "performance_daily ds=2020-04-07 scenario=abc: negative spend: found 312; expected at least 0. "
        "First: (camp 1, abc) spend=-3.2"
    )


def test_a_failure_without_day_scenario_column_or_example_says_so() -> None:
    bare = failure(ds=None, scenario=None, column=None, check="volume", found=0.83333, example=None)
    assert format_failure(bare) == "performance_daily ds=null: volume: found 0.8333; expected at least 0"


def test_a_line_break_in_an_id_does_not_break_the_line() -> None:
    assert "scenario=a\\nb\\x1b:" in format_failure(failure(scenario="a\nb\x1b"))


def test_many_failures_are_capped() -> None:
    with pytest.raises(DataError) as error:
        raise_on_critical([failure(scenario=str(number)) for number in range(54)])
    assert len(error.value.lines) == 21
    assert error.value.lines[-1] == "... and 34 more in ops.validation"


def test_a_check_without_its_counter_is_refused() -> None:
    message = r"performance_daily: the counters have no column duplicate_key; found: ds, scenario_id, negative\.spend"
    with pytest.raises(ValueError, match=message):
        judged(counters((TUE, "a", 0)), DUPLICATE)


def test_a_check_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="check given twice: negative spend"):
        judged(counters((TUE, "a", 0)), NEGATIVE, NEGATIVE)


def test_two_rows_for_one_day_and_scenario_are_refused() -> None:
    with pytest.raises(ValueError, match="two rows of counters for ds=2020-04-07 scenario=a"):
        judged(counters((TUE, "a", 0), (TUE, "a", 1)), NEGATIVE)


def test_a_check_without_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="check negative spend: expected max_value or min_value"):
        Check("negative", "spend", "negative.spend", "at least 0")


def paged(folder: Path, *results: CheckResult, run_id: str = RUN.run_id) -> str:
    page = publish(folder, Stage(run_id), results)
    assert page
    return page.read_text(encoding="utf-8")


def test_pages_of_runs_are_listed_by_day(tmp_path: Path) -> None:
    frame = counters((TUE, "a", 1))
    for run_id in (RUN.run_id, "score-2020-04-08-00000001"):
        shown = paged(tmp_path, *run_checks("performance_daily", frame, [NEGATIVE], RUN), run_id=run_id)
        assert "1 critical failure in performance_daily: nothing was published. 0 warnings." in shown
        assert {"negative spend", "at least 0", "2020-04-07", ADVICE["negative"]} <= set(
            re.split("<[^>]*>", html.unescape(shown))
        )
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    places = [index.index(words) for words in ("day-2020-04-08", "score-2020-04-08", 'id="day-2020-04-07', RUN.run_id)]
    assert places == sorted(places)
    assert index.count("1 critical failure in performance_daily") == 2
    assert {path.name for path in tmp_path.glob("*.html")} == set(re.findall('href="([^"#]+)"', index)) | {"index.html"}


def test_a_page_tells_what_failed_first_then_dirt_then_what_held(tmp_path: Path) -> None:
    dirt = failure(check="dirt:drop:bots", column=None, severity="info", expected="", found=12.0, passed=True)
    held = failure(check="null", severity="critical", passed=True, found=0.0)
    warned = failure(check="volume", column=None, severity="warning", found=0.4, scenario=None, example=None)
    shown = paged(tmp_path, held, dirt, warned, failure(), failure(ds=None))
    order = [shown.index(words) for words in ("312", "no day", "volume", "drop:bots", 'id="held"', ">null<")]
    assert order == sorted(order)
    assert "(camp 1, abc) spend=-3.2" in shown


def test_pages_are_compiled_once_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paged(tmp_path, failure())
    compiled: list[object] = []
    monkeypatch.setattr(Environment, "_parse", lambda *arguments: compiled.append(arguments))
    paged(tmp_path, failure(), run_id="score-2020-04-08-00000001")
    assert compiled == []
    assert len([*tmp_path.glob("*.html")]) == 3


def test_pages_stay_below_a_folder_with_a_dollar(tmp_path: Path) -> None:
    for name in ("a$HOME", "${nobody_set_this}"):
        paged(tmp_path / name, failure())
    assert {path.name for path in tmp_path.iterdir()} == {"a$HOME", "${nobody_set_this}"}


def test_pages_show_ids_and_rules_as_text_and_ask_nobody(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script> $5 {{ 7*7 }} \u202eevil"
    above = failure(scenario=hostile, example=f"({hostile})", check="not_above", expected="taps <= views")
    shown = paged(tmp_path, above)
    assert shown.count("&lt;script&gt;alert(1)&lt;/script&gt; $5 {{ 7*7 }} \\u202eevil") == 2
    assert "taps &lt;= views" in shown
    assert not re.search("<script|\u202e|https?://|@import|url\\(", shown)
    assert "default-src &#39;none&#39;" in shown or "default-src 'none'" in shown


def test_a_page_stays_small_and_the_oldest_pages_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = paged(tmp_path, *(failure(scenario="x" * 5000 + str(number)) for number in range(5000)))
    assert "4,800 more: m2m show ops.validation --date 2020-04-07" in shown
    assert len(shown) < 300_000
    os.utime(tmp_path / f"{RUN.run_id}.html", (0, 0))
    monkeypatch.setattr("pipelines.quality.pages._MOST_PAGES", 2)
    for number in range(3):
        paged(tmp_path, failure(), run_id=f"score-2020-04-08-0000000{number}")
        os.utime(tmp_path / f"score-2020-04-08-0000000{number}.html", (number, number))
    assert sorted(path.stem[-1] for path in tmp_path.glob("score-*.html")) == ["1", "2"]


def test_a_page_that_cannot_be_written_is_a_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert publish(tmp_path / "file", RUN, [failure()]) is None
    assert f"warning: the page of checks in {tmp_path / 'file'} was not written" in capfd.readouterr().err


def test_a_data_error_leads_to_the_page() -> None:
    with pytest.raises(DataError, match=r"what to do: /home/checks/run\.html$"):
        raise_on_critical([failure()], Path("/home/checks/run.html"))


def test_every_check_that_has_a_severity_has_an_advice() -> None:
    assert set(CHECKS) <= set(ADVICE)


@pytest.mark.slow
def test_two_processes_write_pages_at_once(tmp_path: Path) -> None:
    def write(stage: str) -> subprocess.CompletedProcess[str]:
        program = f"""
import sys, datetime, types, pathlib
from pipelines.quality.judge import CheckResult
from pipelines.quality.pages import publish
day = datetime.date(2020, 4, 7)
for number in range(20):
    run = types.SimpleNamespace(run_id=f"{stage}-2020-04-07-{{number}}", stage={stage!r})
    failed = CheckResult(run.run_id, run.stage, "t", day, "n", None, "a", "critical", "", 1.0, None, False)
    publish(pathlib.Path(sys.argv[1]), run, [failed])
"""
        command = [sys.executable, "-c", program, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True)

    with ThreadPoolExecutor() as pool:
        for done in pool.map(write, ["one", "two"]):
            assert (done.stdout, done.stderr) == ("", "")
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    written = [path.name for path in tmp_path.glob("*-*.html")]
    assert len(written) == 40
    assert all(f'href="{name}"' in index for name in written)


def test_importing_the_module_does_not_import_great_expectations() -> None:
    program = "import sys, pipelines.quality.judge; sys.exit('great_expectations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
