"""Arguments that cannot be: every stage's command line names them before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bad_input.corpus import Case
from deployment import FIRST_DAY, Deployment

STAGES = "stage_sources build_sequences train backtest promote score monitor explain".split()
STAGES += "day restatements maintain status show export console".split()
TABLE = {"show": " staged.scenario", "export": " staged.scenario --out x.csv"}
DAYS = {
    "before the data": ("2023-12-31", "is before the data starts: [dataset] first_day = 2024-01-01"),
    "in the year 1": ("0001-01-01", "is before the data starts"),
    "in the future": ("2999-01-01", "is in the future"),
    "in the year 9999": ("9999-12-31", "is in the future"),
    "in the year 99999": ("99999-01-01", "is not a day; write YYYY-MM-DD"),
    "that never was": ("2024-02-30", "is not a day; write YYYY-MM-DD"),
    "without dashes": ("20240111", "is not a day; write YYYY-MM-DD"),
    "with a time": ("2024-01-11T00:00", "is not a day; write YYYY-MM-DD"),
    "with a line break": ("'2024-01-11\n'", "is not a day; write YYYY-MM-DD"),
    "of nothing": ("''", "is not a day; write YYYY-MM-DD"),
}
ARGUMENTS = {
    "no date": Case(("no date: give --date",), "build_sequences"),
    "a range that ends before it starts": Case(
        ("the range 2024-01-09..2024-01-02 ends before it starts",), "stage_sources --from 2024-01-09 --to 2024-01-02"
    ),
    "two last days": Case(
        ("--date 2024-01-05", "--to 2024-01-09"), "stage_sources --from 2024-01-02 --to 2024-01-09 --date 2024-01-05"
    ),
    "a range into the future": Case(("is in the future",), "stage_sources --from 2024-01-02 --to 2999-01-01"),
    "a range from before the data": Case(("before the data",), "stage_sources --from 2023-01-02 --to 2024-01-09"),
    "an argument cut short": Case(("unrecognized arguments: --dat",), "build_sequences --dat 2024-01-05"),
    "an unknown argument": Case(("unrecognized arguments: --force",), "score --date 2024-01-05 --force"),
    "an argument without its value": Case(("--date", "expected one argument"), "score --date"),
    "a catalog to move to that is none": Case(("--to",), "move_catalog"),
    "a move to a file that is not there": Case(("gone.toml: no such file",), "move_catalog --to {folder}/gone.toml"),
    "no table to show": Case(("TABLE",), "show"),
    "an unknown table": Case(('unknown table "marts.forecasts"', "marts.forecast_daily"), "show marts.forecasts"),
    "a format that nobody prints": Case(("--format", "'xml'"), "show tables --format xml"),
    "nothing to show yet": Case(("no catalog there", "pipelines.stage_sources"), "show staged.scenario --snapshot x1"),
    "a snapshot that is no name": Case(("--snapshot", "neither the id"), "show staged.scenario --snapshot 'a b'"),
    "a snapshot of all tables": Case(("--snapshot", "name the table"), "show tables --snapshot x1"),
    "a snapshot of 300 characters": Case(("--snapshot", "neither the id"), f"show tables --snapshot {'9' * 300}"),
    "a snapshot to train on": Case(("--snapshot", "neither the id"), "train --date 2024-01-09 --snapshot ../x"),
    **{
        f"{option} {value}": Case((option, f"must be a number from 1 to {most}"), f"{stage} {option}={value}")
        for stage, option, most in (("status", "--days", 3660), ("show tables", "--limit", 1_000_000))
        for value in ("-1", "0", "1e6", "99999999", "9" * 5000, "x", "1.5", "٣", "")
    },
}
PATHS = {
    "no configuration": ("''", "no configuration: give --config"),
    "a configuration that is not there": ("{folder}/gone.toml", "no such file; name a pipeline.toml"),
    "a folder": ("{folder}", "not a file; name the pipeline.toml itself"),
    "a device": ("/dev/zero", "not a file"),
    "below a file": ("{folder}/pipeline.toml/pipeline.toml", "no such file"),
    "a null byte": ("'{folder}/a\0b'", "a\\x00b: no such file"),
    "300 characters": (f"{{folder}}/{'c' * 300}.toml", "cannot be read: File name too long"),
    "a link to itself": ("{folder}/loop.toml", "no such file"),
    "the SQL": ("{folder}/performance_daily.sql", "not TOML"),
}


@pytest.mark.parametrize("name", DAYS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_day_that_cannot_be_is_named(refuse: Callable[[Case], str], stage: str, name: str) -> None:
    text, words = DAYS[name]
    refuse(Case((words,), f"{stage}{TABLE.get(stage, '')} --date {text}"))


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_argument_that_cannot_be_is_named(refuse: Callable[[Case], str], name: str) -> None:
    refuse(ARGUMENTS[name])


@pytest.mark.parametrize("table", ["staged.performance_daily", "staged.scenario"])
def test_a_snapshot_that_is_not_there_is_named(
    refuse: Callable[[Case], str], deployment: Deployment, table: str
) -> None:
    deployment.warehouse.commit("staged.performance_daily", [FIRST_DAY], [], {"run-id": "x0"})
    refuse(Case((f"{table}: no snapshot of run x1, nor one of that id",), f"show {table} --snapshot x1"))


@pytest.mark.parametrize("name", PATHS)
def test_a_configuration_that_is_none_is_named(refuse: Callable[[Case], str], tmp_path: Path, name: str) -> None:
    text, words = PATHS[name]
    (tmp_path / "tiny" / "loop.toml").symlink_to("loop.toml")
    refuse(Case((words,), f"status --config {text}"))
