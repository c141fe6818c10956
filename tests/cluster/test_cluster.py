"""The chain on a master and two workers, and what happens when its machines, processes and disks fail: really done.

The figures of docs/reliability.md are printed by these tests (pytest -m cluster -s).
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest
from deployment import Deployment
from local_cluster import LocalCluster
from on_cluster import AS_OF, Disturbed, OnCluster, record, until
from polars.testing import assert_frame_equal

from pipelines.life.registry import Registry


def test_the_chain_runs_by_hand_on_the_cluster(chain: Disturbed, warehouse: Deployment) -> None:
    assert "version 1 of m2m_tiny" in chain.said["train"]
    assert "epoch 4/4 loss" in chain.said["train"]  # rank 0's words arrive in the driver's log
    assert "calibrating on" in chain.said["train"]
    assert "mean NMAE over 2 cutoffs" in chain.said["backtest"]
    forecasts = warehouse.rows("marts.forecast_daily")
    assert forecasts["ds"].unique().to_list() == [AS_OF]
    assert forecasts.height == 24 * 2
    assert set(warehouse.rows("marts.forecast_quality")["ds"]) == {AS_OF}
    client = Registry(warehouse.config)
    version = client.get("challenger")
    assert version is not None
    logged = client.client.get_run(version.run_id).data.metrics
    for rank in ("rank 0", "rank 1"):
        assert 0 < logged[f"idle_share/{rank}"] < 1
        assert logged[f"rows_per_second/{rank}"] > 0


def test_what_is_killed_on_the_way_changes_no_figure(
    chain: Disturbed, laptop: Deployment, warehouse: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four failures in training, an executor lost in building and in scoring: all is as on a laptop, undisturbed."""
    of_the_run = ("run_id", "sequence_snapshot_id")
    tables = ("features.advertiser_sequence", "marts.forecast_daily", "marts.churn_risk", "marts.backtest")
    found = [warehouse.rows(table).drop(of_the_run, strict=False) for table in tables]
    weights = weights_of(warehouse)
    monkeypatch.setenv("M2M_HOME", str(laptop.folder.parent / "home"))
    assert weights_of(laptop) == weights
    for table, rows in zip(tables, found, strict=True):
        assert_frame_equal(laptop.rows(table).drop(of_the_run, strict=False), rows)


def weights_of(deployment: Deployment) -> bytes:
    version = Registry(deployment.config).get("champion")
    assert version is not None
    return (version.folder / "weights.safetensors").read_bytes()


def test_nothing_of_a_failure_stays_behind(chain: Disturbed, on: OnCluster) -> None:
    until(
        lambda: not [each for each in chain.trained if each.is_running()], 20, lambda: f"still there: {chain.trained}"
    )
    assert [*on.home.glob("tiny/training/*"), *on.home.glob("tiny/runs/*")] == []
    assert [path for path in on.home.rglob("*") if path.suffix == ".partial" or path.name.startswith(".part")] == []


DRIVER = """
import sys, time
from dataclasses import replace
from pipelines.config import load_config
from pipelines.spark.buckets import map_buckets
from pipelines.spark.ranks import run_on_ranks
from pipelines.spark.session import spark_session
import polars as pl

def its_worker():
    import psutil
    return next(p for p in psutil.Process().parents() if "org.apache.spark.deploy.worker.Worker" in p.cmdline())

def work(resume, say, at, tell):
    import os
    import torch, torch.distributed as dist
    import m2m_model, pipelines
    assert ".zip" in m2m_model.__file__ and ".zip" in pipelines.__file__, m2m_model.__file__
    rank, world = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE"))
    for step in range(5):
        if world > 1:
            dist.all_reduce(torch.ones(1))
        at(step, 0.0, 0)
    if rank == 1 and not resume:
        raise RuntimeError("the battery of rank one is empty")
    if rank == 1:
        its_worker().kill()
        time.sleep(60)
    if world > 1:
        dist.all_reduce(torch.ones(1))
    spin, gpus = (os.environ[name] for name in ("GOMP_SPINCOUNT", "CUDA_VISIBLE_DEVICES"))
    say(f"threads {torch.get_num_threads()} spin {spin} gpus {gpus!r}")
    return world

def where(bucket):
    import pipelines
    return pl.DataFrame({"file": [pipelines.__file__]})

config = load_config(sys.argv[1])
with spark_session(config, "ranks", "train") as spark:
    print("code from", map_buckets(spark, [0], where, pl.Schema({"file": pl.String()}))["file"][0])
    settings = replace(config.distributor, processes=3, min_processes=1, wait_s=4, attempts=3)
    print("ranks:", run_on_ranks(spark, settings, work, {}, False, print).result)
"""


