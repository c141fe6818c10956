"""What somebody should know although nothing failed: warnings, a lost champion, drift, refusals, and since when."""

from __future__ import annotations

import json
import re
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deployment import SQL, TOML, Deployment, day

from pipelines.config import Alerts
from pipelines.errors import ConfigError
from pipelines.life.incidents import champion, drift, fallen, refusals, warnings
from pipelines.toml_tables import Text

DOCS = Path(__file__).resolve().parents[2] / "docs"
ALERTS = Alerts()


def result(ds: date | None, passed: bool, run_id: str = "r", **other: Any) -> dict[str, Any]:
    row = {
        "ds": ds, "run_id": run_id, "stage": "stage_sources", "table": "staged.performance_daily", "check": "number_id",
        "column": "advertiser_id", "scenario": None, "severity": "warning", "expected": "no 1000037.0", "found": 2.0,
        "example": "7.0", "passed": passed,
    }  # fmt: skip
    return row | other


SCHEMA = {"ds": pl.Date, "column": pl.String, "scenario": pl.String}


def ledger(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema_overrides=SCHEMA)


def test_a_rule_is_one_incident_since_the_first_day_in_a_row() -> None:
    rows = [result(day(n), n not in (2, 4, 5), scenario=scenario) for n in range(6) for scenario in ("feed", "search")]
    rows += [result(day(5), False, severity="info"), result(day(5), False, severity="critical"), result(None, False)]
    (found,) = warnings(ledger(*rows), day(5), None)
    assert (found.since, found.page, found.lasting) == (day(4), "checks", True)
    assert len(found.lines) == 2
    assert "scenario=feed: number_id advertiser_id: found 2; expected no 1000037.0. First: 7.0" in found.lines[0]
    assert list(warnings(ledger(*rows), day(3), None)) == []


def test_of_many_scenarios_some_lines_and_how_many_more() -> None:
    rows = [result(day(0), False, scenario=f"s{n:02}") for n in range(9)]
    (found,) = warnings(ledger(*rows), day(0), "advertiser_sequences")
    assert len(found.lines) == 6
    assert found.lines[-1] == "... and 4 more like it in ops.validation"
    assert list(warnings(ledger(*rows), day(0), "advertiser_forecasts")) == []


def decision(ds: date, promoted: bool, **other: Any) -> dict[str, Any]:
    row = {"ds": ds, "decided_at": datetime(ds.year, ds.month, ds.day), "promoted": promoted, "dry_run": False}  # noqa: DTZ001
    return row | {"challenger": "4", "baseline": "last_28_days", "reason": "NMAE 0.9 is 1.1 of champion's"} | other


NONE = pl.DataFrame([decision(day(0), False)], schema_overrides=SCHEMA).head(0)


@pytest.mark.parametrize(
    ("versions", "cause", "since"),
    [
        (["None", "None"], None, None),
        (["3", "3"], None, None),
        (["3", "4"], None, None),
        (["9", "10"], None, None),
        (["3", "None", "None"], "champion lost", day(1)),
        (["3", "None", "3"], None, None),
        (["4", "None", "3"], "rolled back to 3", day(2)),
        (["10", "9"], "rolled back to 9", day(1)),
    ],
)
def test_which_champion_served_is_in_the_lineage(versions: list[str], cause: str | None, since: date | None) -> None:
    served = {day(n): version for n, version in enumerate(versions)}
    found = list(champion(served, day(len(versions) - 1), NONE))
    assert [(one.cause, one.since) for one in found] == ([(cause, since)] if cause else [])


def test_a_champion_of_the_ledger_that_serves_nobody_is_lost() -> None:
    decisions = pl.DataFrame([decision(day(0), True)])
    (found,) = champion({day(1): "None"}, day(1), decisions)
    assert "version 4 was promoted" in found.lines[0]
    assert list(champion({day(1): "None"}, day(2), decisions)) == []  # that day was not scored


def quality(errors: list[float], coverage: float = 0.9) -> pl.DataFrame:
    days = [day(n) for n in range(len(errors))]
    return pl.DataFrame(
        {
            "ds": days, "matured_on": [ds + timedelta(days=7) for ds in days], "task": "spend", "horizon_days": 7,
            "nmae": errors, "coverage_90": [coverage] * len(errors),
        }
    )  # fmt: skip


def test_drift_is_of_a_week_against_the_weeks_before() -> None:
    now = day(60)
    assert list(drift(quality([0.4] * 28 + [0.5] * 7), now, ALERTS)) == []
    assert list(drift(quality([0.4] * 34 + [2.0]), now, ALERTS)) == []  # one day
    assert list(drift(quality([0.4] * 10 + [0.9] * 7), now, ALERTS)) == []  # too few days to say what is usual
    assert list(drift(quality([0.4] * 28 + [0.9] * 7), day(34), ALERTS)) == []  # as of then they had not matured
    (found,) = drift(quality([0.4] * 28 + [0.9] * 7), now, ALERTS)
    assert found.since == day(28)
    assert "NMAE 0.900, which is 2.25 of the 0.400 of the 28 days before; expected at most 1.5" in found.lines[0]
    (narrow,) = drift(quality([0.4] * 7, coverage=0.6), now, ALERTS)
    assert narrow.lines == [
        "spend over 7 days: 60.0% of the actuals within their 90 % intervals; expected at least 75%"
    ]
    assert list(drift(quality([0.4] * 6, coverage=0.6), now, ALERTS)) == []


