"""The chain of online_ads on a cluster, as a scheduler runs it: one trigger, and three DAGs to the end.

Airflow's processes, a Spark master with two workers, an S3 server and PostgreSQL, which has the catalog, MLflow and
Airflow's own tables. Driver and executors share nothing but these, and the raw files.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from deployment import Deployment
from local_cluster import LocalCluster
from local_deployment import REPOSITORY, environment, prepare_airflow
from services import ObjectStore, object_store, postgres
from sqlalchemy import create_engine, text
from ui import AIRFLOW, MARK, start, stop, wait_for

LIMIT_S = 900
FIRST, AS_OF = "2020-04-01", "2020-06-29"
NOTHING_SHARED = """
[training]
epochs = 2
min_steps = 60
boosted = false

[spark.conf]  # nothing here runs long enough for Java's second compiler
"spark.driver.extraJavaOptions" = "-XX:TieredStopAtLevel=1"
"spark.executor.extraJavaOptions" = "-XX:TieredStopAtLevel=1"

[distributor]
processes = 2
local = false
wait_s = 300  # training and forecasting start on the same event; whoever comes second waits for the cores

[warehouse]
uri = "{database}/catalog"
warehouse = "s3://m2m/lake"
"s3.endpoint" = "{store.endpoint}"
"s3.region" = "{store.region}"
"s3.access-key-id" = "${{LAKE_KEY}}"
"s3.secret-access-key" = "${{LAKE_SECRET}}"

[storage]
scratch = "s3://m2m/scratch"

[mlflow]
tracking_uri = "{database}/mlflow"
artifacts = "s3://m2m/models"
"""


def variables(home: Path, toml: Path, master: str, database: str, store: ObjectStore, port: int) -> dict[str, str]:
    """Of Airflow's processes, which the stages inherit."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "M2M_", "PYTHONPATH"))}
    host, _, number = master.rpartition(":")
    connection = {"conn_type": "spark", "host": host, "port": int(number), "extra": {"deploy-mode": "client"}}
    own = {
        "M2M_HOME": str(home),
        "M2M_CONFIG": str(toml),
        "AIRFLOW_PORT": str(port),
        "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps(connection),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"{database}/airflow",
        "LAKE_KEY": store.access_key,
        "LAKE_SECRET": store.secret_key,
        "MLFLOW_S3_ENDPOINT_URL": store.endpoint,  # MLflow's settings are its own, and the driver's alone
        "AWS_ACCESS_KEY_ID": store.access_key,
        "AWS_SECRET_ACCESS_KEY": store.secret_key,
        MARK: str(os.getpid()),
    }
    return clean | own | environment(clean | own)


def test_one_trigger_runs_the_chain_with_nothing_shared(
    cluster: LocalCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    free_port: Callable[[], int],
    airflow: Callable[..., None],
) -> None:
    deployment = Deployment(tmp_path / "online_ads", lambda: "")
    shutil.copytree(REPOSITORY / "examples" / "online_ads", deployment.folder)
    log = tmp_path / "airflow.log"
    with object_store() as store, postgres("airflow", "catalog", "mlflow") as database, log.open("ab") as out:
        with deployment.toml.open("a") as toml:
            toml.write(NOTHING_SHARED.format(database=database, store=store))
        env = variables(tmp_path / "home", deployment.toml, cluster.master, database, store, free_port())
        tables = create_engine(f"{database}/airflow")
        prepare_airflow(env, log)

        def said(task: str) -> str:
            return "".join(path.read_text() for path in sorted(tmp_path.glob(f"home/airflow/logs/**/task_id={task}/*")))

        def states() -> dict[str, str]:
            """Of the runs of the followers."""
            asked = text("select dag_id, state from dag_run where dag_id <> 'advertiser_sequences'")
            with tables.connect() as connection:
                return {str(dag): str(state) for dag, state in connection.execute(asked)}

        servers = {name: start(command, env, out) for name, command in AIRFLOW.items()}
        try:
            health = f"http://localhost:{env['AIRFLOW_PORT']}/api/v2/monitor/health"
            wait_for(servers, {"airflow-api-server": health}, tmp_path)
            conf = {"date": AS_OF, "from_date": FIRST}
            airflow(
                env,
                log,
                ["dags", "reserialize"],
                ["dags", "unpause", "--yes", "--treat-dag-id-as-regex", "^(advertiser_forecasts|m2m_training)$"],
                ["dags", "trigger", "advertiser_sequences", "--conf", json.dumps(conf)],
                ["dags", "unpause", "--yes", "advertiser_sequences"],
            )
            limit = time.monotonic() + LIMIT_S
            while len(found := states()) < 2 or {*found.values()} & {"queued", "running"}:
                assert time.monotonic() < limit, f"{found}\n{log.read_text(errors='replace')[-6000:]}"
                time.sleep(1)
            tasks = ("train", "backtest", "promote", "score", "monitor", "explain", "drift")
            assert {*found.values()} == {"success"}, f"{found}\n{''.join(map(said, tasks))[-20000:]}"
        finally:
            stop(servers)
        assert f"--master {cluster.master}" in said("train")
        assert "epoch 2/2 loss" in said("train")  # rank 0's progress is in the task's log
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        assert deployment.rows("marts.forecast_daily").height == 225 * 3
        assert set(map(str, deployment.rows("marts.backtest")["ds"])) == {AS_OF}
        assert [key for key in store.keys if key.startswith("models/m2m_online_ads/") and key.endswith("config.json")]
    folders = {path.name for path in (tmp_path / "home").rglob("*") if path.is_dir()}
    assert folders & {"warehouse", "training", "runs", "mlartifacts", "mlruns"} == set()