def test_a_rank_that_raises_is_quoted_and_training_goes_on_with_the_slots_that_are_left(
    on: OnCluster, cluster: LocalCluster, tmp_path: Path
) -> None:
    """Three ranks on two slots, and then on one: a worker is lost. Another stage waits for the cores, and says so."""
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    root = str(Path(__file__).resolve().parents[2])
    run = on.python(script, on.deployment.toml, PYTHONPATH=root)
    run.says("code from")
    second = on.start("score", "--date", AS_OF)
    status, said = run.end()
    cluster.add_worker("another")
    assert status == 0, said
    assert ".zip/pipelines/__init__.py" in said
    assert "2 slots for 3 processes, going on with 2 at the same batch size" in said
    assert "attempt 1 of 3 failed, going on from the checkpoint: rank 1 on" in said
    assert "at step 4: RuntimeError: the battery of rank one is empty" in said
    lost = (
        r"attempt 2 of 3 failed, going on from the checkpoint: rank 1 on \S+ at step \d+: its executor was lost: worker"
    )
    assert re.search(lost, said), said
    assert "1 slots for 3 processes, going on with 1 at the same batch size" in said
    assert "threads 1 spin 1000 gpus ''" in said
    assert "ranks: 1" in said
    _, line = second.says("waiting for an executor")
    assert on.master in line


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_at_the_checkpoint_is_named_and_not_tried_again(
    chain: Disturbed, on: OnCluster, tmp_path: Path
) -> None:
    small = on.home / "tiny" / "training"
    on.deployment.edit("epochs = 4", "epochs = 4\nboosted = false")  # whose files would fill it before
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    try:
        (small / "filler").write_bytes(b"x" * 850_000)
        status, said = on.start("train", "--date", AS_OF).end()
    finally:
        subprocess.run(["umount", str(small)], check=True)
        on.deployment.edit("\nboosted = false", "")
    assert status == 1, said
    assert "disk full. Make room, then run it again. It said: RankError: training failed 1 times" in said
    assert "No space left on device" in said


def test_a_wrong_master_is_told_at_once(chain: Disturbed, on: OnCluster) -> None:
    at = time.monotonic()
    status, said = on.start("score", "--date", AS_OF, M2M_MASTER="spark://127.0.0.1:9").end()
    record("a wrong master", time.monotonic() - at)
    assert status == 1, said
    assert "no Spark master answers at spark://127.0.0.1:9" in said
    assert "Traceback" not in said


def test_a_task_that_fits_in_no_executor_is_told(chain: Disturbed, on: OnCluster) -> None:
    """Spark waits for ever, and says so at a level that is not printed."""
    wide = '[spark.stages.score]\n"spark.task.cpus" = "2"\n\n[spark]'
    run = on.start("score", "--date", AS_OF, toml=on.variant("wide", "[spark]", wide))
    run.says(r"waiting for an executor for \d+ s: none of the [12] that are there has .*: spark.task.cpus = 2")
    run.process.kill()


def test_executors_with_other_packages_are_refused(chain: Disturbed, on: OnCluster, tmp_path: Path) -> None:
    other = tmp_path / "polars-0.0.1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: polars\nVersion: 0.0.1\n")
    path = f'[spark.stages.score]\n"spark.executorEnv.PYTHONPATH" = "{tmp_path}"\n\n[spark]'
    status, said = on.start("score", "--date", AS_OF, toml=on.variant("other", "[spark]", path)).end()
    assert status == 2, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("configuration error: the executor on ")
    assert f"has polars 0.0.1, not {pl.__version__}. Install there what the driver has" in last


def test_gpus_that_no_worker_has_are_told(chain: Disturbed, on: OnCluster) -> None:
    toml = on.variant("gpu", "attempts = 6", "attempts = 6\nuse_gpu = true\nwait_s = 3")
    status, said = on.start("train", "--date", AS_OF, toml=toml).end()
    assert status == 1, said
    assert "training needs 2 slots with a GPU each ([distributor] use_gpu = false does without" in said
