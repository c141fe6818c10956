"""What the three DAGs are: tasks, order, dates, retries, pools, forms."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.chain import CHAIN, LEDGER, TABLES

REPOSITORY = Path(__file__).resolve().parents[2]
Ask = Callable[..., Any]
HEAVY = ("pyspark", "torch", "mlflow", "great_expectations", "pipelines", "m2m_model", "pyiceberg", "polars")

DESCRIBE = """
import advertiser_forecasts, advertiser_sequences, m2m_training
def task(t):
    return {
        "arguments": t.application_args, "application": t.application, "after": sorted(t.upstream_task_ids),
        "outlets": [asset.name for asset in t.outlets], "pool": t.pool, "owner": t.owner, "retries": t.retries,
        "backoff": t.retry_exponential_backoff, "limit_s": t.execution_timeout.total_seconds(),
        "failure_callback": bool(t.on_failure_callback),
    }
def describe(dag):
    return {
        "tasks": {t.task_id: task(t) for t in dag.topological_sort()}, "catchup": dag.catchup, "tags": sorted(dag.tags),
        "max_active_runs": dag.max_active_runs, "start_date": dag.start_date, "doc": dag.doc_md,
        "params": {name: dag.params.get_param(name).schema for name in dag.params},
        "timetable": type(dag.timetable).__name__,
    }
found = {m.dag.dag_id: describe(m.dag) for m in (advertiser_sequences, advertiser_forecasts, m2m_training)}
answer({"dags": found, "modules": sorted({name.split(".")[0] for name in sys.modules})})
"""


@pytest.fixture(scope="module")
def described(ask: Ask) -> dict[str, Any]:
    return ask(DESCRIBE)[0]


@pytest.fixture(scope="module")
def dags(described: dict[str, Any]) -> dict[str, Any]:
    return described["dags"]


def test_dag_files_import_nothing_heavy(described: dict[str, Any]) -> None:
    assert not set(HEAVY) & set(described["modules"])


def test_tasks_run_in_the_order_of_the_chain(dags: dict[str, Any]) -> None:
    order = {dag_id: {name: task["after"] for name, task in dag["tasks"].items()} for dag_id, dag in dags.items()}
    declared: dict[str, dict[str, list[str]]] = {}
    for stage in filter(lambda stage: stage.dag, CHAIN):
        of_dag = declared.setdefault(stage.dag, {})
        of_dag[stage.name] = sorted(stage.after) or list(of_dag)[-1:]
    for dag, last in {"advertiser_sequences": "build_sequences", "advertiser_forecasts": "drift"}.items():
        declared[dag]["incidents"] = [last]
    declared["m2m_training"]["incidents"] = ["promote"]
    assert order == declared


def test_only_the_sequences_are_on_the_clock_and_both_others_follow_their_asset(dags: dict[str, Any]) -> None:
    assert {dag_id: dag["timetable"] for dag_id, dag in dags.items()} == {
        "advertiser_sequences": "CronPartitionTimetable",
        "advertiser_forecasts": "PartitionedAssetTimetable",
        "m2m_training": "PartitionedAssetTimetable",
    }


def test_every_published_table_is_an_asset(dags: dict[str, Any], ask: Ask, tmp_path: Path) -> None:
    emitted = {name: set(task["outlets"]) for dag in dags.values() for name, task in dag["tasks"].items()}
    published = {stage.name: {table for table in stage.tables if table in TABLES} for stage in CHAIN if stage.dag}
    absent = {"staged.behavior_daily", "staged.known_future"}  # online_ads has no SQL for them
    assert emitted == {name: tables - absent for name, tables in published.items()} | {"incidents": set()}
    assert set.union(*emitted.values()) == set(TABLES) - absent - {LEDGER}
    code = 'import stages; answer([asset.name for asset in stages.published("stage_sources")])'
    assert set(ask(code, M2M_CONFIG=str(tmp_path / "none.toml"))[0]) == published["stage_sources"]


def test_every_task_runs_the_command_of_its_stage(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        for name, task in dag["tasks"].items():
            expected = [name, "--config", "{{ config_file() }}", "--date", "{{ as_of() }}"]
            assert task["application"] == str(REPOSITORY / "pipelines" / "__main__.py")
            assert task["arguments"][: len(expected)] == expected


def test_every_task_has_an_owner_a_limit_retries_and_a_failure_callback(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        assert not dag["catchup"]
        assert dag["max_active_runs"] == 1
        assert dag["start_date"] is None  # a run for a date before it would succeed without running a task
        assert "m2m" in dag["tags"]
        assert "docs/operations.md" in dag["doc"]
        for task in dag["tasks"].values():
            assert task["owner"] == "forecasting"
            assert task["limit_s"] > 0
            assert task["retries"] == 3
            assert task["backoff"] == 2
            assert task["failure_callback"]


def test_only_training_takes_a_gpu(dags: dict[str, Any]) -> None:
    pools = {name: task["pool"] for dag in dags.values() for name, task in dag["tasks"].items()}
    assert [name for name, pool in pools.items() if pool == "gpu"] == ["train"]


def test_trigger_forms(dags: dict[str, Any]) -> None:
    forms = {dag_id: {name: p["type"] for name, p in dag["params"].items()} for dag_id, dag in dags.items()}
    day = ["null", "string"]
    assert forms == {
        "advertiser_sequences": {"date": day, "from_date": day},
        "advertiser_forecasts": {"date": day},
        "m2m_training": {"date": day, "gate_dry_run": "boolean", "from_scratch": "boolean"},
    }
    assert all(dag["params"]["date"]["format"] == "date" for dag in dags.values())


SETTINGS = """
import stages
from pathlib import Path
operator = stages.StageOperator(stage="score")
answer([operator.env_vars, stages.spark_conf(Path(%r), "score")])
"""


def test_a_stage_gets_values_of_connections_and_no_secret_stands_on_a_command_line(ask: Ask, tmp_path: Path) -> None:
    config = tmp_path / "pipeline.toml"
    config.write_text(
        '[spark.conf]\n"spark.driver.memory" = "2g"\n"spark.ssl.keyPassword" = "${ADS_KEY}"\n'
        '[spark.stages.score]\n"spark.cores.max" = "2"\n[spark.stages.train]\n"spark.cores.max" = "8"\n'
    )
    wanted = {"ADS_DB_PASSWORD": "{{ conn.ads_db.password }}"}
    (environment, conf), _ = ask(SETTINGS % str(config), M2M_STAGE_ENVIRONMENT=json.dumps(wanted))
    assert environment == wanted
    assert conf == {"spark.driver.memory": "2g", "spark.cores.max": "2"}  # the rest is the stage's own to look up
    config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes())  # a byte order mark, which load_config skips too
    assert ask(SETTINGS % str(config))[0][1] == conf
    config.write_text("[spark.conf")
    assert ask(SETTINGS % str(config))[0] == [{}, {}]  # the stage says what is wrong with the file


SUBMITTED = """
import os, subprocess, stages
from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook

def started(command, **kwargs):
    answer([command, (kwargs.get("env") or os.environ)["ADS_DB_PASSWORD"]])
    os._exit(0)

operator = stages.StageOperator(stage="score", arguments=["--date", "2024-01-31"])
operator.env_vars = {"ADS_DB_PASSWORD": "of-the-connection"}  # as rendered
subprocess.Popen = started
operator.execute({})
"""


@pytest.mark.parametrize("host", ["spark://127.0.0.1:7077", "yarn"])
def test_values_of_connections_travel_in_the_environment_whatever_the_master(
    ask: Ask, tmp_path: Path, host: str
) -> None:
    (tmp_path / "pipeline.toml").write_text("")
    connection = json.dumps({"conn_type": "spark", "host": host, "extra": {"deploy-mode": "client"}})
    hadoop = {"HADOOP_CONF_DIR": str(tmp_path), "M2M_CONFIG": str(tmp_path / "pipeline.toml")}
    (command, value), _ = ask(SUBMITTED, AIRFLOW_CONN_SPARK_DEFAULT=connection, **hadoop)
    assert value == "of-the-connection"
    assert command[command.index("--master") + 1] == host
    assert [word for word in command if "of-the-connection" in word or "ADS_DB" in word] == []


DATES = """
import stages
from airflow.sdk.exceptions import AirflowFailException
def resolve(date, key):
    try:
        return stages.as_of({"params": {"date": date}, "partition_key": key})
    except AirflowFailException as error:
        return "refused: " + str(error)
answer([resolve(*case) for case in %r])
"""


def test_date_is_the_parameter_or_the_partition_key_and_never_a_guess(ask: Ask) -> None:
    cases = [
        ("2020-06-20", None),
        (None, "2020-06-21"),
        ("2020-06-21", "2020-06-21"),
        ("2020-06-20", "2020-06-21"),
        (None, None),
        (None, "2020-06-21T05:00:00"),
    ]
    found, _ = ask(DATES % (cases,))
    assert found[:3] == ["2020-06-20", "2020-06-21", "2020-06-21"]
    assert "partition 2020-06-21, but its parameter date says 2020-06-20" in found[3]
    assert "no date" in found[4]
    assert found[5] == "refused: Expected a date YYYY-MM-DD; found '2020-06-21T05:00:00'"


def test_every_failure_names_a_section_of_the_operations_guide(ask: Ask) -> None:
    sections, _ = ask("import stages; answer([section for _, section in stages.FAILURES.values()])")
    guide = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", guide, re.MULTILINE)
    }
    assert set(sections) <= anchors


LINKED = """
import stages
operator = stages.ReportOperator(stage="report")
operator.application_args = ["report", "--config", %r, "--date", "2024-01-31"]
(link,) = operator.operator_extra_links
answer([link.name, link.get_link(operator, ti_key=None)])
"""


def test_the_report_task_leads_to_the_page(ask: Ask, tmp_path: Path) -> None:
    config, page = tmp_path / "pipeline.toml", tmp_path / "a b" / "reports" / "2024-01-31.html"
    config.write_text('[dataset]\nname = "a b"\n')
    page.parent.mkdir(parents=True)
    page.write_text("<!doctype html>")
    assert ask(LINKED % str(config), M2M_HOME=str(tmp_path))[0] == ["Report of the day", page.as_uri()]
    kept = "http://localhost:5000/#/experiments/1/runs/ab/artifacts/report/2024-01-31.html?a&amp;b"
    page.write_text(f'<!doctype html>\n<link rel="canonical" href="{kept}">\n')
    assert ask(LINKED % str(config), M2M_HOME=str(tmp_path))[0][1] == kept.replace("&amp;", "&")
