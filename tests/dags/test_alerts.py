"""Alerts, really sent by Airflow's notifiers: to an SMTP server and to a webhook of this process."""

from __future__ import annotations

import email
import email.policy
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from aiosmtpd.controller import Controller
from deployment import SQL, TOML

from pipelines.config import load_config
from pipelines.warehouse.commits import Warehouse

Ask = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
TOKEN = "token-of-the-deployment"
ALERTS = """
[alerts]
mail = ["oncall@example.com"]
chat = ["${CHAT_URL}"]
console = "http://console.example:8501"
report = "http://reports.example/{date}.html"
"""
SUBMIT = """#!/bin/sh
cat "$STAGE_SAYS"
exit $(cat "$STAGE_ENDS")
"""
SAYS = """26/11/26 05:00:01 INFO SparkContext: Running
stage_sources 2024-01-05: 4 files
data error, nothing was published:
  staged.performance_daily ds=2024-01-05: negative spend: found 2; expected at least 0. First: {{ conn.smtp_default }}
"""
FAILED = "FAILED advertiser_sequences.stage_sources, try 1: data failed a check; nothing was published"
RUNS = """
import os
from pathlib import Path
import advertiser_sequences
assert advertiser_sequences.dag.deadline
advertiser_sequences.dag.deadline = None  # dag.test() fails with one, in Airflow 3.3.2
def run(day, status):
    Path(os.environ["STAGE_ENDS"]).write_text(str(status))
    done = advertiser_sequences.dag.test(run_conf={"date": day})
    return done.run_id, {i.task_id: i.state for i in done.get_task_instances()}
"""
# A run that is late, one that has failed before, and one of a day that nobody waits for; a run's page of the console.
ELSE = """
import sys
sys.path.append(%r)
from urllib.parse import quote
import alerts, m2m_console
from fastapi.testclient import TestClient
for state, day in (("running", "2024-01-07"), ("failed", "2024-01-07"), ("queued", "2023-11-07")):
    run_of_day = {"dag_id": "advertiser_forecasts", "dag_run_id": "scheduled__x", "state": state, "conf": {}}
    times = {"queued_at": "2024-01-08T05:00:00Z", "start_date": None, "partition_key": day}
    alerts.late(context={"dag_run": run_of_day | times}, hours=4)
pages = TestClient(m2m_console.app)
def console(run_id):
    return pages.get(f"/console/advertiser_sequences/{quote(run_id)}", follow_redirects=False).headers["location"]
found = [console(run_id) for run_id in (runs[0][0], "none")]
with open(os.environ["M2M_CONFIG"], "a") as config:
    config.write("[broken")
runs.append(run("2024-01-07", 2))
answer([[states for _, states in runs], found])
"""


@contextmanager
def mailbox(port: int) -> Iterator[list[email.message.EmailMessage]]:
    """An SMTP server: what it got."""
    got: list[email.message.EmailMessage] = []

    class Keep:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            message = email.message_from_bytes(envelope.content, policy=email.policy.default)
            assert isinstance(message, email.message.EmailMessage)
            got.append(message)
            return "250 kept"

    server = Controller(Keep(), hostname="127.0.0.1", port=port)
    server.start()
    try:
        yield got
    finally:
        server.stop()


