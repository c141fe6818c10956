"""OpenLineage events of every run of a stage: what it read and wrote, by snapshot, and how it ended.

Each is a line of HOME/openlineage/DAY.ndjson. Where the official client is configured, in its own ways (OPENLINEAGE_URL
or another of its variables, openlineage.yml), it sends them too, with its own transports, beside the work: an endpoint
that hangs or fails is waited for at most once, and said in one warning. OPENLINEAGE_DISABLED=true: no events at all.
Events are plain dicts as the published schema has them; the client takes longer to import than all of this takes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol

from pipelines.chain import MODEL
from pipelines.config import SPARK_STAGES, Config
from pipelines.errors import hide, plain
from pipelines.paths import SCHEMES

if TYPE_CHECKING:
    from pipelines.source_config import Source

FOLDER = "openlineage"
START, COMPLETE, FAIL, ABORT = "START", "COMPLETE", "FAIL", "ABORT"
WAIT_S = 5.0  # for an endpoint, when the stage has ended
_SPEC = "https://openlineage.io/spec"
_CORE = f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"
_OURS = ("eventType", "eventTime", "producer", "_producer", "schemaURL", "_schemaURL", "runId")
# As published with the core's version; by the name that the facet has in an event.
_FACETS = {
    "nominalTime": "1-0-1/NominalTimeRunFacet",
    "parent": "1-2-0/ParentRunFacet",
    "processing_engine": "1-1-1/ProcessingEngineRunFacet",
    "tags": "1-0-0/TagsRunFacet",
    "errorMessage": "1-0-1/ErrorMessageRunFacet",
    "jobType": "2-0-4/JobTypeJobFacet",
    "version": "1-0-1/DatasetVersionDatasetFacet",
    "schema": "1-2-0/SchemaDatasetFacet",
    "columnLineage": "1-2-0/ColumnLineageDatasetFacet",
    "dataQualityAssertions": "1-1-0/DataQualityAssertionsDatasetFacet",
    "inputStatistics": "1-0-0/InputStatisticsInputDatasetFacet",
    "outputStatistics": "1-0-2/OutputStatisticsOutputDatasetFacet",
}
# Of tables that our own SQL makes from one other: each column, those of the other that it is made from, and how.
COLUMNS: dict[str, tuple[str, dict[str, tuple[tuple[str, ...], str]]]] = {
    "marts.churn_risk": (
        "marts.forecast_daily",
        {name: ((name,), "IDENTITY") for name in ("ds", "bucket", "advertiser_id", "scenario_id", "horizon_days")}
        | {"probability": (("p_zero",), "AGGREGATION"), "value_at_risk": (("p_zero", "mean"), "AGGREGATION")},
    )
}


class Planned(Protocol):
    """What a stage reads: see ``pins.Reads``."""

    @property
    def recorded(self) -> dict[str, int | str | None]: ...


class Judged(Protocol):
    """What is told of a check: see ``judge.CheckResult``."""

    @property
    def table(self) -> str: ...
    @property
    def check(self) -> str: ...
    @property
    def column(self) -> str | None: ...
    @property
    def severity(self) -> str: ...
    @property
    def passed(self) -> bool: ...


Given = ParamSpec("Given")


def _harmless(note: Callable[Concatenate[Events, Given], None]) -> Callable[Concatenate[Events, Given], None]:
    """Whatever is wrong with an event, the stage goes on; `end` tells of it."""

    def noting(self: Events, /, *args: Given.args, **kwargs: Given.kwargs) -> None:
        try:
            note(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - what a stage does is not about its events
            self.fault = self.fault or f"{type(error).__name__}: {error}"[:300]

    return noting


class Events:
    """The events of the command that runs."""

    def __init__(self) -> None:
        self._away = False  # an endpoint that did not answer is not waited for again by this process
        self.begin()

    def begin(self) -> None:
        """A command starts; of which run is not known yet, and most have none."""
        self.reads: Planned | None = None
        self.fault = ""
        self._config: Config | None = None
        self._outputs, self._sources = dict[str, dict[str, Any]](), dict[str, dict[str, Any]]()
        self._assertions = dict[str, list[dict[str, Any]]]()
        self._waiting, self._sender = list[str](), None

    _sender: _Sender | None

    @_harmless
    def start(self, config: Config, stage: str, run_id: str, days: tuple[date, date], code: str) -> None:
        """A run of a stage starts."""
        if os.environ.get("OPENLINEAGE_DISABLED", "").lower() in ("true", "1"):
            return
        self._config, producer = config, f"urn:m2m-forecasting:{version('m2m-forecasting')}"
        self._producer = producer
        first, last = (f"{day}T00:00:00Z" for day in (days[0], days[1] + timedelta(days=1)))
        engine = "spark" if stage in SPARK_STAGES else "python"
        of_engine = version("pyspark") if engine == "spark" else platform.python_version()
        tags = {"run-id": run_id, "code-version": code}
        with contextlib.suppress(OSError):  # a SQL file that is not there is told by the stage
            tags["config-hash"] = config.hash
        facets = self._facets(
            nominalTime={"nominalStartTime": first, "nominalEndTime": last},
            processing_engine={"name": engine, "version": of_engine, "openlineageAdapterVersion": code},
            tags={"tags": [{"key": key, "value": value, "source": "M2M"} for key, value in tags.items()]},
        )
        if parent := _parent():
            facets |= self._facets(parent=parent)
        self._run: dict[str, Any] = {"runId": _uuid(run_id), "facets": facets}
        kind = {"processingType": "BATCH", "integration": "M2M", "jobType": "TASK"}
        self._job = {
            "namespace": os.environ.get("OPENLINEAGE_NAMESPACE") or "m2m",
            "name": f"{config.dataset.name}.{stage}",
            "facets": self._facets(jobType=kind),
        }
        if _is_configured() and not self._away:
            self._sender = _Sender()
        self._emit(START, self._run)

    @_harmless
    def wrote(
        self, table: str, snapshot_id: int, columns: Iterable[tuple[str, str, str]], figures: Mapping[str, int]
    ) -> None:
        """A table was committed: its columns with types and meanings; rows, files, and bytes where they are known."""
        if self._config is None:
            return
        fields = [{"name": name, "type": kind, "description": doc} for name, kind, doc in columns]
        more: dict[str, Any] = {"schema": {"fields": fields}}
        if table in COLUMNS:
            source, made = COLUMNS[table]
            more["columnLineage"] = {"fields": _columns(self._place(source), made)}
        told = self._dataset(*self._place(table), str(snapshot_id), **more)
        told["outputFacets"] = self._facets(outputStatistics=dict(figures))
        self._outputs[table] = told

    @_harmless
    def registered(self, number: str) -> None:
        """A model version was registered."""
        if self._config is not None:
            self._outputs[MODEL] = self._dataset(*self._model(), number)

    @_harmless
    def staged_from(self, name: str, of: Mapping[str, Any]) -> None:
        """A source was read: files, bytes and their digest; or a table of another system."""
        if self._config is None:
            return
        source = next(source for source in self._config.source if source.name == name)
        told = self._dataset(*_source_place(self._config, source), of.get("digest"))
        if "files" in of:
            told["inputFacets"] = self._facets(inputStatistics={"fileCount": of["files"], "size": of["bytes"]})
        self._sources[name] = told

    @_harmless
    def judged(self, results: Sequence[Judged]) -> None:
        """Checks of what a run wrote: each once a table, whatever the days and scenarios."""
        passed: dict[tuple[str, str, str | None, str], bool] = {}
        for one in results:
            if one.severity != "info":
                key = (one.table, one.check, one.column, "error" if one.severity == "critical" else "warn")
                passed[key] = passed.get(key, True) and one.passed
        for (table, check, column, severity), success in passed.items():
            told = {"assertion": check, "success": success, "severity": severity}
            self._assertions.setdefault(table, []).append(told | ({"column": column} if column else {}))

    def end(self, how: str, message: str = "") -> str:
        """The run has ended; returns a warning, empty where every event went where it should."""
        if self._config is not None:
            self._end(how, message)
        self._config, sender = None, self._sender
        words = sender.done() if sender else ""
        self._away = self._away or bool(words)
        return words or self.fault

    @_harmless
    def _end(self, how: str, message: str) -> None:
        run = self._run
        if message:
            error = {"message": message[:4000], "programmingLanguage": "python"}
            run = run | {"facets": run["facets"] | self._facets(errorMessage=error)}
        for table, assertions in self._assertions.items():
            if table in self._outputs:
                self._outputs[table]["facets"] |= self._facets(dataQualityAssertions={"assertions": assertions})
        self._emit(how, run)

    def _emit(self, how: str, run: Mapping[str, Any]) -> None:
        assert self._config is not None
        now = datetime.now(UTC)
        event = {
            "eventType": how,
            "eventTime": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "producer": self._producer,
            "schemaURL": _CORE,
            "run": run,
            "job": self._job,
            "inputs": [*self._sources.values(), *self._inputs()],
            "outputs": list(self._outputs.values()),
        }
        event = _plain(event)
        self._waiting.append(json.dumps(event, ensure_ascii=False) + "\n")
        with contextlib.suppress(OSError):  # as a log: a stage does not fail for it, and no home is made for it
            if self._config.home.is_dir():
                folder = self._config.home / FOLDER
                folder.mkdir(exist_ok=True)
                lines, self._waiting = "".join(self._waiting), []
                with (folder / f"{now:%Y-%m-%d}.ndjson").open("ab", buffering=0) as file:
                    file.write(lines.encode(errors="backslashreplace"))  # at once: runs write beside each other
        if self._sender:
            self._sender.send(event)

    def _inputs(self) -> list[dict[str, Any]]:
        recorded = self.reads.recorded if self.reads else {}
        there = {name: str(value) for name, value in recorded.items() if value is not None}
        models = dict.fromkeys(value for name, value in there.items() if name.startswith(MODEL))
        tables = [(self._place(name), value) for name, value in there.items() if not name.startswith(MODEL)]
        return [self._dataset(*place, value) for place, value in [*tables, *((self._model(), v) for v in models)]]

    def _place(self, table: str) -> tuple[str, str]:
        """Namespace and name of a table."""
        assert self._config is not None
        properties = self._config.catalog_properties
        uri = str(properties.get("uri", ""))
        place = uri if uri.startswith(("http", "thrift")) else str(properties.get("warehouse") or uri)
        return _address(place), f"{self._config.namespace_prefix}{table}"

    def _model(self) -> tuple[str, str]:
        assert self._config is not None
        return _address(self._config.mlflow_uri), self._config.model_name

    def _dataset(self, namespace: str, name: str, snapshot: str | None, **facets: Any) -> dict[str, Any]:
        own = ({"version": {"datasetVersion": snapshot}} if snapshot else {}) | facets
        return {"namespace": namespace, "name": name, "facets": self._facets(**own)}

    def _facets(self, **facets: Any) -> dict[str, Any]:
        return {
            name: {"_producer": self._producer, "_schemaURL": _schema(name), **facet} for name, facet in facets.items()
        }


class _Sender:
    """The client in a thread of its own, which gets events in their order."""

    def __init__(self) -> None:
        self._queue = SimpleQueue[dict[str, Any] | None]()
        self._fault = ""
        self._thread = threading.Thread(target=self._work, name="openlineage", daemon=True)
        self._thread.start()

    def send(self, event: dict[str, Any]) -> None:
        self._queue.put(event)

    def done(self) -> str:
        """Wait a while for what is left; returns what went wrong, in words."""
        self._queue.put(None)
        self._thread.join(WAIT_S)
        if self._thread.is_alive():
            return f"no answer in {WAIT_S:.0f} s"
        return self._fault

    def _work(self) -> None:
        try:
            for name in ("openlineage", "urllib3.connectionpool"):
                logging.getLogger(name).setLevel(logging.CRITICAL)  # what they would say is in our one warning
            from openlineage.client import OpenLineageClient
            from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState

            client = OpenLineageClient()
            while event := self._queue.get():
                run, job = event["run"], event["job"]
                client.emit(
                    RunEvent(
                        eventType=RunState(event["eventType"]),
                        eventTime=event["eventTime"],
                        producer=event["producer"],
                        run=Run(run["runId"], run["facets"] | {"tags": _tags(run["facets"]["tags"])}),
                        job=Job(job["namespace"], job["name"], job["facets"]),
                        inputs=[InputDataset(**dataset) for dataset in event["inputs"]],
                        outputs=[OutputDataset(**dataset) for dataset in event["outputs"]],
                    )
                )
            client.close(WAIT_S)
        except Exception as error:  # noqa: BLE001 - of whatever transport: a stage does not fail for it
            self._fault = plain(f"{type(error).__name__}: {error}")[:300]


def _tags(facet: Mapping[str, Any]) -> Any:
    """The one facet that the client looks into, for tags of the user's own beside it."""
    from openlineage.client.facet_v2 import tags_run

    tags = [tags_run.TagsRunFacetFields(**tag) for tag in facet["tags"]]
    return tags_run.TagsRunFacet(tags=tags, producer=facet["_producer"])


