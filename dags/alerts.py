"""Who is told of an incident: one message, by Airflow's own notifiers, where ``[alerts]`` of pipeline.toml says so.

A task that failed for good, or works again, tells by its callbacks (``stages.py``). What nobody notices because no task
failed is found by ``python -m pipelines.incidents``, the last task of each DAG. A daily run that is late is told by
Airflow's deadline. What has been told is kept in Airflow Variables, one a task, so that the same cause is not told
twice, and its end is.
"""

from __future__ import annotations

import hashlib
import html
import importlib
import json
import logging
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, Variable
from airflow.sdk.configuration import conf
from airflow.sdk.definitions.callback import SyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.sdk.log import mask_secret

log = logging.getLogger(__name__)

APPLICATION = Path(__file__).resolve().parents[1] / "pipelines" / "__main__.py"
GUIDE = "docs/operations.md"
TOLD, CHANNELS = "m2m_told", "m2m_alerts"  # Variables: what each task has told, and [alerts] as it was last read
FAILED, NOTICED = "failed", "noticed"
REPEAT = timedelta(hours=20)  # a cause is told again after it: each day that goes on failing, not each of a backfill
UNREADABLE = (KeyError, OSError, ValueError, TypeError, AttributeError)  # what a wrong pipeline.toml may raise here
OLD = timedelta(days=3)  # nobody waits for a run of a day that long ago
WRONG_USE = 2  # an exit status that comes again
LINES, LENGTH = 25, 400  # of a message


@dataclass(frozen=True)
class Settings:
    """``[alerts]``, with the values of now."""

    name: str = ""
    mail: tuple[str, ...] = ()
    chat: tuple[str, ...] = ()
    deadline_hours: int = 4
    console: str = ""
    report: str = ""

    @property
    def anybody(self) -> bool:
        return bool(self.mail or self.chat)


def pipeline_toml(file: str | Path = "") -> dict[str, Any]:
    """A pipeline.toml as it stands, the deployment's unless another is named. The stages say what is wrong with one
    that cannot be read; here that is one of ``UNREADABLE``."""
    return tomllib.loads(Path(file or os.environ["M2M_CONFIG"]).read_text(encoding="utf-8-sig"))


def declared() -> dict[str, Any]:
    """``[alerts]`` as it stands in the file."""
    whole = pipeline_toml()
    table = {**whole.get("alerts", {}), "name": whole["dataset"]["name"]}
    settings(table)
    return table


def settings(table: dict[str, Any] | None = None) -> Settings:
    """Whom to tell. A file that cannot be read is an incident too: then those that it named when it last could."""
    if table is None:
        try:
            table = declared()
        except UNREADABLE:
            table = Variable.get(CHANNELS, default={}, deserialize_json=True)
    known = {key: value for key, value in table.items() if key in Settings.__annotations__}
    for key in ("mail", "chat"):
        known[key] = tuple(filter(None, (resolved(address, key) for address in known.get(key, ()))))
    for key in ("console", "report"):
        known[key] = resolved(known.get(key, ""), key)
    known["console"] = known["console"] or os.environ.get("M2M_CONSOLE_URL", "")
    for address in known["chat"]:
        mask_secret(address)
    return Settings(**known)


def resolved(text: str, key: str) -> str:
    """``${NAME}`` with the values of now, as the stages do; nothing where one is not set."""

    def value(found: re.Match[str]) -> str:
        return os.environ[found[1]] if found[1] else "${"

    try:
        return re.sub(r"\$\$\{|\$\{(\w+)\}", value, text)
    except KeyError as error:
        log.error("[alerts] %s: the environment variable %s is not set", key, error)
        return ""


def send(title: str, lines: Iterable[str], to: Settings, context: Any) -> None:
    """One message to everybody.

    Raises:
        AirflowException: it reached nobody. What one channel took is told.
    """
    lines = [line if len(line) <= LENGTH else f"{line[:LENGTH]}..." for line in lines]
    text = "\n".join(lines[:LINES] + ([f"... and {len(lines) - LINES} lines more"] if len(lines) > LINES else []))
    faults, arrived = [], False
    for channel, notify in (("mail", mail), ("chat", chat)):
        if addresses := getattr(to, channel):
            try:
                notify(addresses, title, text, context)
                arrived = True
                log.info("told by %s: %s", channel, title)
            except Exception as error:  # noqa: BLE001 - whatever it is, the other channel is tried
                faults.append(f"{channel}: {type(error).__name__}: {error}")
    for fault in faults:
        log.error("an alert did not arrive by %s", fault)
    if not arrived:
        raise AirflowException(f"an alert arrived nowhere: {title}; {'; '.join(faults)}")


