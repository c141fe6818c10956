"""The three DAGs on a cluster, as a scheduler runs them: spark-submit in client mode, and the connection's master.

They share nothing with the driver but raw files, an S3 server and PostgreSQL, which has the catalog, MLflow and
Airflow's own tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deployment import FIRST_DAY, Deployment, day
from local_cluster import LocalCluster
from local_deployment import prepare_airflow
from on_cluster import deployed
from services import object_store, postgres

Ask = Callable[..., Any]
NOTHING_SHARED = """
[warehouse]
uri = "{database}/catalog"
warehouse = "s3://m2m/lake"
"s3.endpoint" = "{endpoint}"
"s3.region" = "{region}"
"s3.access-key-id" = "${{TINY_KEY}}"
"s3.secret-access-key" = "${{TINY_SECRET}}"

[storage]
scratch = "s3://m2m/scratch"

[mlflow]
tracking_uri = "{database}/mlflow"
artifacts = "s3://m2m/models"
"""
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
    ask: Ask, airflow_env: dict[str, str], cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment: Deployment = deployed(tmp_path)
    deployment.edit("min_steps = 600", "min_steps = 20")
    as_of = str(day(59))
    first = {"date": as_of, "from_date": str(FIRST_DAY)}
    connection = {"conn_type": "spark", "host": "spark://127.0.0.1", "port": cluster.port}
    with object_store() as store, postgres("airflow", "catalog", "mlflow") as database:
        text = NOTHING_SHARED.format(database=database, endpoint=store.endpoint, region=store.region)
        deployment.toml.write_text(f"{deployment.toml.read_text()}\n{text}")
        own = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"{database}/airflow",
            "M2M_CONFIG": str(deployment.toml),
            "M2M_HOME": str(tmp_path / "home"),
            "TINY_KEY": store.access_key,
            "TINY_SECRET": store.secret_key,
            "MLFLOW_S3_ENDPOINT_URL": store.endpoint,  # MLflow's settings are its own, and the driver's alone
            "AWS_ACCESS_KEY_ID": store.access_key,
            "AWS_SECRET_ACCESS_KEY": store.secret_key,
        }
        prepare_airflow(airflow_env | own, tmp_path / "setup.log")
        states, printed = ask(
            RUN % (first, {"date": as_of}, {"date": as_of}),
            AIRFLOW_CONN_SPARK_DEFAULT=json.dumps(connection | {"extra": {"deploy-mode": "client"}}),
            PYTHONPATH=None,
            M2M_MASTER=None,
            **own,
        )
        assert set(states.values()) == {"success"}, printed[-6000:]
        assert len(states) == 7
        assert f"--master {cluster.master}" in printed
        assert "epoch 6/6 loss" in printed  # rank 0's progress is in the task's log
        for name, value in own.items():
            monkeypatch.setenv(name, value)
        assert deployment.rows("marts.forecast_daily").height == 24 * 2
        assert [key for key in store.keys if key.startswith("models/m2m_tiny/") and key.endswith("config.json")]
    folders = {path.name for path in (tmp_path / "home").rglob("*") if path.is_dir()}
    assert folders & {"warehouse", "training", "runs", "mlartifacts", "mlruns"} == set()