def test_refusals_count_from_the_last_promotion() -> None:
    rows = [decision(day(n), n == 1) for n in range(5)]
    (found,) = refusals(pl.DataFrame(rows), day(4), ALERTS)
    assert found.since == day(2)
    assert found.title == "the gate has refused 3 days running"
    assert list(refusals(pl.DataFrame(rows), day(3), ALERTS)) == []  # two
    rows += [decision(day(4), True, decided_at=datetime(2024, 1, 5, 9))]  # noqa: DTZ001 - the day was decided again
    assert list(refusals(pl.DataFrame(rows), day(4), ALERTS)) == []
    asked = [*rows[:5], decision(day(5), True, dry_run=True)]  # that one decides nothing
    assert [found.since for found in refusals(pl.DataFrame(asked), day(5), ALERTS)] == [day(2)]
    by_hand = [*asked, decision(day(6), True, baseline=None)]
    assert list(refusals(pl.DataFrame(by_hand), day(6), ALERTS)) == []


def test_cells_that_a_baseline_serves_are_one_incident_since_the_first_fell() -> None:
    row = {"scenario_id": "*", "task": "spend", "horizon_days": 7, "model_version": "3", "reason": "cell: loses to tsb"}
    rows = [{**row, "since": day(n), "falls_back": n != 1, "task": f"task {n}"} for n in range(8)]
    (found,) = fallen(pl.DataFrame(rows))
    assert (found.since, found.title) == (day(0), "a baseline serves 7 of the champion's 8 cells")
    assert found.lines[0] == "all other scenarios task 0 7d loses to tsb"
    assert found.lines[-1] == "... and 2 more in ops.serving_cell"
    assert list(fallen(pl.DataFrame(rows).filter(task="task 1"))) == []


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Deployment:
    monkeypatch.setenv("M2M_HOME", str(tmp_path / "home"))
    (tmp_path / "pipeline.toml").write_text(TOML)
    (tmp_path / "performance_daily.sql").write_text(SQL)
    return Deployment(tmp_path, lambda: "".join(capfd.readouterr()))


def test_the_day_is_as_its_last_run_left_it(small: Deployment) -> None:
    def judged(run_id: str, passed: bool) -> None:
        schema = small.warehouse.arrow_schema("ops.validation")
        rows = ledger(result(day(1), passed, run_id)).select(schema.names)
        small.warehouse.append("ops.validation", rows.to_arrow(), {"run-id": run_id})

    judged("stage_sources-z", False)
    status, said = small.run("incidents", "--date", day(1))
    assert status == 0
    assert "tiny 2024-01-02: 1 that somebody should know" in said
    assert f"by hand: python -m pipelines.show ops.validation --config {small.toml}" in said
    status, said = small.run("incidents", "--date", day(1), "--dag", "advertiser_sequences", "--format", "json")
    (found,) = map(json.loads, said.splitlines())
    assert found["since"] == "2024-01-02"
    judged("stage_sources-a", True)
    assert "nothing that somebody should know" in small.run("incidents", "--date", day(1))[1]


def test_every_incident_names_a_section_of_the_operations_guide() -> None:
    code = Path(warnings.__code__.co_filename).read_text(encoding="utf-8")
    guide = (DOCS / "operations.md").read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", guide, re.MULTILINE)
    }
    assert set(re.findall(r'section="([^"]+)"', code)) <= anchors


def test_a_token_does_not_stand_in_the_file(small: Deployment) -> None:
    small.toml.write_text(TOML + '[alerts]\nmail = ["oncall@example.com"]\nchat = ["${SLACK_URL}"]\n')
    assert small.config.alerts.chat == (Text("${SLACK_URL}"),)  # looked up when somebody is told
    for wrong, words in (
        ('chat = ["slack://of/the/deployment"]', r"\[alerts\]: chat: .* write \"\$\{NAME\}\""),
        ('mail = ["oncall"]', r"\[alerts\] mail 1 = 'oncall': must be an address"),
        ('mail = "oncall@example.com"', r"\[alerts\] mail: expected a list"),
        ('console = "localhost:8501"', r"\[alerts\] console = .* must be an address that begins with https"),
        ("refusal_day = 3", r'unknown key "refusal_day"; did you mean "refusal_days"'),
        ("min_coverage = 1.5", r"\[alerts\] min_coverage = 1.5: "),
    ):
        small.toml.write_text(f"{TOML}[alerts]\n{wrong}\n")
        with pytest.raises(ConfigError, match=words) as told:
            _ = small.config
        assert "deployment/" not in str(told.value).replace(str(small.toml), "")
        assert "slack://" not in str(told.value)
