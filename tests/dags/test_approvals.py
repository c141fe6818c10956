"""A person is asked before a promotion: the task in its place, a real question with a real answer, and no answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Ask = Callable[..., Any]

STRUCTURE = """
import m2m_training
dag = m2m_training.dag
after = {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks}
answer([after, dag.dagrun_timeout.total_seconds() / 3600])
"""

# What the gate would say. The rest is Airflow's own: the task parks, an answer wakes it; stages are taken as done.
GATE = """
import sys
assert sys.argv[1:2] == ["promote"] and sys.argv[-3:] == ["--date", "2024-01-31", "--dry-run"], sys.argv
print("passed  * *  champion  0.98")
print("promote 2024-01-31: version 7 promoted (dry run): NMAE 0.39 is 0.980 of champion's 0.40")
"""
ASKED = """
import threading, time
from datetime import UTC, datetime
from types import SimpleNamespace
import approvals, m2m_training
from airflow.api_fastapi.core_api.datamodels.hitl import UpdateHITLDetailPayload
from airflow.api_fastapi.core_api.routes.public.hitl import update_hitl_detail
from airflow.models.hitl import HITLDetail
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from jinja2 import Template

asked, dag = [], m2m_training.dag
approval = dag.get_task("approve")
approval.application = %r

def person():
    while not asked:
        time.sleep(0.2)
        with create_session() as session:
            found = session.query(HITLDetail).first()
            if found and found.task_instance.state == "awaiting_input":
                asked.extend([found.subject, found.body, found.options, found.defaults])
                ann, ti = SimpleNamespace(get_id=lambda: "7", get_name=lambda: "Ann"), found.task_instance
                payload = UpdateHITLDetailPayload(chosen_options=["Approve"])
                update_hitl_detail(ti.dag_id, ti.run_id, ti.task_id, payload, ann, session)

threading.Thread(target=person, daemon=True).start()
done = dag.test(run_conf={"date": "2024-01-31"}, mark_success_pattern="train|backtest|promote|incidents")
states = {i.task_id: i.state for i in done.get_task_instances()}
with create_session() as session:
    found = session.query(XComModel).filter_by(run_id=done.run_id, task_id="approve", key="return_value").one()
    heard = XComModel.deserialize_value(found)

def told(of):
    return [Template(part).render(ti=SimpleNamespace(xcom_pull=lambda task_ids: of)) for part in approvals.ANSWER]

def answered(option, user):
    event = {"chosen_options": [option], "params_input": {}, "responded_at": datetime.now(UTC)}
    ti = SimpleNamespace(xcom_pull=lambda **_: "7")
    return told(approval.execute_complete({"ti": ti}, event | {"responded_by_user": user}))

no = [answered("Reject", {"id": "7", "name": "Ann"}), answered("Reject", None)]
answer([asked, states, told(heard), *no, told(None)])
"""


@pytest.mark.parametrize(("hours", "before"), [(0, "backtest"), (2, "approve")])
def test_with_hours_a_person_is_asked_between_backtest_and_promote(
    ask: Ask, tmp_path: Path, hours: int, before: str
) -> None:
    config = tmp_path / "pipeline.toml"
    config.write_text(f'[dataset]\nname = "tiny"\n[gate]\napproval_hours = {hours}\n')
    (after, timeout_h), _ = ask(STRUCTURE, M2M_CONFIG=str(config))
    assert after["promote"] == [before]
    assert after.get("approve", ["backtest"]) == ["backtest"]
    assert timeout_h == 20 + hours


def test_who_approves_sees_the_gates_words_and_promote_is_told_who_it_was(ask: Ask, tmp_path: Path) -> None:
    gate, config = tmp_path / "gate.py", tmp_path / "pipeline.toml"
    gate.write_text(GATE)
    config.write_text('[dataset]\nname = "tiny"\n[gate]\napproval_hours = 2\n')
    (asked, states, approved, rejected, late, nobody), _ = ask(ASKED % str(gate), M2M_CONFIG=str(config))
    subject, body, options, default = asked
    assert subject == "2024-01-31: promote version 7?"
    assert body.startswith("```\npassed  * *  champion")
    assert (options, default) == (["Approve", "Reject"], ["Reject"])
    assert set(states.values()) == {"success"}
    assert approved == ["--approved-by=Ann", "--challenger=7"]
    assert rejected == ["--rejected-by=Ann", "--challenger=7"]
    assert late == ["--rejected-by=nobody within 2:00:00", "--challenger=7"]
    assert nobody == ["", ""]  # was asked: each is left out