def _is_configured() -> bool:
    """Whether the client would find a transport of the user's; and no key of its is shown from now on."""
    given = {name: value for name, value in os.environ.items() if name.startswith("OPENLINEAGE_")}
    for name, value in given.items():
        if re.search("KEY|TOKEN|AUTH|PASSWORD", name):
            hide(value, f"${{{name}}}")
    if found := re.search(r"//[^/@]*:([^/@]+)@", given.get("OPENLINEAGE_URL", "")):
        hide(found[1], "***")
    places = [Path("openlineage.yml"), Path.home() / ".openlineage" / "openlineage.yml"]
    named = any(name in ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG") or "__TRANSPORT" in name for name in given)
    return named or any(place.is_file() for place in places)


def _parent() -> dict[str, Any] | None:
    """The run that started this one: as OPENLINEAGE_PARENT_ID has it, or Airflow's task."""
    if given := os.environ.get("OPENLINEAGE_PARENT_ID"):
        namespace, _, rest = given.partition("/")
        name, _, run_id = rest.rpartition("/")
        with contextlib.suppress(ValueError):
            return {"run": {"runId": str(uuid.UUID(run_id))}, "job": {"namespace": namespace, "name": name}}
    named = [os.environ.get(f"AIRFLOW_CTX_{key}", "") for key in ("DAG_ID", "DAG_RUN_ID", "TASK_ID", "TRY_NUMBER")]
    dag, dag_run, task, attempt = named
    if not (dag and dag_run and task):
        return None
    return {
        "run": {"runId": _uuid(f"airflow/{dag}/{dag_run}/{task}/{attempt}")},
        "job": {"namespace": "airflow", "name": f"{dag}.{task}"},
        "root": {
            "run": {"runId": _uuid(f"airflow/{dag}/{dag_run}")},
            "job": {"namespace": "airflow", "name": dag},
        },
    }


def _uuid(name: str) -> str:
    """The same for the same run."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"urn:m2m-forecasting:{name}"))


def _schema(facet: str) -> str:
    place = _FACETS[facet]
    return f"{_SPEC}/facets/{place}.json#/$defs/{place.partition('/')[2]}"


def _columns(place: tuple[str, str], made: Mapping[str, tuple[tuple[str, ...], str]]) -> dict[str, dict[str, Any]]:
    return {
        column: {
            "inputFields": [
                {
                    "namespace": place[0],
                    "name": place[1],
                    "field": field,
                    "transformations": [{"type": "DIRECT", "subtype": how}],
                }
                for field in fields
            ]
        }
        for column, (fields, how) in made.items()
    }


def _source_place(config: Config, source: Source) -> tuple[str, str]:
    """Namespace and name of a source; its path as pipeline.toml has it, references and placeholders with it."""
    options = {key.lower(): str(text) for key, text in source.options.items()}
    if source.format == "jdbc":
        return _address(options["url"].removeprefix("jdbc:")), options.get("dbtable") or f"{source.name} (a query)"
    path = str(source.path)
    if source.format == "table":
        return "spark", path or source.name
    scheme, _, rest = path.partition("://")
    if rest and scheme != "file":
        head, _, below = _address(path).removeprefix(f"{scheme}://").partition("/")
        return f"{scheme}://{head}", below
    if path.startswith("{home}"):
        return "file", path.replace("{home}", str(config.home), 1)
    return "file", str(config.path.parent / (rest or path))


def _address(uri: str) -> str:
    """An address without who opens it, or how. Of files, what stands before an @ may be a container."""
    scheme, colon, rest = uri.partition("://")
    if not colon:
        return f"file://{uri}" if uri.startswith("/") else uri.rpartition("@")[2]
    if scheme in SCHEMES:
        head, slash, below = rest.partition("/")
        who, _, host = head.rpartition("@")
        return f"{scheme}://{host if ':' in who else head}{slash}{below}".rstrip("/")
    place = rest.partition("?")[0].rpartition("@")[2]
    return f"{scheme}://{re.split('[#;]', place, maxsplit=1)[0]}".rstrip("/")


def _plain(value: Any) -> Any:
    """Every text in it that comes from outside as it may be printed."""
    if isinstance(value, dict):
        return {key: inner if key in _OURS else _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return plain(value) if isinstance(value, str) else value


EVENTS = Events()
