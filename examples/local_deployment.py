"""The embedded deployment of a laptop: the one place that says where its state is and how Airflow is set up.

``make demo``, ``make ui`` and the tests use ``environment()``. For a shell: ``eval "$(make -s env)"``, after which
``airflow ...`` and ``python -m pipelines.<stage> --date ...`` work on the same state.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
DEFAULT_CONFIG = REPOSITORY / "examples" / "online_retail" / "pipeline.toml"


def environment(base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Every variable of the deployment.

    M2M_HOME (default: .m2m in the repository), M2M_CONFIG, AIRFLOW_PORT, MLFLOW_PORT and CONSOLE_PORT are taken from
    ``base`` where it has them, and so is each Airflow setting that does not follow from them.
    """
    home = Path(base.get("M2M_HOME") or REPOSITORY / ".m2m").resolve()
    if {*"%?"} & {*str(home)}:  # stages work there; Airflow puts the path into URIs and templates as it is
        sys.exit(f"Airflow cannot keep its state below a path with % or ?: {home}; set M2M_HOME to another folder")
    airflow_port, console_port = base.get("AIRFLOW_PORT", "8080"), base.get("CONSOLE_PORT", "8501")
    no_proxy = ",".join(filter(None, [base.get("NO_PROXY") or base.get("no_proxy"), "localhost", "127.0.0.1"]))
    # Never taken from ``base``: a shell that has the variables of another home or port would mix the two.
    following = {
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://localhost:{airflow_port}/execution/",
        "AIRFLOW__API__PORT": airflow_port,
        "AIRFLOW__API__BASE_URL": f"http://localhost:{airflow_port}",
    }
    airflow = {
        "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps(
            {"conn_type": "spark", "host": "local[2]", "extra": {"deploy-mode": "client"}}
        ),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        # Each task is a Spark application with two cores: more at once only take memory from each other.
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    return {
        "M2M_HOME": str(home),
        "M2M_CONFIG": str(Path(base.get("M2M_CONFIG") or DEFAULT_CONFIG).resolve()),
        "AIRFLOW_PORT": airflow_port,
        "MLFLOW_PORT": base.get("MLFLOW_PORT", "5000"),
        "CONSOLE_PORT": console_port,
        "M2M_CONSOLE_URL": f"http://localhost:{console_port}",  # what messages and Airflow's pages link to
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its job queues serve features that are not used here
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": base.get("SPARK_LOCAL_IP", "127.0.0.1"),
        # Spark's own way to find it fails below a path with a blank.
        "SPARK_HOME": str(distribution("pyspark").locate_file("pyspark")),
        # spark-submit and airflow are looked up on the PATH.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), base.get("PATH", os.defpath)]),
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        **{key: base.get(key, value) for key, value in airflow.items()},
        **following,
    }


def prepare_airflow(env: Mapping[str, str], log_file: Path) -> None:
    """Make or migrate the metadata database, and the pool that the DAGs ask for."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    for command in (
        ["airflow", "db", "migrate"],
        ["airflow", "pools", "set", "gpu", "1", "Trainings at once: as many as there are GPUs"],
    ):
        with log_file.open("a", encoding="utf-8") as log:
            done = subprocess.run(command, env=dict(env), stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            sys.exit(f"`{' '.join(command)}` failed with status {done.returncode}; its output is in {log_file}")


if __name__ == "__main__":
    for key, value in environment().items():
        print(f"export {key}={shlex.quote(value)}")
