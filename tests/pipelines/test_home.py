"""Where a home may lie, and that state is not mixed with another one's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from deployment import FIRST_DAY, Deployment, day

pytestmark = pytest.mark.spark
ROOT = Path(__file__).resolve().parents[2]


def test_a_home_may_have_any_name(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    home = deployment.folder.parent / "a b é#x%20[1]?{*}"
    monkeypatch.setenv("M2M_HOME", str(home))
    last = deployment.write_days(FIRST_DAY, 50)
    commands = [
        ("stage_sources", "--from", FIRST_DAY, "--to", last),
        ("build_sequences", "--date", day(42)),
        ("train", "--date", day(42)),
        ("backtest", "--date", day(42)),
        ("promote", "--date", day(42)),
        ("score", "--date", day(42)),
        ("monitor", "--date", last),
        ("show", "marts.forecast_quality", "--date", day(42)),
        ("restatements", "--date", last),
        ("status", "--date", day(42)),
        ("maintain", "--apply"),
    ]
    for command in commands:
        status, said = deployment.run(*command)
        assert (status, command) == (0, command), said
    assert {path.name for path in home.iterdir()} == {"tiny", "mlflow.db", "mlflow.lock", "mlartifacts"}
    restored_from_a_backup(deployment, home)
    elsewhere = [
        path for path in home.parent.iterdir() if path not in (home, deployment.folder, home.parent / "backup")
    ]
    assert [path for folder in elsewhere for path in folder.rglob("*") if path.is_file()] == []


def restored_from_a_backup(deployment: Deployment, home: Path) -> None:
    """As docs/operations.md has it, to the letter."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").partition("## Back up and restore")[2]
    script = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)[0].replace("/backup/m2m-$(date +%F)", "$BACKUP")
    env = os.environ | {
        "BACKUP": str(home.parent / "backup"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    subprocess.run(["bash", "-euc", script], check=True, env=env)
    shutil.rmtree(home)
    shutil.copytree(home.parent / "backup", home)
    for command in (("status", "--date", day(42)), ("score", "--date", day(42))):
        status, said = deployment.run(*command)
        assert (status, command) == (0, command), said
    assert "by version 1" in said
