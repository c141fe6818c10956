"""How a DAG runs a stage: the command a person would type, started by spark-submit.

The three DAG files only wire; what they share is here: the operator, the parameters of the trigger form, the asset
that links the DAGs, and what is said when a task fails. Stages are described in ``pipelines/`` (``python -m
pipelines.<stage> --help``).
"""

from __future__ import annotations

import contextlib
import html
import json
import logging
import os
import re
import runpy
import sys
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import alerts
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import Asset, BaseHook, BaseOperatorLink, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowNotFoundException
from jinja2 import pass_context

log = logging.getLogger(__name__)

APPLICATION = alerts.APPLICATION
SPARK_CONNECTION = "spark_default"

# What each stage writes. The file is data alone: Airflow's own processes need nothing else of the project.
CHAIN = {stage.name: stage.tables for stage in runpy.run_path(str(APPLICATION.with_name("chain.py")))["CHAIN"]}

# One event a day, carrying the date as its partition: what forecasting and training wait for.
SEQUENCES = Asset(name="features.advertiser_sequence")

DATE = Param(
    None,
    type=["null", "string"],
    format="date",
    title="Date",
    description="The day to run, as of its end (UTC). Leave it empty when the run has a partition key.",
)

# Variables of the stages beside the worker's own: {"NAME": "{{ conn.ads_db.password }}"}; filled in when a task runs.
ENVIRONMENT: dict[str, str] = json.loads(os.environ.get("M2M_STAGE_ENVIRONMENT") or "{}")

# What an exit status of a stage means, and where docs/operations.md says what to do.
FAILURES = {
    1: ("the stage failed", "exit-1-anything-else"),
    2: ("wrong use or configuration", "exit-2-configuration"),
    3: ("data failed a check; nothing was published", "exit-3-data"),
}
NO_RETRY = (2, 3)  # the same data and configuration fail again
# What Spark itself prints below ERROR.
SPARK_NOISE = re.compile(r"\d\d/\d\d/\d\d [\d:]+ (INFO|WARN) |WARNING: Using incubator|Using Spark's default log4j")


@pass_context
def as_of(context: Any) -> str:
    """The run's date: ``params.date`` of the form, or the partition key of a scheduled, asset or backfill run."""
    chosen, partition = context["params"].get("date"), context.get("partition_key")
    if chosen and partition and chosen != partition:
        raise AirflowFailException(
            f"This run is partition {partition}, but its parameter date says {chosen}: leave the parameter empty"
        )
    text = chosen or partition
    if not text:
        raise AirflowFailException(
            "This run has no date. Expected a partition key or the parameter `date`, from the trigger form or "
            """--conf '{"date": "YYYY-MM-DD"}'; found neither"""
        )
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise AirflowFailException(f"Expected a date YYYY-MM-DD; found {text!r}") from error


def config_file() -> str:
    """The deployment's pipeline.toml."""
    path = os.environ.get("M2M_CONFIG", "")
    if not path:
        raise AirflowFailException("M2M_CONFIG is not set where this task runs; expected the path of a pipeline.toml")
    if not Path(path).is_file():
        raise AirflowFailException(f"M2M_CONFIG names {path}, which is not a file; expected a pipeline.toml")
    return path


MACROS = {"as_of": as_of, "config_file": config_file}


def explain_failure(context: Any) -> str:
    """What failed, for which date, its last words, the command to run by hand, where to read on."""
    task, error = context["task"], context.get("exception")
    # A refusal by this module, before anything was submitted, is about the configuration or the run's parameters.
    status = getattr(error, "status", 2 if isinstance(error, AirflowFailException) else 1)
    meaning, section = FAILURES[status]
    lines = [
        f"FAILED {task.dag_id}.{task.task_id}, try {context['ti'].try_number}: {meaning}",
        *(f"  | {line}" for line in last_words(str(error))),
    ]
    arguments = [str(argument) for argument in getattr(task, "application_args", None) or []]
    # Still a template: the date or the configuration was itself the failure, and there is no command to repeat.
    if arguments and not any("{{" in argument for argument in arguments):
        lines.append(f"  by hand: python -m pipelines.{' '.join(arguments)}")
    lines.append(f"  what to do: {alerts.GUIDE}#{section}")
    return "\n".join(lines)


def tell_what_to_do(context: Any) -> None:
    """Failure callback: whom [alerts] names is told, and the explanation is the last thing in the task's log."""
    explanation = explain_failure(context)
    try:
        alerts.task_failed(context, day_of(context), explanation.splitlines())
    except Exception:
        log.exception("The failure was told to nobody")
    log.info("::endgroup::")  # of the group that callbacks are in, which Airflow shows folded
    log.error(explanation)


def tell_it_is_over(context: Any) -> None:
    """Success callback: whoever was told that the task failed is told that it does no more."""
    try:
        alerts.task_passed(context, day_of(context))
    except Exception:
        log.exception("That it works again was told to nobody")


def incidents() -> alerts.AlertOperator:
    """The last task of a DAG."""
    return alerts.AlertOperator(env_vars=ENVIRONMENT)


def day_of(context: Any) -> str:
    """The run's date for a message, where a run without one has failed for that."""
    try:
        return as_of(context)
    except AirflowFailException:
        return str(context["run_id"])


def last_words(error: str, limit: int = 15) -> list[str]:
    """The last lines that the stage printed, or the error's own first ones."""
    _, marker, output = error.partition("Last spark-submit output:\n")
    lines = [
        line for line in (output if marker else error).splitlines() if line.strip() and not SPARK_NOISE.match(line)
    ]
    return lines[-limit:] if marker else lines[:limit]


