"""Airflow's own backfill, with its scheduler: missing days are found, filled in order, and then not missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from deployment import FIRST_DAY, SQL, TOML, Deployment, day
from pyspark.sql import SparkSession
from ui import AIRFLOW, MARK, start, stop, wait_for

LIMIT_S = 600
MISSING = [day(7), day(8)]


def test_missed_days_are_filled_in_order(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    free_port: Callable[[], int],
    spark: SparkSession,
    begun: Callable[..., dict[str, str]],
    airflow: Callable[..., None],
) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "pipeline.toml").write_text(TOML)
    (folder / "performance_daily.sql").write_text(SQL)
    deployment = Deployment(folder, str, lambda: spark)
    monkeypatch.setenv("M2M_HOME", str(tmp_path / "home"))
    deployment.write_days(FIRST_DAY, 9)
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", day(6))[0] == 0
    assert deployment.run("build_sequences", "--date", day(6))[0] == 0
    assert deployment.run("status", "--date", day(8))[0] == 4

    own = {"M2M_CONFIG": str(deployment.toml), "AIRFLOW_PORT": str(free_port()), MARK: str(os.getpid())}
    env, log = begun(tmp_path / "home", **own), tmp_path / "airflow.log"
    with log.open("ab") as out:
        servers = {name: start(command, env, out) for name, command in AIRFLOW.items()}
    try:
        health = f"http://localhost:{env['AIRFLOW_PORT']}/api/v2/monitor/health"
        wait_for(servers, {"airflow-api-server": health}, tmp_path)
        dates = ["--from-date", str(MISSING[0]), "--to-date", str(day(9))]  # midnight: the day after the last one
        airflow(
            env,
            log,
            ["dags", "reserialize"],
            ["dags", "unpause", "--yes", "advertiser_sequences"],
            ["backfill", "create", "--dag-id", "advertiser_sequences", *dates, "--max-active-runs", "1"],
        )
        limit = time.monotonic() + LIMIT_S
        while day(8) not in deployment.warehouse.days("features.advertiser_sequence"):
            assert time.monotonic() < limit, log.read_text(encoding="utf-8", errors="replace")[-3000:]
            time.sleep(2)
    finally:
        stop(servers)
    commits = deployment.warehouse.commits("features.advertiser_sequence")
    assert [days for _, days in commits] == [[day(6)], *([missing] for missing in MISSING)]
    command = [sys.executable, "-m", "pipelines.status", "--config", str(deployment.toml), "--date", str(day(8))]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    for table in ("staged.performance_daily", "features.advertiser_sequence"):
        assert re.search(rf"{table} +\d+ present, 0 missing, 0 stale", done.stdout), done.stdout
