"""What of the stages' output ``make demo`` shows, and how its tables are laid out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from demo import PROGRESS, SUBMIT_LINE
from demo_summary import aligned
from local_deployment import environment

HOOK = "[airflow.task.hooks.airflow.providers.apache.spark.hooks.spark_submit.SparkSubmitHook] loc=spark_submit.py:965"


@pytest.mark.parametrize(
    ("logged", "shown"),
    [
        ("stage_sources 2020-06-29: 14,857 rows", "14,857 rows"),
        (
            "epoch 1/6 step 2/34 loss 1.403 168 rows/s 10:02 left",
            "epoch 1/6 step 2/34 loss 1.403 168 rows/s 10:02 left",
        ),
        ("warning: raw ds=2020-06-29: new column", "warning: raw ds=2020-06-29: new column"),
        ("20/06/29 04:43:44 WARN NativeCodeLoader: Unable to load native-hadoop library", None),
        ("Setting default log level to WARN.", None),
    ],
)
def test_only_progress_of_the_stages_is_shown(logged: str, shown: str | None) -> None:
    line = SUBMIT_LINE.search(f"2026-11-24T04:03:32.247921Z [info     ] {logged} {HOOK}\n")
    assert line is not None
    progress = PROGRESS.match(line["text"])
    assert (progress["said"] if progress else None) == shown


def test_airflows_own_lines_are_not_shown() -> None:
    assert SUBMIT_LINE.search("2026-11-24T04:03:33Z [info     ] ::endgroup::   [task] loc=task_runner.py:2379") is None


def test_numbers_are_aligned_right_and_words_left() -> None:
    assert aligned([["task", "M2M", ""], ["spend", "0.453", "loses"], ["active_days", "-", ""]]) == (
        "task           M2M\nspend        0.453  loses\nactive_days      -"
    )


def test_deployment_keeps_what_the_environment_already_says(tmp_path: Path) -> None:
    found = environment(
        {"M2M_HOME": str(tmp_path), "AIRFLOW_PORT": "9090", "AIRFLOW__CORE__PARALLELISM": "8", "PATH": "/bin"}
    )
    assert found["AIRFLOW_HOME"] == str(tmp_path / "airflow")
    assert found["AIRFLOW__API__PORT"] == "9090"
    assert found["AIRFLOW__CORE__PARALLELISM"] == "8"
    assert found["PATH"].endswith(":/bin")
    assert found["M2M_CONFIG"].endswith("examples/online_retail/pipeline.toml")


def test_another_home_and_port_win_over_the_variables_of_a_shell_that_has_the_first(tmp_path: Path) -> None:
    shell = environment({"M2M_HOME": str(tmp_path / "a"), "AIRFLOW_PORT": "9090"})
    other = {"M2M_HOME": str(tmp_path / "b"), "AIRFLOW_PORT": "9091"}
    found = environment(shell | other)
    assert found["AIRFLOW_HOME"] == str(tmp_path / "b" / "airflow")
    assert not [key for key, value in found.items() if "9090" in value]