DEFAULT_ARGS = {
    "owner": "forecasting",
    "retries": 3,
    "retry_delay": timedelta(minutes=2),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=30),
    "execution_timeout": timedelta(hours=1),
    "on_failure_callback": tell_what_to_do,
    "on_success_callback": tell_it_is_over,
}


class StageFailure(AirflowFailException):
    """A stage ended with a status that no retry can mend."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def published(stage: str) -> list[Asset]:
    """The tables that a stage publishes, as assets; of the staged ones those that this data set has SQL for."""
    tables = [table for table in CHAIN[stage] if not table.startswith("model.")]
    with contextlib.suppress(KeyError, OSError, ValueError, TypeError):  # the stage says what is wrong with the file
        staging = alerts.pipeline_toml()["staging"]
        tables = [table for table in tables if not table.startswith("staged.") or table[7:] in staging]
    return [Asset(name=table) for table in tables]


class StageOperator(SparkSubmitOperator):
    """Runs ``pipelines/__main__.py STAGE --config $M2M_CONFIG ARGUMENTS`` and emits an event of each table that it
    published, with the run's date as its partition.

    ``arguments`` are templates; one that renders to nothing is left out. Exit status 2 or 3 fails the task at once, any
    other is retried.
    """

    def __init__(self, *, stage: str, arguments: Sequence[str] = ("--date", "{{ as_of() }}"), **kwargs: Any) -> None:
        super().__init__(
            task_id=stage,
            conn_id=SPARK_CONNECTION,
            application=str(APPLICATION),
            application_args=[stage, "--config", "{{ config_file() }}", *arguments],
            name=f"m2m {stage} {{{{ as_of() }}}}",
            env_vars=ENVIRONMENT,
            outlets=published(stage),
            map_index_template="{{ as_of() }}",  # shown in a run's list of tasks, whatever started it
            doc_md=f"Reads, writes and failures: `python -m pipelines.{stage} --help`",
            **kwargs,
        )

    def execute(self, context: Any) -> None:
        check_spark_connection()
        # spark-submit inherits them. Given to the hook they would be on the command line, with YARN and Kubernetes.
        os.environ.update(self.env_vars or {})
        self.env_vars = None
        self.application_args = [argument for argument in self.application_args or [] if argument]
        # This worker's own interpreter, which executors take too unless [spark.conf] says otherwise: a bare `python3`
        # on the PATH may be another one.
        own = {"spark.pyspark.python": sys.executable, "spark.pyspark.driver.python": sys.executable}
        self.conf = {**own, **spark_conf(Path(config_file()), self.task_id), **(self.conf or {})}
        try:
            super().execute(context)
        except AirflowException as error:
            # The hook tells the exit status in its message only.
            found = re.search(r"Error code is: (\d+)", str(error))
            status = int(found[1]) if found else 1
            if status in NO_RETRY:
                raise StageFailure(str(error), status) from None
            raise
        for asset in self.outlets:
            # A run started from the form has no partition key of its own, and its followers need the date.
            context["outlet_events"][asset].add_partitions(as_of(context))


class ReportLink(BaseOperatorLink):
    """To the day's report: in MLflow where a browser finds it there, else the file."""

    name = "Report of the day"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Asked where the task has run, when it has."""
        arguments = list(operator.application_args)
        config, day = (arguments[arguments.index(name) + 1] for name in ("--config", "--date"))
        home = Path(os.environ.get("M2M_HOME") or APPLICATION.parents[1] / ".m2m")
        data_set = alerts.pipeline_toml(config)["dataset"]["name"]
        page = home / data_set / "reports" / f"{day}.html"
        kept = re.search('<link rel="canonical" href="([^"]+)">', page.read_text(encoding="utf-8"))
        return html.unescape(kept[1]) if kept else page.as_uri()


class ReportOperator(StageOperator):
    """The stage that makes a page, with a link to it."""

    operator_extra_links = (ReportLink(),)


def spark_conf(config: Path, stage: str) -> dict[str, str]:
    """``[spark.conf]`` and over it ``[spark.stages.<stage>]``: memory and the like must be known before the driver's
    JVM starts. What refers to the environment is left to the stage: this goes to a command line. So is a file that
    cannot be read: the stage says what is wrong."""
    try:
        spark = alerts.pipeline_toml(config).get("spark", {})
        conf = {**spark.get("conf", {}), **spark.get("stages", {}).get(stage, {})}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
    return {key: value for key, value in conf.items() if isinstance(value, str) and "${" not in value}


def check_spark_connection() -> None:
    """Refuses what the Spark hook would silently turn into a submission to YARN."""
    expected = (
        f"Expected a connection {SPARK_CONNECTION} of type spark whose host is the master, for example "
        """AIRFLOW_CONN_SPARK_DEFAULT='{"conn_type": "spark", "host": "local[2]"}'"""
    )
    try:
        connection = BaseHook.get_connection(SPARK_CONNECTION)
    except (AirflowNotFoundException, AirflowException, ValueError) as error:
        raise AirflowFailException(f"{expected}; found none ({error})") from error
    host = connection.host or ""
    if connection.conn_type != "spark" or not re.match(r"local\b|spark://|k8s://|yarn$", host):
        raise AirflowFailException(f"{expected}; found type {connection.conn_type!r}, host {host!r}")