# notify() itself, not the notifier's call: that renders templates, and what stands in data would be one.
def mail(to: tuple[str, ...], title: str, text: str, context: Any) -> None:
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier  # not where DAG files are only parsed

    body = re.sub(r"https?://[^\s<]+", r'<a href="\g<0>">\g<0></a>', html.escape(text))
    SmtpNotifier(to=list(to), subject=title, html_content=f"<pre>{body}</pre>").notify(context)


def chat(to: tuple[str, ...], title: str, text: str, context: Any) -> None:
    from airflow.providers.apprise.notifications.apprise import AppriseNotifier

    apprise: Any = importlib.import_module("apprise")
    services: Any = [apprise.Apprise.instantiate(address) for address in to]
    if not all(services):
        raise ValueError("an address of [alerts] chat is none that Apprise knows")
    kind = apprise.NotifyType.WARNING
    with apprise.LogCapture(level=logging.WARNING, fmt="%(message)s") as said:  # it says failures to its log alone
        notifier: Any = AppriseNotifier(body=text, title=title, config=services, notify_type=kind)
        notifier.notify(context)
        if failed := said.getvalue():
            raise ConnectionError(failed.strip())


def links(to: Settings, day: str, page: str, run: str) -> list[str]:
    """Where to look: the run, and pages that the settings name."""
    found = {"run": run, "report": to.report.replace("{date}", day)}
    found["console"] = f"{to.console.rstrip('/')}/?date={day}&page={page}" if to.console else ""
    return [f"  {name}: {url}" for name, url in found.items() if url]


def fingerprint(words: Iterable[str]) -> str:
    """What makes two failures the same: their words, whatever day, count, id or file they name."""
    plain = (re.sub(r"\S*\d\S*", "#", line) for line in words)
    return hashlib.sha256("\n".join(plain).encode()).hexdigest()[:12]


class Memory:
    """What one task has told and is not over, by cause."""

    def __init__(self, context: Any, kind: str) -> None:
        self.name = f"{TOLD}.{kind}.{context['ti'].dag_id}.{context['ti'].task_id}"
        self.told: dict[str, dict[str, Any]] = Variable.get(self.name, default={}, deserialize_json=True)

    def keep(self) -> None:
        Variable.set(self.name, self.told, serialize_json=True)


def task_failed(context: Any, day: str, lines: list[str]) -> None:
    """A task failed for good: told once a cause, and again when that goes on into another daily run."""
    if not (to := settings()).anybody:
        return
    title, memory, now = f"M2M {to.name} {day}: {lines[0]}", Memory(context, FAILED), datetime.now(UTC)
    cause = fingerprint(lines)
    known = memory.told.get(cause, {"days": [], "at": ""})
    days, at = sorted({*known["days"], day}), known["at"]
    if at and now - datetime.fromisoformat(at) < REPEAT:
        log.info("not told again, as it was at %s: %s", at, title)
    else:
        since = [f"  since: {days[0]}, {len(days)} days by this cause"] if len(days) > 1 else []
        send(title, [*lines, *since, *links(to, day, "checks", context["ti"].log_url)], to, context)
        at = now.isoformat(timespec="seconds")
    memory.told[cause] = {"days": days, "at": at, "title": lines[0]}
    memory.keep()


def task_passed(context: Any, day: str) -> None:
    """A task that had failed works again: for that day, or for a later one."""
    if not (to := settings()).anybody or not (memory := Memory(context, FAILED)).told:
        return
    over, left = [], dict[str, dict[str, Any]]()
    for cause, known in memory.told.items():
        days = [failed for failed in known["days"] if failed != day]
        if days and day < days[-1]:
            left[cause] = known | {"days": days}
        else:
            not_mended = f"; {', '.join(days)} did not run again here" if days else ""
            over.append(f"  over: {known['title']}; since {known['days'][0]}{not_mended}")
    if over:
        title = f"M2M {to.name} {day}: over: {context['ti'].dag_id}.{context['ti'].task_id} works again"
        send(title, [title, *over, *links(to, day, "checks", context["ti"].log_url)], to, context)
    if left != memory.told:
        memory.told = left
        memory.keep()


