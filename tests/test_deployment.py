"""deploy/ and docs/deployment.md, as far as they can be held to without a cluster: what is copied is there, what is
configured loads, settings are Spark's own and start executors, figures follow from what was measured."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployment import SQL, TOML
from pod_server import Pod, pod_server

from pipelines.config import Config, load_config

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
COST = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
SPARK = Path(str(distribution("pyspark").locate_file("pyspark")))

BLOCKS = {
    f"{page.name} {number}": block
    for page in (ROOT / "README.md", ROOT / "docs" / "deployment.md")
    for number, block in enumerate(
        re.findall(r"^```toml\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    )
}
OTHER_CATALOGS = re.findall(r"^\| [^|]+ \| (`(?:type|warehouse|\"s3)[^|]+) \|$", PAGE, re.MULTILINE)


def _loaded(folder: Path, block: str) -> Config:
    (folder / "performance_daily.sql").write_text(SQL)
    (folder / "pipeline.toml").write_text(TOML.partition("[spark]")[0] + block)
    return load_config(folder / "pipeline.toml")


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_of_the_docs_loads(name: str, tmp_path: Path) -> None:
    assert _loaded(tmp_path, BLOCKS[name])


@pytest.mark.parametrize("row", OTHER_CATALOGS)
def test_every_other_catalog_and_store_loads(row: str, tmp_path: Path) -> None:
    block = "\n".join(["[warehouse]", *re.findall("`([^`]+ = [^`]+)`", row)])
    assert _loaded(tmp_path, block).warehouse


def test_there_are_such_blocks() -> None:
    assert len([name for name in BLOCKS if name.startswith("deployment.md")]) == 6
    assert len(OTHER_CATALOGS) == 5


@cache
def _words_of_spark() -> bytes:
    """The constants of the installed Spark's classes."""
    jars = [next(SPARK.glob(f"jars/spark-{name}_*.jar")) for name in ("core", "kubernetes", "yarn")]
    return b"".join(jar.read(name) for path in jars for jar in [zipfile.ZipFile(path)] for name in jar.namelist())


def _spark_settings(table: dict[str, Any]) -> Iterable[str]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _spark_settings(value)
        elif key.startswith("spark."):
            yield key


def test_spark_has_every_setting_that_is_named() -> None:
    """Whole, or as a prefix and what it is followed by."""
    named = {setting for block in BLOCKS.values() for setting in _spark_settings(tomllib.loads(block))}
    named |= set(re.findall(r"[\"`D](spark\.[\w.]+\w)", PAGE))
    assert len(named) > 25
    spark = _words_of_spark()
    for setting in named - {"spark.example.com"}:
        words = setting.replace(".gpu.", ".").split(".")
        if words[-2].endswith("Env"):  # what follows is a variable
            words = words[:-1]
        assert any(
            ".".join(words[:end]).encode() in spark and all(word.encode() in spark for word in words[end:])
            for end in range(len(words), 1, -1)
        ), setting


def test_what_the_image_copies_is_there_and_enough() -> None:
    copied = [path for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE) for path in line.split()[:-1]]
    for path in copied:
        assert (ROOT / path).exists(), path
    for package in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]:
        assert package.partition(".")[0] in copied
    (start,) = re.findall(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE)
    assert json.loads(start)[-1].removeprefix("/opt/m2m/") in copied
    for path in re.findall(r"/opt/m2m/(deploy/[\w.-]+)", PAGE):
        assert path in copied


def test_the_image_has_what_make_installs() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (python,) = re.findall(r"^PYTHON \?= python(3\.\d+)$", makefile, re.MULTILINE)
    assert re.search(rf"^FROM python:{re.escape(python)}\.\d+-slim-", DOCKERFILE, re.MULTILINE)
    assert f"python{python}/site-packages/pyspark" in DOCKERFILE
    (java,) = re.findall(r"Java (\d+) is needed", makefile)
    assert f"openjdk-{java}-jre-headless" in DOCKERFILE
    installs = [line for line in DOCKERFILE.splitlines() if "pip install" in line and "TORCH_INDEX" not in line]
    assert installs
    for line in installs:
        assert "-c constraints.txt" in line
    for same in ("'setuptools>=77'", "--no-build-isolation -e"):
        assert same in makefile
        assert same in DOCKERFILE


