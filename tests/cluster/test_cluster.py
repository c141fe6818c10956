"""The chain on a master and two workers, and what happens when its machines, processes and disks fail: really done.

The figures of docs/reliability.md are printed by these tests (pytest -m cluster -s).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import psutil
import pytest
from deployment import Deployment
from local_cluster import LocalCluster
from on_cluster import AS_OF, OnCluster, trainers, until

from pipelines.life.registry import Registry


def record(what: str, seconds: float) -> None:
    print(f"\n{what}: {seconds:.1f} s")


def test_the_chain_runs_by_hand_on_the_cluster(chain: dict[str, str], warehouse: Deployment) -> None:
    assert "version 1 of m2m_tiny" in chain["train"]
    assert "epoch 6/6 loss" in chain["train"]  # rank 0's words arrive in the driver's log
    assert "calibrating on" in chain["train"]
    assert "mean NMAE over 2 cutoffs" in chain["backtest"]
    forecasts = warehouse.rows("marts.forecast_daily")
    assert forecasts["ds"].unique().to_list() == [AS_OF]
    assert forecasts.height == 24 * 2
    assert set(warehouse.rows("marts.forecast_quality")["ds"]) == {AS_OF}
    client = Registry(warehouse.config)
    version = client.get("challenger")
    assert version is not None
    idle = client.client.get_run(version.run_id).data.metrics
    assert {name for name in idle if name.startswith("idle_share")} == {"idle_share/rank 0", "idle_share/rank 1"}


def test_training_outlives_killed_and_stopped_ranks_and_a_lost_executor(
    chain: dict[str, str], on: OnCluster, cluster: LocalCluster, warehouse: Deployment
) -> None:
    """All of it in one training, which ends at the weights of the one that nothing happened to."""
    undisturbed = Registry(warehouse.config).get("challenger")
    run = on.start("train", "--date", AS_OF)
    checkpoints, newest = on.home / "tiny" / "training", ""
    seen: list[psutil.Process] = []

    def train_on() -> bool:
        """Whether all ranks train, and have written one more checkpoint."""
        nonlocal newest
        latest, ranks = (
            max((path.name for path in checkpoints.glob("*/checkpoints/*.pt")), default=""),
            trainers(cluster),
        )
        if latest <= newest or len(ranks) < 2:
            return False
        newest = latest
        seen.extend(process for rank in ranks.values() for process in (rank, *rank.parents()[:1]))
        return True

    def fail(attempt: int, what: str, how: Callable[[], object], expected: str) -> None:
        until(train_on, 120, lambda: f"attempt {attempt} does not train: {run.text}", run.process)
        at = time.monotonic()
        how()
        heard, line = run.says(rf"attempt {attempt} of 6 failed", 60)
        assert re.search(rf"{expected}", line), line
        again, _ = run.says(r"resuming at step \d+/600", 120, after=heard)
        record(f"{what}: told by the driver", heard - at)
        record(f"{what}: trains again", again - at)

    fail(1, "a rank killed", lambda: trainers(cluster)[1].kill(), r"rank 1 on \S+ at step \d+: killed by SIGKILL")
    fail(
        2,
        "a rank stopped",
        lambda: trainers(cluster)[0].suspend(),
        r"rank 0 on \S+ at step \d+: no sign of life for 25",
    )
    fail(
        3,
        "an executor killed",
        lambda: cluster.executors()[0].kill(),
        r"rank \d on \S+ at step \d+: its executor was lost",
    )
    fail(4, "a sitter killed", lambda: trainers(cluster)[1].parent().kill(), r"rank 1 on \S+ at step \d+: gone without")
    status, said = run.end()
    assert status == 0, said
    resumed = Registry(warehouse.config).get("challenger")
    assert undisturbed is not None
    assert resumed is not None
    assert resumed.version != undisturbed.version
    weights = [(version.folder / "weights.safetensors").read_bytes() for version in (undisturbed, resumed)]
    assert weights[0] == weights[1]
    until(lambda: not [each for each in seen if each.is_running()], 20, lambda: f"still there: {seen}")


DRIVER = """
import sys, time
from dataclasses import replace
from pipelines.config import load_config
from pipelines.spark.buckets import map_buckets
from pipelines.spark.ranks import run_on_ranks
from pipelines.spark.session import spark_session
import polars as pl

def work(resume, say, at):
    import os
    import torch, torch.distributed as dist
    import m2m_model, pipelines
    assert ".zip" in m2m_model.__file__ and ".zip" in pipelines.__file__, m2m_model.__file__
    rank = dist.get_rank()
    for step in range(5):
        dist.all_reduce(torch.ones(1))
        at(step, 0.0)
    if not resume and rank == 1:
        raise RuntimeError("the battery of rank one is empty")
    dist.all_reduce(torch.ones(1))
    spin, gpus = (os.environ[name] for name in ("GOMP_SPINCOUNT", "CUDA_VISIBLE_DEVICES"))
    say(f"threads {torch.get_num_threads()} spin {spin} gpus {gpus!r}")
    return dist.get_world_size()

