"""The three DAGs on a cluster, as a scheduler runs them: spark-submit in client mode, and the connection's master."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deployment import FIRST_DAY, Deployment, day
from local_cluster import LocalCluster
from on_cluster import deployed

Ask = Callable[..., Any]
RUN = """
import advertiser_sequences, m2m_training, advertiser_forecasts
states = {}
for module, conf in ((advertiser_sequences, %r), (m2m_training, %r), (advertiser_forecasts, %r)):
    for task in module.dag.tasks:
        task.retries = 0
    run = module.dag.test(run_conf=conf)
    states |= {i.task_id: i.state for i in run.get_task_instances()}
answer(states)
"""


def test_the_dags_run_on_the_cluster_of_the_connection(
    ask: Ask, cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment: Deployment = deployed(tmp_path)
    deployment.edit("min_steps = 600", "min_steps = 20")
    as_of = str(day(59))
    first = {"date": as_of, "from_date": str(FIRST_DAY)}
    connection = {"conn_type": "spark", "host": "spark://127.0.0.1", "port": cluster.port}
    states, printed = ask(
        RUN % (first, {"date": as_of}, {"date": as_of}),
        M2M_CONFIG=str(deployment.toml),
        M2M_HOME=str(tmp_path / "home"),
        AIRFLOW_CONN_SPARK_DEFAULT=json.dumps(connection | {"extra": {"deploy-mode": "client"}}),
        PYTHONPATH=None,
        M2M_MASTER=None,
    )
    assert set(states.values()) == {"success"}, printed[-6000:]
    assert len(states) == 7
    assert f"--master {cluster.master}" in printed
    assert "epoch 6/6 loss" in printed  # rank 0's progress is in the task's log
    monkeypatch.setenv("M2M_HOME", str(tmp_path / "home"))
    assert deployment.rows("marts.forecast_daily").height == 24 * 2
