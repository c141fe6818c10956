"""Who has to say yes before a challenger serves: with ``[gate] approval_hours`` in pipeline.toml, a person in Airflow.

What the gate would do stands in the body of the request. ``promote`` gets the answer and decides and records it: no
answer in time is a no, and neither is a failure.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from datetime import timedelta
from typing import Any

import alerts
from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.sdk.exceptions import AirflowException
from stages import ENVIRONMENT, NO_RETRY, StageFailure

log = logging.getLogger(__name__)

TASK = "approve"
# What `promote` is told: the answer, and about which version it is; nothing where nobody was asked.
ANSWER = [f"{{{{ (ti.xcom_pull(task_ids='{TASK}') or ['', ''])[{part}] }}}}" for part in (0, 1)]


def hours() -> int:
    """How long is waited for an answer; 0: nobody is asked."""
    try:
        return int(alerts.pipeline_toml().get("gate", {}).get("approval_hours", 0))
    except alerts.UNREADABLE:
        return 0


class GateApproval(HITLOperator):
    """Asks whether the challenger that passes the gate shall be promoted, with the gate's own words; of one that does
    not pass, nobody is asked. ``ApprovalOperator`` itself would skip ``promote`` after a no, and nothing recorded it.
    """

    template_fields = ("subject", "body", "application_args", "env_vars", "date")

    def __init__(self, *, wait: timedelta, **kwargs: Any) -> None:
        super().__init__(
            task_id=TASK,
            subject="Promote?",
            options=[ApprovalOperator.APPROVE, ApprovalOperator.REJECT],
            defaults=ApprovalOperator.REJECT,
            response_timeout=wait,
            map_index_template="{{ as_of() }}",
            doc_md="Reads what `promote` would do: `python -m pipelines.promote --help`",
            **kwargs,
        )
        self.application, self.env_vars, self.date = str(alerts.APPLICATION), ENVIRONMENT, "{{ as_of() }}"
        self.application_args = ["promote", "--config", "{{ config_file() }}", "--date", self.date, "--dry-run"]

    def execute(self, context: Any) -> Any:
        if context["params"].get("gate_dry_run"):
            return None
        os.environ.update(self.env_vars)
        said = self.said()
        if not (passed := re.search(r"version (\S+) promoted \(dry run\)", said)):
            log.info("nobody is asked: there is nothing to promote")
            return None
        self.subject = f"{self.date}: promote version {passed[1]}?"
        self.body = f"```\n{said.strip()}\n```"
        context["ti"].xcom_push("version", passed[1])
        self.tell(context)
        return super().execute(context)

    def said(self) -> str:
        """What the gate would do, in its words."""
        command = [sys.executable, self.application, *self.application_args]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print(done.stdout, flush=True)
        if done.returncode in NO_RETRY:
            raise StageFailure(done.stderr.strip(), done.returncode)
        if done.returncode:
            raise AirflowException(done.stderr.strip())
        return done.stdout

    def tell(self, context: Any) -> None:
        """Whom [alerts] names; a message that does not arrive stops nothing."""
        if not (to := alerts.settings()).anybody:
            return
        title = f"M2M {to.name} {self.subject} It waits {self.response_timeout} for an answer"
        where = self.generate_link_to_ui_from_context(context=context)
        try:
            alerts.send(title, [title, *str(self.body).splitlines(), f"  answer: {where}"], to, context)
        except Exception:
            log.exception("Nobody was told that an answer is waited for")

    def execute_complete(self, context: Any, event: dict[str, Any]) -> list[str]:
        """The arguments for `promote`."""
        answer = super().execute_complete(context, event)
        user = answer["responded_by_user"]
        who = (user.get("name") or user.get("id")) if user else f"nobody within {self.response_timeout}"
        yes = answer["chosen_options"] == [ApprovalOperator.APPROVE]
        version = context["ti"].xcom_pull(task_ids=self.task_id, key="version")
        return [f"--{'approved' if yes else 'rejected'}-by={who}", f"--challenger={version}"]


def approval() -> list[GateApproval]:
    """The task between backtest and promote, where there is one."""
    return [GateApproval(wait=timedelta(hours=hours()))] if hours() else []