def test_no_secret_is_in_the_image_and_nobody_is_root() -> None:
    assert not re.search(r"^(ENV|ARG) .*(PASS|SECRET|TOKEN|KEY)", DOCKERFILE, re.MULTILINE | re.IGNORECASE)
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["50000"]


def test_what_kubernetes_needs_is_pinned_beside_the_constraints() -> None:
    def pins(path: Path) -> dict[str, str]:
        lines = [line.split("==") for line in path.read_text("utf-8").splitlines() if line and line[0] != "#"]
        return {name.lower().replace("_", "-"): version for name, version in lines}

    assert not pins(DEPLOY / "requirements-kubernetes.txt").keys() & pins(ROOT / "constraints.txt").keys()


def test_the_pod_templates_are_pods_and_differ_by_what_gpus_need() -> None:
    plain, gpu = (yaml.safe_load((DEPLOY / f"pod-template{kind}.yaml").read_text("utf-8")) for kind in ("", "-gpu"))
    for pod in (plain, gpu):
        assert (pod["apiVersion"], pod["kind"]) == ("v1", "Pod")
        (container,) = pod["spec"]["containers"]
        mounted = [mount["name"] for mount in container["volumeMounts"]]
        assert mounted == [volume["name"] for volume in pod["spec"]["volumes"]]
        assert container["workingDir"] in [mount["mountPath"] for mount in container["volumeMounts"]]
        assert f"USER {pod['spec']['securityContext']['runAsUser']}\n" in DOCKERFILE
    assert gpu["spec"].pop("tolerations")
    assert gpu["spec"]["volumes"].pop()["name"] == gpu["spec"]["containers"][0]["volumeMounts"].pop()["name"] == "shm"
    assert gpu == plain