@contextmanager
def webhook() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """A server that takes JSON: its port, and what it got."""
    got: list[dict[str, Any]] = []

    class Keep(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Keep)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, got
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def stands_for_spark(tmp_path: Path, airflow_env: dict[str, str]) -> dict[str, str]:
    """Variables with which every stage says, and ends, what a test wants: that is all that Airflow sees of one."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "spark-submit").write_text(SUBMIT)
    (tmp_path / "bin" / "spark-submit").chmod(0o755)
    (tmp_path / "said").write_text(SAYS)
    (tmp_path / "ends").write_text("0")
    own = {"STAGE_SAYS": str(tmp_path / "said"), "STAGE_ENDS": str(tmp_path / "ends")}
    return own | {"PATH": f"{tmp_path / 'bin'}:{airflow_env['PATH']}"}


@pytest.fixture
def variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stands_for_spark: dict[str, str]) -> dict[str, str]:
    """Of a deployment with a warehouse that has a warning of 2024-01-05."""
    (tmp_path / "pipeline.toml").write_text(TOML + ALERTS)
    (tmp_path / "performance_daily.sql").write_text(SQL)
    monkeypatch.setenv("M2M_HOME", str(tmp_path / "home"))
    warehouse = Warehouse(load_config(tmp_path / "pipeline.toml"))
    warning = {
        "ds": date(2024, 1, 5), "run_id": "r", "stage": "stage_sources", "table": "source raw_day",
        "check": "half_written", "column": None, "scenario": None, "severity": "warning",
        "expected": "no file that is being written", "found": 1.0, "example": "a.tmp", "passed": False,
    }  # fmt: skip
    schema = warehouse.arrow_schema("ops.validation")
    rows = pl.DataFrame([warning], schema_overrides={"column": pl.String, "scenario": pl.String})
    warehouse.append("ops.validation", rows.select(schema.names).to_arrow(), {"run-id": "r"})
    return stands_for_spark | {"M2M_CONFIG": str(tmp_path / "pipeline.toml"), "M2M_HOME": str(tmp_path / "home")}


def test_an_incident_is_one_message_and_its_end_another(
    ask: Ask, variables: dict[str, str], free_port: Callable[[], int]
) -> None:
    with mailbox(smtp := free_port()) as mails, webhook() as (http, chats):
        variables["CHAT_URL"] = f"json://127.0.0.1:{http}/{TOKEN}"
        connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": smtp}
        connection["extra"] = {"disable_ssl": True, "disable_tls": True, "from_email": "m2m@example.com"}
        variables["AIRFLOW_CONN_SMTP_DEFAULT"] = json.dumps(connection)
        steps = [("2024-01-05", 3), ("2024-01-05", 3), ("2024-01-05", 0), ("2024-01-06", 0)]
        code = f"{RUNS}\nruns = [run(*step) for step in {steps}]\n{ELSE % str(ROOT / 'plugins')}"
        (states, pages), printed = ask(code, M2M_CONSOLE_URL="http://console.example:8501", **variables)
    assert [state["stage_sources"] for state in states] == ["failed", "failed", "success", "success", "failed"]
    assert pages == [
        "http://console.example:8501/?date=2024-01-05&page=checks",
        "http://console.example:8501/?page=checks",
    ]
    subjects = [message["Subject"] for message in mails]
    assert subjects == [chat["title"] for chat in chats]
    assert subjects == [
        f"M2M tiny 2024-01-05: {FAILED}",
        "M2M tiny 2024-01-05: over: advertiser_sequences.stage_sources works again",
        "M2M tiny 2024-01-05: warning of stage_sources: source raw_day: half_written",
        "M2M tiny 2024-01-06: over: warning of stage_sources: source raw_day: half_written",
        "M2M tiny 2024-01-07: advertiser_forecasts is late, not done 4 h after it was queued",
        # Of a file that cannot be read, those are told that it named before.
        f"M2M tiny 2024-01-07: {FAILED.partition(':')[0]}: wrong use or configuration",
    ]
    assert {message["To"] for message in mails} == {"oncall@example.com"}
    failed, over, warned, _, late, _ = (chat["message"] for chat in chats)
    for words in (
        "| staged.performance_daily ds=2024-01-05: negative spend: found 2",
        "First: {{ conn.smtp_default }}",  # of the data: no template
        f"by hand: python -m pipelines.stage_sources --config {variables['M2M_CONFIG']} --date 2024-01-05",
        "what to do: docs/operations.md#exit-3-data",
        "run: http://localhost:8080/dags/advertiser_sequences/runs/",
        "report: http://reports.example/2024-01-05.html",
        "console: http://console.example:8501/?date=2024-01-05&page=checks",
    ):
        assert words in failed
    assert "SparkContext" not in failed
    assert "python -m pipelines.status --date 2024-01-07" in late
    assert "over: FAILED advertiser_sequences.stage_sources" in over
    assert "half_written: found 1; expected no file that is being written. First: a.tmp" in warned
    html = mails[0].get_body(("html",))
    assert html is not None
    assert '<a href="http://reports.example/2024-01-05.html">' in html.get_content()
    assert TOKEN not in printed
