"""Where a home may lie, and that state is not mixed with another one's."""

from __future__ import annotations

import pytest
from deployment import FIRST_DAY, Deployment, day

pytestmark = pytest.mark.spark


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
    elsewhere = [path for path in home.parent.iterdir() if path not in (home, deployment.folder)]
    assert [path for folder in elsewhere for path in folder.rglob("*") if path.is_file()] == []