def _program(folder: Path, name: str, script: str) -> dict[str, str]:
    """An environment in which ``name`` is that script."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def _said(command: list[str], env: dict[str, str]) -> str:
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


def test_an_executor_is_started_with_what_spark_says_of_it(tmp_path: Path) -> None:
    entrypoint = str(DEPLOY / "entrypoint.sh")
    given = {
        "SPARK_DRIVER_URL": "spark://driver:1",
        "SPARK_EXECUTOR_ID": "7",
        "SPARK_EXECUTOR_CORES": "4",
        "SPARK_EXECUTOR_MEMORY": "6g",
        "SPARK_APPLICATION_ID": "app",
        "SPARK_EXECUTOR_POD_IP": "10.0.0.7",
        "SPARK_EXECUTOR_POD_NAME": "pod-7",
        "SPARK_RESOURCE_PROFILE_ID": "0",
    }
    options = {"SPARK_JAVA_OPT_10": "-Dlast", "SPARK_JAVA_OPT_0": "-Dfirst=a b"}
    options |= {f"SPARK_JAVA_OPT_{number}": f"-D{number}" for number in range(1, 10)}
    env = _program(tmp_path, "java", 'printf "%s\\n" "$@"') | given | options | {"SPARK_HOME": "/spark"}
    lines = _said([entrypoint, "executor"], env).splitlines()
    assert lines[:12] == ["-Dfirst=a b", *(f"-D{number}" for number in range(1, 10)), "-Dlast", "-Xmx6g"]
    assert lines[12:14] == ["-cp", "/spark/conf:/spark/jars/*"]
    assert {*given.values()} - {"6g"} <= {*lines}
    backend = lines[14]
    assert backend.replace(".", "/").encode() in _words_of_spark()
    for word in (*given, *(line for line in lines if line.startswith("--"))):
        assert word.encode() in _words_of_spark(), word
    assert _said([entrypoint, "printf", "%s|", "executor", "a b"], env) == "executor|a b|"


def test_gpus_are_told_in_the_form_that_spark_reads(tmp_path: Path) -> None:
    env = _program(tmp_path, "nvidia-smi", "echo 0; echo 1")
    assert json.loads(_said([str(DEPLOY / "gpus.sh")], env)) == {"name": "gpu", "addresses": ["0", "1"]}
    failing = subprocess.run(
        [DEPLOY / "gpus.sh"], env=_program(tmp_path, "nvidia-smi", "exit 9"), capture_output=True, check=False
    )
    assert failing.returncode
    assert not failing.stdout


def test_the_connections_are_what_the_dags_take() -> None:
    connections = [json.loads(text) for text in re.findall(r"AIRFLOW_CONN_SPARK_DEFAULT='(.*)'", PAGE)]
    assert len(connections) == 3
    (accepted,) = re.findall(r're\.match\(r"(local.*?)", host\)', (ROOT / "dags" / "stages.py").read_text("utf-8"))
    for connection in connections:
        assert connection["conn_type"] == "spark"
        assert re.match(accepted, connection["host"])
        assert connection["extra"]["deploy-mode"] == "client"


def test_sizes_and_costs_follow_from_what_was_measured() -> None:
    measured = json.loads((ROOT / "docs" / "scale.json").read_text(encoding="utf-8"))
    stages = {size: {stage["name"]: stage for stage in found["stages"]} for size, found in measured.items()}
    a_day = ("stage_sources, a day", "build_sequences, a day", "score")
    first = ("stage_sources, 89 days", "build_sequences, all")

    def wall_s(stage: str, size: str = "1000000") -> float:
        return float(stages[size][stage]["ran"]["wall_s"])

    def growth_s(stage: str) -> float:
        """Of two cores, for a million more."""
        return (wall_s(stage) - wall_s(stage, "10000")) / 0.99

    def estimated_s(names: Iterable[str], millions: int, cores: int) -> float:
        return sum(wall_s(name, "10000") + 2 * growth_s(name) * (millions - 0.01) / (cores * 0.8) for name in names)

    def row(begins: str) -> list[float]:
        (cells,) = re.findall(rf"^\| {re.escape(begins)} \|(.*)\|.*\|$", COST, re.MULTILINE)
        return [float(number) for number in re.findall(r"[\d.]+", cells)]

    def wrote_gib(names: Iterable[str]) -> float:
        return sum(float(stages["1000000"][name]["wrote_mib"]) for name in names) / 1024

    assert row("1 million | 2") == [round(sum(map(wall_s, names)) / 60, 1) for names in (a_day, ("train",), first)]
    train_s = {millions: wall_s("train", "10000") + growth_s("train") * (millions - 0.01) for millions in (1, 20)}
    for millions, cores in ((1, 8), (20, 32), (20, 64)):
        seconds = (estimated_s(a_day, millions, cores), train_s[millions], estimated_s(first, millions, cores))
        assert row(f"{millions} million | {cores}") == [round(each / 60, 1) for each in seconds], (millions, cores)
    words = r"staging a day (\d+), building (\d+), scoring (\d+); staging 89 days\s(\d+), building all (\d+)"
    assert re.findall(words, COST) == [tuple(f"{2 * growth_s(name):.0f}" for name in (*a_day, *first))]
    hours = [(estimated_s(a_day, m, cores) + train_s[m]) / 3600 for m, cores in ((1, 8), (20, 64))]
    assert row("hours a day") == [round(each, 2) for each in hours]
    costs = [hour * (cores + 4) * 0.05 for hour, cores in zip(hours, (8, 64), strict=True)]
    assert row("compute a day") == [round(each, 2) for each in costs]
    year_gb = (wrote_gib(first) + 365 * wrote_gib(a_day)) * 1.024**3
    assert row("S3 a month, after a year") == [round(year_gb * 0.023 * millions, 1) for millions in (1, 20)]
    assert row("store: first load") == [round(wrote_gib(first), 1), round(20 * wrote_gib(first))]
    assert row("store: a day more") == [round(wrote_gib(a_day), 2), round(20 * wrote_gib(a_day), 1)]


ON_EXECUTORS = """
import sys
import polars as pl
from pipelines.config import load_config
from pipelines.spark.buckets import map_buckets
from pipelines.spark.ranks import run_on_ranks
from pipelines.spark.session import spark_session

def where(bucket):
    import pipelines
    return pl.DataFrame({"file": [pipelines.__file__]})

def work(resume, say, at, tell):
    import torch, torch.distributed as dist
    dist.all_reduce(torch.ones(1))
    return dist.get_world_size()

config = load_config(sys.argv[1])
with spark_session(config, "score 2024-01-01", "train") as spark:
    print("code from", *map_buckets(spark, [0, 1], where, pl.Schema({"file": pl.String()}))["file"])
    print("ranks:", run_on_ranks(spark, config.distributor, work, {}, False, print).result)
