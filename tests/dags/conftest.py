"""Airflow in processes of its own: it reads its configuration on import, and no other test should see that."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "examples"))

import local_cluster  # noqa: E402
from local_deployment import environment, prepare_airflow  # noqa: E402
from on_cluster import SHORT_LIVED  # noqa: E402

# The answer is the last line: Airflow logs to the same stream.
PRELUDE = f"""
import json, sys
sys.path.insert(0, {str(REPOSITORY / "dags")!r})
def answer(value):
    print("\\n" + json.dumps(value, default=str), flush=True)
"""

# Each command of `airflow` imports it anew, which takes longer than what it then does.
COMMANDS = """
import json, sys
from airflow import __main__ as airflow
for command in json.loads(sys.argv[1]):
    sys.argv = ["airflow", *command]
    airflow.main()
"""

Ask = Callable[..., Any]
Airflow = Callable[..., None]


@pytest.fixture
def airflow() -> Airflow:
    """Runs commands of ``airflow``, each a list of its arguments, one after the other."""

    def run(env: Mapping[str, str], log: Path, *commands: Sequence[str]) -> None:
        with log.open("ab") as out:
            command = [sys.executable, "-c", COMMANDS, json.dumps(commands)]
            subprocess.run(command, env=dict(env), stdout=out, stderr=out, check=True)

    return run


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A port that nobody listens on."""
    return local_cluster.free_port


def deployed(home: Path, **own: str) -> dict[str, str]:
    """The variables of a deployment, and nothing of the caller's."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "M2M_"))} | own
    return clean | SHORT_LIVED | environment(clean | {"M2M_HOME": str(home)})


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A metadata database in which nothing has happened, to begin with a copy of it: to make one takes seconds."""
    home = tmp_path_factory.mktemp("migrated")
    prepare_airflow(env := deployed(home), home / "logs" / "setup.log")
    return Path(env["AIRFLOW_HOME"], "airflow.db")


@pytest.fixture(scope="session")
def begun(migrated: Path) -> Callable[..., dict[str, str]]:
    """The variables of a new deployment whose database is there."""

    def begin(home: Path, **own: str) -> dict[str, str]:
        env = deployed(home, **own)
        Path(env["AIRFLOW_HOME"]).mkdir(parents=True)
        shutil.copy(migrated, env["AIRFLOW_HOME"])
        # Servers that start at once would each make a secret of their own.
        return env | {"AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64)}

    return begin


@pytest.fixture(scope="session")
def airflow_env(tmp_path_factory: pytest.TempPathFactory, begun: Callable[..., dict[str, str]]) -> dict[str, str]:
    return begun(tmp_path_factory.mktemp("deployment"))


@pytest.fixture(scope="session")
def ask(airflow_env: dict[str, str]) -> Ask:
    """Runs Python code beside the DAG files and returns what it answers, and all that it printed."""

    def run(code: str, **variables: str | None) -> tuple[Any, str]:
        env = airflow_env | {key: value for key, value in variables.items() if value is not None}
        for key in (key for key, value in variables.items() if value is None):
            env.pop(key, None)
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + code], env=env, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return json.loads(done.stdout.strip().splitlines()[-1]), done.stdout + done.stderr

    return run
