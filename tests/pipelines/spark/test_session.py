"""Where a stage runs and with which settings."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from deployment import Deployment

from pipelines import config
from pipelines.config import SPARK_STAGES, Distributor
from pipelines.errors import ConfigError
from pipelines.failures import tell
from pipelines.spark.executors import refuse_silent_master
from pipelines.spark.session import master_of, settings_of

MASTER = "spark://there:7077"


@pytest.fixture
def cluster_deployment(deployment: Deployment) -> Deployment:
    deployment.edit(
        "[spark]",
        "[distributor]\nprocesses = 3\nlocal = false\n\n[spark]\n"
        'conf = { "spark.executor.memory" = "1g", "spark.dynamicAllocation.enabled" = "true" }\n'
        'stages.train = { "spark.executor.memory" = "8g" }',
    )
    return deployment


def test_a_stage_has_settings_of_its_own(cluster_deployment: Deployment) -> None:
    config = cluster_deployment.config
    score, train = (settings_of(config, stage, MASTER) for stage in ("score", "train"))
    assert (score["spark.executor.memory"], train["spark.executor.memory"]) == ("1g", "8g")
    # Spark refuses a barrier under dynamic allocation; ranks need their executors from the beginning.
    assert score["spark.dynamicAllocation.enabled"] == "true"
    assert train["spark.dynamicAllocation.enabled"] == "false"
    assert train["spark.executor.instances"] == "3"
    assert settings_of(config, "train", "local[2]")["spark.dynamicAllocation.enabled"] == "true"
    assert train["spark.executorEnv.GOMP_SPINCOUNT"] == "1000"


def test_gpus_are_asked_for_by_training_alone_and_hidden_without_use_gpu(cluster_deployment: Deployment) -> None:
    gpu = "spark.task.resource.gpu.amount"
    without = settings_of(cluster_deployment.config, "train", MASTER)
    assert without["spark.executorEnv.CUDA_VISIBLE_DEVICES"] == ""
    assert gpu not in without
    cluster_deployment.edit("local = false", "local = false\nuse_gpu = true")
    config = cluster_deployment.config
    assert settings_of(config, "train", MASTER)[gpu] == "1"
    assert gpu not in settings_of(config, "score", MASTER)
    assert "spark.executorEnv.CUDA_VISIBLE_DEVICES" not in settings_of(config, "score", MASTER)
    cluster_deployment.edit('"8g" }', '"8g", "spark.task.resource.gpu.amount" = "0.5" }')
    with pytest.raises(ConfigError, match=r'"0\.5": a rank has whole GPUs; give training its own: \[spark\.stages'):
        settings_of(cluster_deployment.config, "train", MASTER)


def test_the_environment_names_the_master_before_the_file(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert master_of(deployment.config) == "local[2]"
    monkeypatch.setenv("M2M_MASTER", MASTER)
    assert master_of(deployment.config) == MASTER
    monkeypatch.setenv("M2M_MASTER", "there:7077")
    with pytest.raises(ConfigError, match=r'M2M_MASTER, \[spark\] master: "there:7077": expected local\[2\], spark://'):
        master_of(deployment.config)


def test_what_spark_left_in_a_shell_is_no_spark_submit(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has read spark-env.sh into a shell still names the master."""
    monkeypatch.setenv("SPARK_ENV_LOADED", "1")
    monkeypatch.setenv("M2M_MASTER", MASTER)
    assert master_of(deployment.config) == MASTER


SHOWN = """
import sys
import psutil
from pipelines.config import load_config
from pipelines.spark.session import spark_session

with spark_session(load_config(sys.argv[1]), "shown") as spark:
    print("told", spark.sparkContext.getConf().get("spark.hadoop.fs.s3a.secret.key"))
    print("heap", spark.sparkContext._jvm.java.lang.Runtime.getRuntime().maxMemory() >> 20)
    print("shown", [word for word in psutil.Process(spark._sc._gateway.proc.pid).cmdline() if "s3a" in word])
"""


@pytest.mark.spark
def test_a_secret_stands_on_no_command_line(deployment: Deployment) -> None:
    secret = 'of the "lake" 100%\''
    deployment.edit(
        "[spark]",
        '[spark.conf]\n"spark.hadoop.fs.s3a.secret.key" = "${LAKE}"\n"spark.driver.memory" = "${HEAP}"\n[spark]',
    )
    root = str(Path(__file__).resolve().parents[3])
    run = subprocess.run(
        [sys.executable, "-c", SHOWN, str(deployment.toml)],
        env=os.environ | {"PYTHONPATH": root, "LAKE": secret, "HEAP": "600m"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert run.stdout.splitlines() == [f"told {secret}", "heap 600", "shown []"]


def test_a_stage_that_is_none_is_refused(deployment: Deployment) -> None:
    deployment.edit("[spark]", '[spark.stages.training]\n"spark.cores.max" = "2"\n\n[spark]')
    with pytest.raises(ConfigError, match=r'\[spark\] stages: unknown key "training"; did you mean "train"\?'):
        _ = deployment.config
    deployment.edit("[spark.stages.training]", "[spark.stages.train]")
    deployment.edit('"spark.cores.max"', '"cores.max"')
    with pytest.raises(ConfigError, match=r'\[spark\] stages train: unknown key "cores.max"'):
        _ = deployment.config


def test_every_stage_that_starts_spark_can_have_settings() -> None:
    folder = Path(__file__).resolve().parents[3] / "pipelines"
    starts = {
        file.stem for file in (folder / "stages").glob("*.py") if re.search(r"spark_session\(run", file.read_text())
    }
    assert starts == set(SPARK_STAGES)


def test_a_master_that_does_not_answer_is_told_at_once() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"spark://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=f"no Spark master answers at {address}") as told:
            refuse_silent_master(address)
        assert tell(told.value).section == "On a cluster"
        bound.listen()
        refuse_silent_master(f"spark://127.0.0.1:1,{address.removeprefix('spark://')}")
    refuse_silent_master("yarn")


@pytest.mark.parametrize("master", ["spark://there", "spark://there:7077,other", "spark://there:7077/", "spark://:"])
def test_what_is_no_address_of_a_master_is_refused(master: str) -> None:
    with pytest.raises(ConfigError, match=f'"{master}" is no master: expected spark://host:port, or several'):
        refuse_silent_master(master)


def test_a_master_may_have_an_address_of_ipv6() -> None:
    try:
        made = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    with made as server:
        address = f"spark://[::1]:{server.getsockname()[1]}"
        assert re.fullmatch(config.MASTER, address)
        refuse_silent_master(address)


def test_fewer_processes_than_none_are_refused() -> None:
    with pytest.raises(ValueError, match="min_processes = 3: must not be above processes = 2"):
        Distributor(processes=2, min_processes=3)
