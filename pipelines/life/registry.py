"""MLflow: a training run's record, model versions, and the aliases ``challenger`` and ``champion``.

A model is logged as code + safetensors + config.json. Nothing is unpickled: stages open a version's own folder with
``m2m_model.forecasts.forecaster``; MLflow's loader for others is ``pipelines/mlflow_model.py``.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # table creation is not news
warnings.filterwarnings("ignore", "An input example was not provided")  # the signature is explicit

import mlflow
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

import m2m_model
from m2m_model.forecasts.forecasts import FIGURES
from pipelines.config import ALL_SCENARIOS, Config, m2m_home
from pipelines.warehouse.tables import sequence_columns

CHALLENGER, CHAMPION = "challenger", "champion"
_LOADER = Path(__file__).with_name("mlflow_model.py")
_REQUIREMENTS = ("torch", "numpy", "scipy", "pyarrow", "safetensors", "mlflow")  # what m2m_model imports to forecast
_RIVALS = "rivals"


@dataclass(frozen=True)
class ModelVersion:
    """A registered version and the folder that ``Forecaster.load`` opens."""

    version: str
    run_id: str
    folder: Path


class Registry:
    """The experiment and the registered model of one deployment."""

    def __init__(self, config: Config) -> None:
        self.name = f"m2m_{config.dataset.name}"
        self._config = config
        if config.mlflow_uri.startswith("sqlite:///"):
            Path(config.mlflow_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(config.mlflow_uri)
        self.client = mlflow.MlflowClient()

    def experiment_id(self) -> str:
        """The data set's experiment, made on first use."""
        found = self.client.get_experiment_by_name(self.name)
        if found:
            return str(found.experiment_id)
        local = self._config.mlflow_uri.startswith("sqlite:")
        location = f"file://{m2m_home()}/mlartifacts/{self.name}" if local else None
        try:
            return str(self.client.create_experiment(self.name, artifact_location=location))
        except MlflowException:  # another process was first
            return str(self.client.get_experiment_by_name(self.name).experiment_id)

    @contextmanager
    def new_run(self, run_name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> Iterator[str]:
        """An MLflow run with its parameters, tags and installed packages; yields its id."""
        with mlflow.start_run(experiment_id=self.experiment_id(), run_name=run_name, tags=dict(tags)) as active:
            run_id = str(active.info.run_id)
            self.client.log_batch(run_id, params=[Param(key, str(value)[:6000]) for key, value in params.items()])
            installed = sorted({f"{d.metadata['Name']}=={d.version}" for d in distributions()}, key=str.lower)
            self.client.log_text(run_id, "\n".join(installed) + "\n", "environment.txt")
            yield run_id

    def log_metrics(
        self, run_id: str, metrics: Mapping[tuple[str, ...], float], step: int = 0, timestamp_ms: int = 0
    ) -> None:
        """Many metrics in one call, each named by its parts; NaN is left out."""
        rows = [
            Metric(metric_name(*parts), value, timestamp_ms, step) for parts, value in metrics.items() if value == value
        ]
        for start in range(0, len(rows), 1000):
            self.client.log_batch(run_id, metrics=rows[start : start + 1000])

    def register(self, run_id: str, folder: Path) -> ModelVersion:
        """Log the model folder in the active run, register it as a new version and call it the challenger."""
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(_LOADER),
            artifacts={"model": str(folder)},
            code_paths=[str(Path(m2m_model.__file__).parent)],
            signature=_signature(self._config),
            pip_requirements=[
                # Without the local part: no index has torch 2.13.0+cpu.
                f"{d.metadata['Name']}=={d.version.split('+')[0]}"
                for d in distributions()
                if d.metadata["Name"] in _REQUIREMENTS
            ],
            registered_model_name=self.name,
        )
        version = str(info.registered_model_version)
        self.client.set_registered_model_alias(self.name, CHALLENGER, version)
        return self._opened(version, run_id)

    def log_rivals(self, run_id: str, folder: Path) -> None:
        """What the run's model is judged beside; no model version holds it."""
        self.client.log_artifacts(run_id, str(folder), _RIVALS)

    def rivals(self, run_id: str) -> Path | None:
        """The folder that ``m2m_model.rivals`` opens; None if the run has none."""
        if not self.client.list_artifacts(run_id, _RIVALS):
            return None
        return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=_RIVALS))

    def get(self, alias: str) -> ModelVersion | None:
        """The version that an alias names; None if there is none."""
        try:
            found = self.client.get_model_version_by_alias(self.name, alias)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        return self._opened(str(found.version), str(found.run_id))

    def promote(self, version: str) -> None:
        """Make a version the champion."""
        self.client.set_registered_model_alias(self.name, CHAMPION, version)

    def _opened(self, version: str, run_id: str) -> ModelVersion:
        local = Path(mlflow.artifacts.download_artifacts(f"models:/{self.name}/{version}"))
        return ModelVersion(version, run_id, local / "artifacts" / "model")


def _signature(config: Config) -> ModelSignature:
    """Input: sequences as `pipelines.warehouse.sequences` puts them together, and the as-of date as a parameter."""
    kinds = {
        "string": DataType.string,
        "date": DataType.datetime,
        "list<int>": Array(DataType.integer),
        "list<double>": Array(DataType.double),
    }
    inputs = Schema([ColSpec(kinds[c.type], c.name, required=c.null is None) for c in sequence_columns(config)])
    texts = ["advertiser_id", "scenario_id", "task", "method"]
    numbers = list(FIGURES)
    outputs = Schema(
        [*(ColSpec(DataType.string, name) for name in texts), *(ColSpec(DataType.double, name) for name in numbers)]
    )
    return ModelSignature(inputs, outputs, ParamSchema([ParamSpec("as_of", DataType.string, "")]))


def metric_name(*parts: str) -> str:
    """A name that MLflow takes, and no other parts have: what is not safe in a scenario's id is left out of it, and a
    digest of the whole id stands in its place. All scenarios together are ``all``."""
    return "/".join("all" if part == ALL_SCENARIOS else _safe(part) for part in parts)


def _safe(text: str) -> str:
    """The text itself, if it is a part of a path in letters, digits, _ - . : and blanks, and looks like no other's."""
    if re.fullmatch(r"\w([\w.: -]{0,62}\w)?", text, re.ASCII) and not re.search(r"^all$|(^|-)[0-9a-f]{12}$", text):
        return text
    digest = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    return "-".join([*re.findall(r"\w+", text[:40], re.ASCII), digest])
