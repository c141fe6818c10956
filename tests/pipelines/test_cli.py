"""How a command ends, and what it prints on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from deployment import FIRST_DAY, Deployment, day

from pipelines.cli import exit_status, warn
from pipelines.errors import ConfigError, DataError, plain

ROOT = Path(__file__).resolve().parents[2]
EVIL = "adv\x1b[31m\r\n\u202e\x9b2J\x7f\udc80"


@pytest.mark.parametrize("text", [EVIL, "\x07\x00", "a\u2028b\u0085c"])
def test_what_is_printed_has_no_control_character(text: str) -> None:
    assert plain(text).isprintable()
    assert plain("café 广告 (a\\b)") == "café 广告 (a\\b)"


@pytest.mark.parametrize(("error", "status"), [(ConfigError(EVIL), 2), (DataError([EVIL, EVIL]), 3)])
def test_errors_are_printed_plain(error: Exception, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    def stage(_: list[str] | None) -> int:
        warn(EVIL)
        raise error

    assert exit_status(stage) == status
    assert all(line.isprintable() for line in capsys.readouterr().err.split("\n"))


def test_ctrl_c_ends_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def stage(_: list[str] | None) -> int:
        raise KeyboardInterrupt

    assert exit_status(stage) == 130
    assert capsys.readouterr().err == "stopped; nothing was published\n"


def append_validation(deployment: Deployment, ds: date | None, example: str, count: int = 1) -> None:
    warehouse = deployment.warehouse
    texts = dict.fromkeys(["run_id", "stage", "table", "check", "expected"], "x")
    row = {"ds": ds, "column": None, "scenario": None, "severity": "info", "found": 1.0, "passed": True}
    frame = pl.DataFrame([row | texts | {"example": example}] * count, infer_schema_length=None)
    names = warehouse.arrow_schema("ops.validation").names
    warehouse.append("ops.validation", frame.select(names).to_arrow(), {"run-id": "x"})


@pytest.mark.parametrize("layout", ["table", "json"])
def test_show_prints_values_plain(deployment: Deployment, layout: str) -> None:
    append_validation(deployment, None, EVIL.replace("\udc80", ""))
    status, said = deployment.run("show", "ops.validation", "--format", layout, spark=False)
    assert status == 0, said
    assert all(line.isprintable() for line in said.split("\n"))
    assert "31m" in said
    assert deployment.run("show", "tables", spark=False)[0] == 0  # a row that carries no day is no stumbling block


def test_show_names_a_day_that_is_not_there(deployment: Deployment) -> None:
    append_validation(deployment, day(1), "x")
    status, said = deployment.run("show", "ops.validation", "--date", day(2), spark=False)
    assert status == 2
    assert f"ops.validation: no day {day(2)}; it has {day(1)}" in said
    status, said = deployment.run("show", "marts.backtest", "--date", FIRST_DAY, spark=False)
    assert status == 2
    assert "marts.backtest: no day 2024-01-01; nothing was written to it yet. It is written by: backtest" in said


@pytest.mark.parametrize("limit", ["-1", "0", "x", "1e3", "99999999999", "٣"])
def test_a_limit_that_cannot_be_is_refused(deployment: Deployment, limit: str) -> None:
    assert deployment.run("show", "ops.validation", f"--limit={limit}", spark=False)[0] == 2


def test_a_reader_that_goes_away_is_no_failure(deployment: Deployment) -> None:
    append_validation(deployment, day(1), "x" * 500, count=500)
    command = [sys.executable, "-m", "pipelines.show", "ops.validation", "--limit", "500", "--format", "json"]
    reading, writing = os.pipe()
    shown = subprocess.Popen(
        [*command, "--config", str(deployment.toml)], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    os.read(reading, 10)
    os.close(reading)
    assert shown.communicate()[1] == b""
    assert shown.returncode == 141