"""
SMALL = """
"spark.executor.instances" = "2"
"spark.executor.cores" = "1"
"spark.executor.memory" = "600m"
"spark.executor.memoryOverhead" = "400m"
"spark.kubernetes.executor.enableApiWatcher" = "false"  # asks, as the stand-in only answers
"spark.kubernetes.executor.apiPollingInterval" = "1s"

[distributor]
processes = 2
local = false
attempts = 1
wait_s = 120
"""


def _container(folder: Path) -> Callable[[Pod], subprocess.Popen[bytes]]:
    """What a node would do with a pod: its command with its variables, in a folder of its own."""

    def start(pod: Pod) -> subprocess.Popen[bytes]:
        name, (container,) = pod["metadata"]["name"], pod["spec"]["containers"]
        fields = {"status.podIP": "127.0.0.1", "metadata.name": name}
        given = {
            variable["name"]: variable["value"]
            if "value" in variable
            else fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
            for variable in container["env"]
        }
        place = folder / name
        place.mkdir()
        image = {"PATH": os.environ["PATH"], "SPARK_HOME": str(SPARK), "LANG": "C.UTF-8"}  # as python's images have it
        mounted = {"SPARK_CONF_DIR": str(place), "SPARK_LOCAL_DIRS": str(place)}
        with (folder / f"{name}.log").open("wb") as log:
            command = [str(DEPLOY / "entrypoint.sh"), *container["args"]]
            return subprocess.Popen(command, cwd=place, env=image | given | mounted, stdout=log, stderr=log)

    return start


@pytest.mark.spark
@pytest.mark.cluster
def test_the_page_s_settings_start_executors_in_pods(tmp_path: Path) -> None:
    """spark-submit to Kubernetes with the page's block, template and entrypoint; only the API server is a stand-in."""
    (block,) = [block for block in BLOCKS.values() if "k8s://" in block]
    (tmp_path / "pods").mkdir()
    (tmp_path / "m2m").symlink_to(ROOT)  # whose own path may have a blank, which Spark's template must not
    with pod_server("worker-0", _container(tmp_path / "pods")) as (address, pods):
        here = {
            "https://kubernetes.default.svc:443": address,
            "/opt/m2m/": f"{tmp_path}/m2m/",
            "/usr/local/bin/python3.11": sys.executable,
        }
        for of_page, of_test in here.items():
            assert of_page in block
            block = block.replace(of_page, of_test)
        settings = _loaded(tmp_path, block + SMALL).spark.conf
        (tmp_path / "stage.py").write_text(ON_EXECUTORS)
        # As a DAG's task does it: what refers to the environment is left to the stage.
        known = {key: str(value) for key, value in settings.items() if not value.refers}
        known["spark.pyspark.driver.python"] = sys.executable
        command = [str(SPARK / "bin" / "spark-submit"), "--master", f"k8s://{address}", "--deploy-mode", "client"]
        command += [word for key, value in known.items() for word in ("--conf", f"{key}={value}")]
        command += ["--name", "m2m score 2024-01-01", str(tmp_path / "stage.py"), str(tmp_path / "pipeline.toml")]
        kept = {key: os.environ[key] for key in ("PATH", "JAVA_HOME", "LANG") if key in os.environ}
        own = {"M2M_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT), "SPARK_HOME": str(SPARK)}
        own |= {"POD_NAME": "worker-0", "POD_IP": "127.0.0.1"}
        done = subprocess.run(command, env=kept | own, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr + "".join(log.read_text() for log in (tmp_path / "pods").glob("*.log"))
    assert done.stdout.count(".zip/pipelines/__init__.py") == 2
    assert "ranks: 2" in done.stdout
    for pod in pods:
        (container,) = pod["spec"]["containers"]
        assert pod["metadata"]["namespace"] == "forecasting"
        assert pod["metadata"]["ownerReferences"][0]["name"] == "worker-0"
        assert pod["spec"]["serviceAccountName"] == "m2m-executor"
        assert pod["spec"]["securityContext"]["runAsUser"] == 50000
        assert container["image"] == "registry.example.com/m2m:0.2.0"
        assert container["workingDir"] == "/work"
        assert {"memory": "1000Mi", "ephemeral-storage": "40Gi"}.items() <= container["resources"]["limits"].items()
        assert {"name": "SPARK_LOCAL_DIRS", "value": "/var/spark"} in container["env"]