def where(bucket):
    import pipelines
    return pl.DataFrame({"file": [pipelines.__file__]})

config = load_config(sys.argv[1])
with spark_session(config, "ranks", "train") as spark:
    print("code from", map_buckets(spark, [0], where, pl.Schema({"file": pl.String()}))["file"][0])
    settings = replace(config.distributor, processes=3, min_processes=2, wait_s=4, attempts=2)
    print("ranks:", run_on_ranks(spark, settings, work, {}, False, print).result)
"""


def test_a_rank_that_raises_is_quoted_and_too_few_slots_are_waited_for(on: OnCluster, tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    root = str(Path(__file__).resolve().parents[2])
    status, said = on.python(script, on.deployment.toml, PYTHONPATH=root).end()
    assert status == 0, said
    assert ".zip/pipelines/__init__.py" in said
    assert "2 slots for 3 processes, going on with 2 at the same batch size" in said
    assert "attempt 1 of 2 failed, going on from the checkpoint: rank 1 on" in said
    assert "at step 4: RuntimeError: the battery of rank one is empty" in said
    assert "threads 1 spin 1000 gpus ''" in said
    assert "ranks: 2" in said


@pytest.mark.parametrize("stage", ["build_sequences", "score"])
def test_a_stage_outlives_its_executor(
    stage: str, chain: dict[str, str], on: OnCluster, cluster: LocalCluster, warehouse: Deployment
) -> None:
    table = {"build_sequences": "features.advertiser_sequence", "score": "marts.forecast_daily"}[stage]
    before = warehouse.rows(table).drop("run_id", strict=False)
    run = on.start(stage, "--date", AS_OF)
    busy = until(lambda: [each for each in cluster.executors() if each.children()], 60, lambda: run.text, run.process)
    at = time.monotonic()
    busy[0].kill()  # type: ignore[index]
    status, said = run.end()
    record(f"an executor killed in {stage}: done after", time.monotonic() - at)
    assert status == 0, said
    assert warehouse.rows(table).drop("run_id", strict=False).equals(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_at_the_checkpoint_is_named_and_not_tried_again(
    chain: dict[str, str], on: OnCluster, tmp_path: Path
) -> None:
    small = on.home / "tiny" / "training"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    try:
        (small / "filler").write_bytes(b"x" * 850_000)
        status, said = on.start("train", "--date", AS_OF).end()
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert status == 1, said
    assert "disk full. Make room, then run it again. It said: RankError: training failed 1 times" in said
    assert "No space left on device" in said


def test_a_wrong_master_is_told_at_once(on: OnCluster) -> None:
    at = time.monotonic()
    status, said = on.start("score", "--date", AS_OF, M2M_MASTER="spark://127.0.0.1:9").end()
    record("a wrong master", time.monotonic() - at)
    assert status == 1, said
    assert "no Spark master answers at spark://127.0.0.1:9" in said
    assert "Traceback" not in said


def test_a_waiting_application_says_so(chain: dict[str, str], on: OnCluster) -> None:
    toml = on.variant("waiting", "[spark]", '[spark.stages.score]\n"spark.executor.memory" = "64g"\n\n[spark]')
    run = on.start("score", "--date", AS_OF, toml=toml)
    try:
        _, line = run.says("waiting for an executor")
        assert on.master in line
    finally:
        run.process.send_signal(signal.SIGKILL)


def test_executors_with_other_packages_are_refused(chain: dict[str, str], on: OnCluster, tmp_path: Path) -> None:
    other = tmp_path / "polars-0.0.1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: polars\nVersion: 0.0.1\n")
    path = f'[spark.stages.score]\n"spark.executorEnv.PYTHONPATH" = "{tmp_path}"\n\n[spark]'
    status, said = on.start("score", "--date", AS_OF, toml=on.variant("other", "[spark]", path)).end()
    assert status == 2, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("configuration error: the executor on ")
    assert f"has polars 0.0.1, not {pl.__version__}. Install there what the driver has" in last


def test_gpus_that_no_worker_has_are_told(chain: dict[str, str], on: OnCluster) -> None:
    toml = on.variant("gpu", "attempts = 6", "attempts = 6\nuse_gpu = true\nwait_s = 3")
    status, said = on.start("train", "--date", AS_OF, toml=toml).end()
    assert status == 1, said
    assert "training needs 2 slots with a GPU each ([distributor] use_gpu = false does without" in said
    here = on.variant("gpu", "local = false", "use_gpu = true")
    status, said = on.start("train", "--date", AS_OF, toml=here).end()
    assert status == 2, said
    assert "torch finds 0 GPUs on this machine; set use_gpu = false" in said
