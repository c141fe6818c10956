"""MLflow: a training run's record, model versions, and the aliases ``challenger``, ``champion`` and ``previous``.

A model is logged as code + safetensors + config.json. Nothing is unpickled: stages open a version's own folder with
``m2m_model.forecasts.forecaster``; MLflow's loader for others is ``pipelines/mlflow_model.py``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# A server that does not answer: by its own defaults MLflow tries for four minutes, or for sixteen.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # table creation is not news
warnings.filterwarnings("ignore", ".*An input example was not provided")  # the signature is explicit

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

import m2m_model
from m2m_model.forecasts.forecaster import Forecaster
from m2m_model.forecasts.forecasts import FIGURES
from pipelines.chain import CHALLENGER, CHAMPION, PREVIOUS
from pipelines.config import ALL_SCENARIOS, Config, m2m_home
from pipelines.errors import ConfigError, DataError, plain
from pipelines.life.champions import has_server
from pipelines.locks import tables_made_by_one
from pipelines.paths import local_path
from pipelines.warehouse.store import Packed
from pipelines.warehouse.tables import sequence_columns

_LOADER = Path(__file__).with_name("mlflow_model.py")
_REQUIREMENTS = ("torch", "numpy", "scipy", "pyarrow", "safetensors", "mlflow")  # what m2m_model imports to forecast
_RIVALS = "rivals"
_GONE = "RESOURCE_DOES_NOT_EXIST"
_HOST, _PROCESS = "m2m.host", "m2m.process"
_DIGESTS = "m2m.sha256"  # tag of a version: its files as they were registered
_FOLLOWED = "m2m.promoted-by"  # tag of the model: the run whose line of the ledger its aliases follow


class LostModelError(DataError):
    """A version's files are gone or cannot be read: what else can serve, may."""


@dataclass(frozen=True)
class ModelVersion:
    """A registered version and the folder that ``Forecaster.load`` opens: that of the artifact store, or a download,
    which goes when nobody holds the version any more."""

    version: str
    run_id: str
    folder: Path
    download: TemporaryDirectory[str] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def packed(self) -> Packed:
        """What workers get of it."""
        return Packed.of(self.folder)


