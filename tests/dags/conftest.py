"""Airflow in processes of its own: it reads its configuration on import, and no other test should see that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "examples"))

import local_cluster  # noqa: E402
from local_deployment import environment, prepare_airflow  # noqa: E402

# The answer is the last line: Airflow logs to the same stream.
PRELUDE = f"""
import json, sys
sys.path.insert(0, {str(REPOSITORY / "dags")!r})
def answer(value):
    print("\\n" + json.dumps(value, default=str), flush=True)
"""

Ask = Callable[..., Any]


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A port that nobody listens on."""
    return local_cluster.free_port


@pytest.fixture(scope="session")
def airflow_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A deployment of its own, with a migrated metadata database."""
    home = tmp_path_factory.mktemp("deployment")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "M2M_"))}
    env = clean | environment(clean | {"M2M_HOME": str(home)})
    prepare_airflow(env, home / "logs" / "setup.log")
    return env


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
