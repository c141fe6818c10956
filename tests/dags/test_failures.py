"""What a failing stage does to its task: really run, through dag.test and spark-submit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Ask = Callable[..., Any]
RUN = """
from datetime import timedelta
import advertiser_sequences
dag = advertiser_sequences.dag
for task in dag.tasks:
    task.retries, task.retry_delay = 1, timedelta(seconds=1)
def run(**conf):
    done = dag.test(run_conf=conf)
    return {i.task_id: [i.state, i.try_number] for i in done.get_task_instances()}
"""
ON_A_DAY = RUN + 'answer(run(date="2020-06-20"))'
UNDER_CONNECTIONS = """
import os
def under(connection):
    os.environ.pop("AIRFLOW_CONN_SPARK_DEFAULT", None)
    os.environ |= {"AIRFLOW_CONN_SPARK_DEFAULT": connection} if connection else {}
    return run(date="2020-06-20")
answer([under(connection) for connection in %r])
"""

CONFIG = """
[dataset]
name = "tiny"
first_day = 2020-06-01
[[source]]
name = "raw"
format = "csv"
path = "missing.csv"
options = { header = "true" }
columns = { ds = "date", advertiser = "string", spend = "double" }
[staging]
performance_daily = "performance_daily.sql"
[[performance]]
name = "spend"
kind = "money"
[[task]]
name = "spend"
metric = "spend"
aggregate = "sum"
"""
SQL = """
SELECT ds, advertiser AS advertiser_id, 'all' AS scenario_id, spend, 1L AS source_rows, CAST(NULL AS STRING) AS dirt
FROM raw WHERE ds BETWEEN :from_ds AND :to_ds
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A data set whose only file is missing."""
    (tmp_path / "performance_daily.sql").write_text(SQL, encoding="utf-8")
    file = tmp_path / "pipeline.toml"
    file.write_text(CONFIG, encoding="utf-8")
    return file


def test_bad_data_is_not_retried_and_says_what_to_do(ask: Ask, config: Path, tmp_path: Path) -> None:
    states, printed = ask(ON_A_DAY, M2M_CONFIG=str(config), M2M_HOME=str(tmp_path / "home"))
    waiting = {name: ["upstream_failed", 0] for name in ("build_sequences", "incidents")}
    assert states == {"stage_sources": ["failed", 1], **waiting}
    told = printed[printed.index("FAILED advertiser_sequences.stage_sources, try 1: data failed a check") :]
    assert "missing.csv" in told
    assert "log4j" not in told
    assert f"by hand: python -m pipelines.stage_sources --config {config} --date 2020-06-20" in told
    assert "docs/operations.md#exit-3-data" in told


def test_bad_configuration_is_not_retried(ask: Ask, config: Path, tmp_path: Path) -> None:
    config.write_text(CONFIG.replace("[dataset]", "[dataset]\nhorison_days = 7"))
    states, printed = ask(ON_A_DAY, M2M_CONFIG=str(config), M2M_HOME=str(tmp_path / "home"))
    assert states["stage_sources"] == ["failed", 1]
    assert "wrong use or configuration" in printed
    assert "horison_days" in printed


def test_anything_else_is_retried(ask: Ask, config: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "tiny").write_text("a file where the data set's folder should be", encoding="utf-8")
    states, printed = ask(ON_A_DAY, M2M_CONFIG=str(config), M2M_HOME=str(home))
    assert states["stage_sources"] == ["failed", 2]
    assert "docs/operations.md#exit-1-anything-else" in printed


def test_run_without_a_date_is_refused(ask: Ask, config: Path) -> None:
    states, printed = ask(RUN + "answer(run())", M2M_CONFIG=str(config))
    assert states["stage_sources"] == ["failed", 1]
    assert "This run has no date" in printed
    assert "by hand" not in printed


def test_spark_connection_that_would_become_yarn_is_refused(ask: Ask, config: Path, tmp_path: Path) -> None:
    connections = [None, "local", '{"conn_type": "spark", "host": ""}']
    states, printed = ask(
        RUN + UNDER_CONNECTIONS % (connections,), M2M_CONFIG=str(config), M2M_HOME=str(tmp_path / "home")
    )
    assert [each["stage_sources"] for each in states] == [["failed", 1]] * len(connections)
    expected = "  | Expected a connection spark_default of type spark whose host is the master"
    assert printed.count(expected) == len(connections)