class AlertOperator(BaseOperator):
    """The last task of a DAG: tells what somebody should know of the day although nothing failed, and what is over."""

    template_fields = ("application_args", "env_vars", "date")

    def __init__(self, *, env_vars: dict[str, str], **kwargs: Any) -> None:
        super().__init__(
            task_id="incidents",
            doc_md="Reads and incidents: `python -m pipelines.incidents --help`",
            map_index_template="{{ as_of() }}",
            **kwargs,
        )
        self.application, self.env_vars, self.date = str(APPLICATION), env_vars, "{{ as_of() }}"
        of = ["--dag", "{{ dag.dag_id }}", "--format", "json"]
        self.application_args = ["incidents", "--config", "{{ config_file() }}", "--date", self.date, *of]

    def execute(self, context: Any) -> None:
        os.environ.update(self.env_vars)
        if not (to := settings()).anybody:
            log.info("nobody is told: pipeline.toml has no [alerts] mail or chat")
            return
        Variable.set(CHANNELS, declared(), serialize_json=True)
        memory, found = Memory(context, NOTICED), self.found()
        told, last = memory.told, max((known["seen"] for known in memory.told.values()), default="")
        new = [incident for cause, incident in found.items() if cause not in told]
        # A run of an earlier day, as of a backfill, ends nothing.
        ended = [] if self.date < last else [cause for cause in told if cause not in found]
        over = [told[cause] for cause in ended if told[cause]["lasting"]]
        if new or over:
            lines = [line for incident in new for line in self.lines(incident)]
            for words, some in (("over", over), ("still so", [told[cause] for cause in told if cause in found])):
                lines += [f"{words}: {known['title']}; since {known['since']}" for known in some]
            titles = [incident["title"] for incident in new] or [f"over: {known['title']}" for known in over]
            more = f" (and {len(titles) - 1} more)" if len(titles) > 1 else ""
            title = f"M2M {to.name} {self.date}: {titles[0]}{more}"
            page = new[0]["page"] if new else "checks"
            send(title, [*lines, *links(to, self.date, page, context["ti"].log_url)], to, context)
        memory.told = {cause: known for cause, known in told.items() if cause not in ended}
        for cause, incident in found.items():
            known = {key: incident[key] for key in ("title", "since", "lasting")}
            memory.told[cause] = known | {"seen": max(self.date, last)}
        memory.keep()

    def found(self) -> dict[str, dict[str, Any]]:
        """Incidents of the day, by cause."""
        command = [sys.executable, self.application, *self.application_args]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            kind = AirflowFailException if done.returncode == WRONG_USE else AirflowException
            raise kind(done.stderr.strip())
        incidents = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return {incident["cause"]: incident for incident in incidents}

    def lines(self, incident: dict[str, Any]) -> list[str]:
        since = f"; since {incident['since']}" if incident["since"] != self.date else ""
        command = f"  by hand: {incident['command']} --date {self.date}"
        words = [f"  | {line}" for line in incident["lines"]]
        return [f"{incident['title']}{since}", *words, command, f"  what to do: {GUIDE}#{incident['section']}"]


def deadline() -> DeadlineAlert | None:
    """When a daily run is late; none where nobody would be told."""
    try:
        to = settings(declared())
    except UNREADABLE:
        return None
    if not to.anybody:
        return None
    interval = timedelta(hours=to.deadline_hours)
    return DeadlineAlert(DeadlineReference.DAGRUN_QUEUED_AT, interval, SyncCallback(late, {"hours": to.deadline_hours}))


def late(context: dict[str, Any], hours: int) -> None:
    """A daily run has not ended so many hours after it was queued; Airflow calls it once a run."""
    run = context["dag_run"]
    day = run["partition_key"] or (run["conf"] or {}).get("date") or ""
    try:
        old = datetime.fromisoformat(run["queued_at"]).date() - date.fromisoformat(day) > OLD
    except ValueError:
        old = False
    if old or run["state"] == "failed" or not (to := settings()).anybody:
        log.info("nobody is told that %s %s is late", run["dag_id"], run["dag_run_id"])
        return
    title = f"M2M {to.name} {day}: {run['dag_id']} is late, not done {hours} h after it was queued"
    base = conf.get("api", "base_url", fallback="http://localhost:8080").rstrip("/")
    lines = [
        title,
        f"  state {run['state']}, queued at {run['queued_at']}, started at {run['start_date'] or 'not yet'}",
        f"  by hand: python -m pipelines.status --date {day}",
        f"  what to do: {GUIDE}#a-run-is-late",
        *links(to, day, "operations", f"{base}/dags/{run['dag_id']}/runs/{run['dag_run_id']}"),
    ]
    send(title, lines, to, context)