class Registry:
    """The experiment and the registered model of one deployment."""

    def __init__(self, config: Config) -> None:
        self.name = config.model_name
        self._config = config
        mlflow.set_tracking_uri(config.mlflow_uri)
        with tables_made_by_one(config.mlflow_uri):
            self.client = mlflow.MlflowClient()
            self.client.search_experiments(max_results=1)

    def experiment_id(self) -> str:
        """The data set's experiment, made on first use."""
        found = self.client.get_experiment_by_name(self.name)
        if found:
            self._refuse_lost_artifacts(found.artifact_location)
            return str(found.experiment_id)
        location = self._artifacts()
        try:
            return str(self.client.create_experiment(self.name, artifact_location=location))
        except MlflowException:  # another process was first
            return str(self.client.get_experiment_by_name(self.name).experiment_id)

    def _artifacts(self) -> str | None:
        """Where a new experiment keeps its files: what is declared, else below the home; a server knows by itself."""
        if folder := self._config.artifacts:
            return (Path(folder).as_uri() if folder.startswith("/") else folder) + f"/{self.name}"
        return None if has_server(self._config) else (m2m_home() / "mlartifacts" / self.name).as_uri()

    def _refuse_lost_artifacts(self, location: str) -> None:
        """An experiment's place for files is chosen when it is made, and never changes.

        Raises:
            ConfigError: it is not the one that is declared, or it is where some process was once started.
        """
        wanted = self._artifacts()
        by_chance = PurePosixPath(location).parent.name == "mlruns" and wanted is not None
        if location != wanted and (by_chance or self._config.mlflow.artifacts):
            why = "a folder that MLflow made where a command was once started" if by_chance else "not the declared one"
            raise ConfigError(
                f"MLflow's experiment {self.name} keeps its models in {location}: {why}. A place cannot be changed: "
                f"rename the experiment, which keeps its runs and models (mlflow experiments rename), and train again: "
                f"a new one is made at {wanted}"
            )

    @contextmanager
    def new_run(self, run_name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> Iterator[str]:
        """An MLflow run with its parameters, tags and installed packages; yields its id."""
        self._end_dead_runs()
        own = {_HOST: socket.gethostname(), _PROCESS: str(os.getpid())}
        with mlflow.start_run(experiment_id=self.experiment_id(), run_name=run_name, tags={**tags, **own}) as active:
            run_id = str(active.info.run_id)
            self.client.log_batch(run_id, params=[Param(key, str(value)[:6000]) for key, value in params.items()])
            installed = sorted({f"{d.metadata['Name']}=={d.version}" for d in distributions()}, key=str.lower)
            self.client.log_text(run_id, "\n".join(installed) + "\n", "environment.txt")
            yield run_id

    def log_dataset(self, run_id: str, table: str, ds: date, snapshot_id: int, series: int) -> None:
        """What a run learns from: a day of a table, as one snapshot has it."""
        source = json.dumps({"table": table, "ds": str(ds), "snapshot_id": str(snapshot_id)})
        of = Dataset(table, str(snapshot_id), "iceberg", source, profile=json.dumps({"series": series}))
        self.client.log_inputs(run_id, [DatasetInput(of, [InputTag("mlflow.data.context", "training")])])

    def _end_dead_runs(self) -> None:
        """A killed process leaves its run RUNNING for ever: those of this host whose process is gone are ended."""
        here = f"attributes.status = 'RUNNING' and tags.`{_HOST}` = '{socket.gethostname()}'"
        for run in self.client.search_runs([self.experiment_id()], here):
            if not Path("/proc", run.data.tags[_PROCESS]).exists():
                self.client.set_terminated(run.info.run_id, "KILLED")

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
        """Log the model folder in the active run, register it as a new version and call it the challenger.

        Raises:
            LostModelError: it cannot be opened; it is no challenger then.
        """
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(_LOADER),
            artifacts={"model": folder.absolute().as_uri()},
            code_paths=[str(Path(m2m_model.__file__).parent)],
            signature=_signature(self._config),
            pip_requirements=[
                # Without the local part: no index has torch 2.13.0+cpu.
                f"{d.metadata['Name']}=={d.version.split('+')[0]}"
                for d in distributions()
                if d.metadata["Name"] in (*_REQUIREMENTS, *(["lightgbm"] if (folder / _RIVALS).exists() else []))
            ],
            registered_model_name=self.name,
        )
        version = str(info.registered_model_version)
        self.client.set_model_version_tag(self.name, version, _DIGESTS, json.dumps(digests(folder)))
        opened = self._opened(version, run_id)
        self.client.set_registered_model_alias(self.name, CHALLENGER, version)
        return opened

    def log_rivals(self, run_id: str, folder: Path) -> None:
        """What the run's model is judged beside; no model version holds it."""
        self.client.log_artifacts(run_id, str(folder), _RIVALS)

    def rivals(self, run_id: str) -> Packed | None:
        """The files that ``m2m_model.rivals`` opens; None if the run has none.

        Raises:
            ValueError: the artifact store does not give it.
        """
        try:
            if not self.client.list_artifacts(run_id, _RIVALS):
                return None
            root = self.client.get_run(run_id).info.artifact_uri
            folder, _download = _at_hand(f"{root}/{_RIVALS}", root)
            return Packed.of(folder)
        except (MlflowException, OSError) as error:
            raise ValueError(f"run {run_id}: {error}") from error

    def version_of(self, alias: str) -> str | None:
        """The number of the version that an alias names; None if there is none."""
        found = self._aliased(alias)
        return str(found.version) if found else None

    def run_id_of(self, alias: str) -> str | None:
        """The MLflow run that trained it."""
        found = self._aliased(alias)
        return str(found.run_id) if found else None

    def get(self, alias: str) -> ModelVersion | None:
        """The version that an alias names, its files proven to be those that were registered; None if there is none.

        Raises:
            LostModelError: files are gone, cut or cannot be read.
            DataError: files are whole, but not those that were registered.
        """
        found = self._aliased(alias)
        return self._opened(str(found.version), str(found.run_id)) if found else None

    def version(self, number: str) -> ModelVersion:
        """A version by its number, its files proven.

        Raises:
            ConfigError: there is none.
            LostModelError, DataError: as ``get``.
        """
        try:
            found = self.client.get_model_version(self.name, number)
        except MlflowException:
            known = sorted(int(one.version) for one in self.client.search_model_versions(f"name = '{self.name}'"))
            versions = ", ".join(map(str, known[-20:])) or "none"
            raise ConfigError(f"model {self.name} has no version {plain(number)}; it has {versions}") from None
        return self._opened(str(found.version), str(found.run_id))

    def describe(self, version: ModelVersion, card: str) -> None:
        """Keep a model card where people look at a version: its description, and a file of its run."""
        self.client.update_model_version(self.name, version.version, description=card)
        self.client.log_text(version.run_id, card, "model_card.md")

    def promote(self, version: str, previous: str | None = None, run_id: str = "") -> None:
        """Make a version the champion, in place of a previous one, by a run's line of the ledger; see
        ``pipelines.life.champions``, which alone does it for good."""
        self.client.set_registered_model_alias(self.name, CHAMPION, version)
        if previous:
            try:
                self.client.set_registered_model_alias(self.name, PREVIOUS, previous)
            except MlflowException as error:
                if error.error_code != _GONE:
                    raise
                previous = None  # somebody deleted that version
        if run_id:
            if not previous:
                self.client.delete_registered_model_alias(self.name, PREVIOUS)
            self.client.set_registered_model_tag(self.name, _FOLLOWED, run_id)

    def followed(self, run_id: str) -> bool:
        """Whether the aliases were set by that run's line of the ledger."""
        return bool(self.client.get_registered_model(self.name).tags.get(_FOLLOWED) == run_id)

    def aliases(self) -> dict[str, str]:
        """Versions by the aliases that name them, whoever gave them."""
        try:
            return {alias: str(number) for alias, number in self.client.get_registered_model(self.name).aliases.items()}
        except MlflowException as error:
            if error.error_code == _GONE:
                return {}
            raise

    def made_at(self, version: str) -> datetime:
        """When a version was registered, UTC."""
        registered_ms = self.client.get_model_version(self.name, version).creation_timestamp
        return datetime.fromtimestamp(registered_ms / 1000, UTC).replace(tzinfo=None)

    def _aliased(self, alias: str) -> Any:
        try:
            return self.client.get_model_version_by_alias(self.name, alias)
        except MlflowException as error:
            if error.error_code in (_GONE, "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def _opened(self, version: str, run_id: str) -> ModelVersion:
        name = f"model {self.name} version {version}"
        mend = (
            "restore the files, give the alias to another version (docs/operations.md, 'Roll back'), or train again: "
            f"python -m pipelines.train --config {self._config.path} --date DAY"
        )
        stored = self.client.get_model_version(self.name, version).tags.get(_DIGESTS)
        if stored is None:
            raise LostModelError(
                f"{name}: registered without digests, by version 0.1 or by hand, so nobody can tell what it is; {mend}"
            )
        try:
            stored_at = self.client.get_model_version_download_uri(self.name, version)
            local, download = _at_hand(f"models:/{self.name}/{version}", stored_at)
        except (MlflowException, OSError) as error:
            raise LostModelError(f"{name}: its files are gone: {plain(error)[:300]}; {mend}") from error
        folder = local / "artifacts" / "model"
        try:
            registered = {str(file): str(digest) for file, digest in json.loads(stored).items()}
        except (ValueError, AttributeError):
            raise LostModelError(
                f"{name}: its tag {_DIGESTS} is no list of digests: {plain(stored)[:80]}; {mend}"
            ) from None
        found = digests(folder)
        if missing := sorted(registered.keys() - found.keys()):
            raise LostModelError(f"{name}: {', '.join(missing)} is not in {folder}; {mend}")
        # The loader would open some of them: nothing is opened that nobody has registered.
        if added := sorted(file for file in found.keys() - registered.keys() if not _hidden(file)):
            raise DataError(f"{name}: {plain(', '.join(added))} in {folder} was not registered; remove it, or {mend}")
        altered = sorted(file for file in registered if found[file] != registered[file])
        try:
            Forecaster.load(folder)
        except Exception as error:
            how = "it cannot be opened, though its files are those that were registered"
            if altered:
                how = f"{folder / altered[0]} is damaged"
            elif "format_version" in str(error):
                how = "it was made by another version of this code"
            raise LostModelError(f"{name}: {how}: {plain(error)[:300]}; {mend}") from error
        if altered:
            words = f"{', '.join(altered)} in {folder} is not what was registered (sha256)"
            raise DataError(f"{name}: {words}; {mend}")
        return ModelVersion(version, run_id, folder, download)


def _at_hand(uri: str, stored_at: str) -> tuple[Path, TemporaryDirectory[str] | None]:
    """Artifacts on this machine's disk: where they are stored, or else a download."""
    download = None if local_path(stored_at) else TemporaryDirectory(prefix="m2m-model-")
    found = mlflow.artifacts.download_artifacts(uri, dst_path=download.name if download else None)
    return Path(found), download


def _hidden(file: str) -> bool:
    """What a file system or its browser leaves behind, as .DS_Store; nothing opens it."""
    return any(part.startswith(".") for part in PurePosixPath(file).parts)


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file of a model folder, by its path within; none if there is no folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


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
    whole = ["horizon_days"] if len(config.dataset.horizons) > 1 else []
    named = [(DataType.string, texts), (DataType.integer, whole), (DataType.double, numbers)]
    outputs = Schema([ColSpec(kind, name) for kind, names in named for name in names])
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
