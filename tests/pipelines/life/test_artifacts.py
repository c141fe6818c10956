"""Where models' files go: below the home or where [mlflow] artifacts says, never where a command was started."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import mlflow
import pyarrow as pa
import pytest
from deployment import Deployment
from services import object_store, postgres

from m2m_model.config import ModelConfig, Task, TrainConfig
from m2m_model.data.features import fit_inputs
from m2m_model.data.panel import Panel
from m2m_model.data.spec import SequenceSpec
from m2m_model.data.statistics import PanelStatistics
from m2m_model.training.loop import train_rank
from pipelines.chain import CHALLENGER
from pipelines.errors import ConfigError
from pipelines.life.registry import LostModelError, Registry
from pipelines.warehouse.store import Packed


@pytest.fixture
def started_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An Airflow worker's folder, which goes with it."""
    folder = tmp_path / "worker"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two steps."""
    folder, last, days = tmp_path_factory.mktemp("model"), date(2024, 3, 31), 70
    spec = SequenceSpec(("clicks",), (), (), (), (Task("clicks", "clicks", "sum"),), (7,), 14, 28)
    first = (last - date(1970, 1, 1)).days - days + 1
    row = {"scenario_id": "s", "registered_on": date(2024, 1, 1), "day": list(range(first, first + days))}
    rows = [row | {"advertiser_id": f"a{i}", "clicks": [float(i + d % 7) for d in range(days)]} for i in range(8)]
    panel = Panel.from_sequences(pa.Table.from_pylist(rows), spec, last, days)
    inputs = fit_inputs(PanelStatistics.of(panel, last - timedelta(days=28)), bins=4)
    small, short = ModelConfig(width=8, heads=2, experts=2), TrainConfig(epochs=1, min_steps=2, blend=False)
    shards = [panel.save(folder / "shard")]
    return train_rank(shards, folder, inputs, small, short, last - timedelta(days=7)).model_folder


def register(registry: Registry, model: Path) -> None:
    with registry.new_run("train", {}, {}) as run_id:
        assert registry.register(run_id, model).version


def test_two_that_start_at_once_find_the_database_made(deployment: Deployment) -> None:
    """Training and forecasting start on the same event, on a first day too."""
    code = (
        "import sys; from pipelines.config import load_config; from pipelines.life.registry import Registry; "
        "print(flush=True); sys.stdin.read(1); Registry(load_config(sys.argv[1])).experiment_id()"
    )
    with postgres() as address:
        deployment.toml.write_text(f'{deployment.toml.read_text()}\n[mlflow]\ntracking_uri = "{address}/postgres"\n')
        command, pipe = [sys.executable, "-c", code, str(deployment.toml)], subprocess.PIPE
        both = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
        for process in both:
            process.stdout.readline()  # its imports are done, however busy the machine is
        for process in both:
            process.stdin.write("\n")
            process.stdin.flush()
        assert [process.communicate()[1][-2000:] for process in both if process.wait()] == []


def test_a_database_keeps_runs_and_the_home_keeps_models(
    deployment: Deployment, started_in: Path, tmp_path: Path, model: Path
) -> None:
    with postgres() as address:
        deployment.toml.write_text(f'{deployment.toml.read_text()}\n[mlflow]\ntracking_uri = "{address}/postgres"\n')
        registry = Registry(deployment.config)
        register(registry, model)
        version = registry.get(CHALLENGER)
        assert version is not None
        assert version.folder.is_relative_to(tmp_path / "home" / "mlartifacts" / "m2m_tiny")
        assert list(started_in.iterdir()) == []


def test_an_experiment_that_keeps_its_models_by_chance_is_refused(deployment: Deployment, started_in: Path) -> None:
    database = started_in.parent / "shared.db"
    deployment.toml.write_text(f'{deployment.toml.read_text()}\n[mlflow]\ntracking_uri = "sqlite:///{database}"\n')
    mlflow.set_tracking_uri(f"sqlite:///{database}")
    mlflow.MlflowClient().create_experiment("m2m_tiny")  # as 0.2 did with any database but SQLite
    with pytest.raises(ConfigError, match=r"m2m_tiny keeps its models in \S*/mlruns/\d+: a folder that MLflow made"):
        Registry(deployment.config).experiment_id()


def test_models_in_an_object_store(deployment: Deployment, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with object_store() as store:
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", store.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", store.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", store.secret_key)
        text = deployment.toml.read_text()
        deployment.toml.write_text(f'{text}\n[mlflow]\nartifacts = "s3://m2m/models/"\n')
        registry = Registry(deployment.config)
        register(registry, model)
        version = registry.get(CHALLENGER)
        assert version is not None
        assert version.packed == Packed.of(model)
        download = version.folder
        del version
        assert not download.exists()
        deployment.toml.write_text(f'{text}\n[mlflow]\nartifacts = "s3://m2m/elsewhere"\n')
        with pytest.raises(ConfigError, match="in s3://m2m/models/m2m_tiny: not the declared one"):
            Registry(deployment.config).experiment_id()
        for key in store.keys:
            store.client.delete_object(Bucket="m2m", Key=key)
        with pytest.raises(LostModelError, match="model m2m_tiny version 1: "):
            registry.get(CHALLENGER)
