"""OpenLineage events: of a run that is made up, against the client's own classes, to a server that answers or hangs.

Those of every stage are held to the same rules in test_chain.py. OPENLINEAGE_SPEC, the folder spec/ of the OpenLineage
project, has them validated by its JSON schemas, too.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from deployment import SQL, TOML, day
from openlineage_rules import refuse_unpublished

from pipelines import events
from pipelines.config import Config, load_config
from pipelines.events import COLUMNS, COMPLETE, FAIL, Events
from pipelines.quality.judge import CheckResult
from pipelines.warehouse.tables import declared

RISK = "marts.churn_risk"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    monkeypatch.setenv("M2M_HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith(("OPENLINEAGE", "AIRFLOW_CTX"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipeline.toml").write_text(TOML)
    (tmp_path / "performance_daily.sql").write_text(SQL)
    config = load_config(tmp_path / "pipeline.toml")
    config.home.mkdir(parents=True)
    before = {*os.environ}
    yield config
    for name in {*os.environ} - before:  # the client spells one variable in another way
        del os.environ[name]


class Reading:
    """What a stage says that it reads."""

    @property
    def recorded(self) -> dict[str, int | str | None]:
        return {"marts.forecast_daily": 11, "features.advertiser_sequence": None, "model.champion": "3"}


def run_of(config: Config, made: Events, how: str = COMPLETE, message: str = "") -> str:
    """A run of score as the stage would have it; returns what is warned of."""
    made.begin()
    made.start(config, "score", "score-2024-01-03-aa", (day(2), day(2)), "0.3.0+abc")
    made.reads = Reading()
    made.staged_from("raw_day", {"files": 2, "bytes": 70, "digest": "d1"})
    columns = [(column.name, column.type, column.doc) for column in declared(RISK, config).columns]
    made.wrote(RISK, 12, columns, {"rowCount": 5, "fileCount": 2, "size": 99})
    made.registered("4")
    of = ("score-2024-01-03-aa", "score", RISK, day(2))
    made.judged([CheckResult(*of, "nan", "p50", "feed", "critical", "0", n, None, not n) for n in (0.0, 1.0)])
    return made.end(how, message)


def told_in(config: Config) -> list[dict[str, Any]]:
    (file,) = (config.home / events.FOLDER).iterdir()
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_run_tells_what_it_read_and_wrote(config: Config) -> None:
    assert run_of(config, Events()) == ""
    begun, ended = told_in(config)
    for event in (begun, ended):
        refuse_unpublished(event)
    assert (begun["eventType"], ended["eventType"]) == ("START", "COMPLETE")
    assert begun["run"]["runId"] == ended["run"]["runId"]
    assert ended["job"]["name"] == "tiny.score"
    inputs = {dataset["name"]: dataset for dataset in ended["inputs"]}
    assert {name: of["facets"]["version"]["datasetVersion"] for name, of in inputs.items()} == {
        str(config.path.parent / "raw/ds={ds}.parquet"): "d1",
        "tiny_marts.forecast_daily": "11",
        "m2m_tiny": "3",
    }
    risk, model = ended["outputs"]
    assert (risk["name"], risk["facets"]["version"]["datasetVersion"]) == ("tiny_marts.churn_risk", "12")
    assert risk["namespace"] == f"file://{config.home}/warehouse"
    assert {"rowCount": 5, "fileCount": 2, "size": 99}.items() <= risk["outputFacets"]["outputStatistics"].items()
    (assertion,) = risk["facets"]["dataQualityAssertions"]["assertions"]
    assert assertion == {"assertion": "nan", "success": False, "severity": "error", "column": "p50"}
    assert model["facets"]["version"]["datasetVersion"] == "4"
    tags = {tag["key"]: tag["value"] for tag in ended["run"]["facets"]["tags"]["tags"]}
    assert tags == {"run-id": "score-2024-01-03-aa", "code-version": "0.3.0+abc", "config-hash": config.hash}


def test_a_facet_that_is_not_as_published_is_refused(config: Config) -> None:
    run_of(config, Events())
    event = told_in(config)[1]
    for spoil in (
        lambda e: e["run"].pop("runId"),
        lambda e: e["run"].update(runId="score-2024"),
        lambda e: e["outputs"][0].pop("namespace"),
        lambda e: e["outputs"][0]["facets"]["version"].pop("datasetVersion"),
        lambda e: e["outputs"][0]["outputFacets"]["outputStatistics"].update(rowCount="5"),
        lambda e: e["outputs"][0]["facets"]["schema"]["fields"][0].pop("name"),
        lambda e: e["run"]["facets"]["tags"]["tags"][0].update(colour="red"),
        lambda e: e.update(eventType="DONE"),
    ):
        spoilt = json.loads(json.dumps(event))
        spoil(spoilt)
        with pytest.raises((AssertionError, TypeError, ValueError, LookupError)):
            refuse_unpublished(spoilt)


@pytest.mark.parametrize("table", sorted(COLUMNS))
def test_columns_are_said_to_come_from_columns_that_there_are(config: Config, table: str) -> None:
    source, made = COLUMNS[table]
    ours, theirs = ({column.name for column in declared(name, config).columns} for name in (table, source))
    assert made.keys() == ours - {"run_id"}
    assert {name for fields, _ in made.values() for name in fields} <= theirs


def test_no_secret_and_no_control_character_leaves(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.errors import hide

    hide("hunter22", "${PASSWORD}")
    run_of(config, Events(), FAIL, "cannot open x://me:hunter22@host\x1b[2J\nsecond line")
    text = json.dumps(told_in(config))
    assert "hunter22" not in text
    error = told_in(config)[1]["run"]["facets"]["errorMessage"]
    assert error["message"] == "cannot open x://me:${PASSWORD}@host\\x1b[2J\\nsecond line"


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("postgresql://me:word@host:5432/db?sslkey=k", "postgresql://host:5432/db"),
        ("postgresql://me:wo/r#d@host/db?mail=a@b", "postgresql://host/db"),
        ("sqlserver://host:1433;user=me;password=word", "sqlserver://host:1433"),
        ("oracle:thin:me/word@//host:1521/x", "//host:1521/x"),
        ("https://catalog/v1/#x", "https://catalog/v1"),
        ("s3://key:word@bucket/a@b", "s3://bucket/a@b"),
        ("abfss://container@account.dfs.core.windows.net/x", "abfss://container@account.dfs.core.windows.net/x"),
        ("/data/ware house", "file:///data/ware house"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
    ],
)
def test_an_address_is_told_without_who_opens_it(uri: str, told: str) -> None:
    assert events._address(uri) == told


@pytest.mark.parametrize("by", ["airflow", "parent"])
def test_the_run_that_started_it_is_named(config: Config, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    parent = "01941f29-7c00-7087-8906-40e512c257bd"
    if by == "parent":
        monkeypatch.setenv("OPENLINEAGE_PARENT_ID", f"my/space/a.job/{parent}")
    else:
        for key in ("DAG_ID", "DAG_RUN_ID", "TASK_ID", "TRY_NUMBER"):
            monkeypatch.setenv(f"AIRFLOW_CTX_{key}", key.lower())
    run_of(config, Events())
    event = told_in(config)[0]
    refuse_unpublished(event)
    found = event["run"]["facets"]["parent"]
    assert found["job"]["name"] == ("space/a.job" if by == "parent" else "dag_id.task_id")
    assert by != "parent" or found["run"]["runId"] == parent


def test_disabled_is_disabled(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    assert run_of(config, Events()) == ""
    assert not (config.home / events.FOLDER).exists()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """An endpoint on this machine; with ``hang`` set it takes what it gets and does not answer."""

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.got.append(json.loads(body))  # type: ignore[attr-defined]
            self.server.let_go.wait(20)  # type: ignore[attr-defined]
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    made = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    made.got, made.let_go = [], threading.Event()  # type: ignore[attr-defined]
    made.daemon_threads = True
    threading.Thread(target=made.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{made.server_port}")
    yield made
    made.let_go.set()  # type: ignore[attr-defined]
    made.shutdown()


def test_the_client_sends_where_it_is_told_to(config: Config, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "WAIT_S", 60.0)
    server.let_go.set()
    assert run_of(config, Events()) == ""
    assert [event["eventType"] for event in server.got] == ["START", "COMPLETE"]
    sent, kept = server.got[1], told_in(config)[1]
    assert sent["outputs"][0] == kept["outputs"][0]
    assert sent["run"]["runId"] == kept["run"]["runId"]


def test_an_endpoint_that_hangs_costs_a_moment_once(
    config: Config, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "WAIT_S", 0.2)
    made = Events()
    begun = time.monotonic()
    assert run_of(config, made) == "no answer in 0 s"
    assert run_of(config, made) == ""  # not asked again
    assert time.monotonic() - begun < 10
    assert [event["eventType"] for event in told_in(config)] == ["START", "COMPLETE"] * 2


def test_what_is_wrong_with_an_event_stops_no_stage(config: Config) -> None:
    made = Events()
    made.start(config, "score", "r", (day(2), day(2)), "x")
    made.staged_from("no such source", {"files": 1})
    assert made.end(COMPLETE).startswith("StopIteration")
    assert [event["eventType"] for event in told_in(config)] == ["START", "COMPLETE"]
    made.begin()
    assert made.end(COMPLETE) == ""


def test_a_transport_that_cannot_be_is_said(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "WAIT_S", 60.0)
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "pigeon")
    assert "pigeon" in run_of(config, Events())
