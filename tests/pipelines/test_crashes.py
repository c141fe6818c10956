"""A killed process, a full disk, two runs at once: readers see yesterday or today, never half, and a rerun heals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from deployment import FIRST_DAY, Deployment, rows_of_day

from pipelines.life.registry import Registry

pytestmark = pytest.mark.spark

ROOT = Path(__file__).resolve().parents[2]
TABLE = "staged.performance_daily"
NEXT = FIRST_DAY + timedelta(days=8)

KILLED = """
import os, signal, sys
from pipelines import stage_sources
from pipelines.warehouse.commits import Warehouse
Warehouse.commit = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
stage_sources.main(sys.argv[1:])
"""


@pytest.fixture
def staged(deployment: Deployment) -> Deployment:
    last = deployment.write_days(FIRST_DAY, 8)
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)[0] == 0
    deployment.write_day(NEXT)
    return deployment


def _command(deployment: Deployment, *start: str) -> list[str]:
    return [sys.executable, *start, "--config", str(deployment.toml), "--date", str(NEXT)]


def test_a_process_killed_between_write_and_commit_publishes_nothing(staged: Deployment) -> None:
    before, snapshot = staged.rows(TABLE), staged.warehouse.snapshot_id(TABLE)
    found = subprocess.run(_command(staged, "-c", KILLED), cwd=ROOT, capture_output=True, check=False)
    assert found.returncode == -signal.SIGKILL
    written = list((staged.config.home / "warehouse").rglob(f"ds={NEXT}/*.pq"))
    assert written  # the files are there, and nobody sees them
    assert staged.warehouse.snapshot_id(TABLE) == snapshot
    assert staged.rows(TABLE).equals(before)
    assert staged.run("stage_sources", "--date", NEXT)[0] == 0
    assert staged.warehouse.days(TABLE)[NEXT] == rows_of_day(NEXT).height


def test_two_runs_of_one_date_at_once_leave_one_whole_day(staged: Deployment) -> None:
    command = _command(staged, "-m", "pipelines.stage_sources")
    runs = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(2)]
    outputs = [run.communicate()[0].decode() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert staged.warehouse.days(TABLE)[NEXT] == rows_of_day(NEXT).height


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_is_named_and_publishes_nothing(staged: Deployment, tmp_path: Path) -> None:
    small = staged.config.home / "warehouse" / "tiny_staged" / "performance_daily" / "data"
    before = staged.rows(TABLE)
    kept = tmp_path / "kept"
    small.rename(kept)
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=True)
    try:
        for run in kept.iterdir():  # what was committed stays readable beside the little that is left
            (small / run.name).symlink_to(run)
        (small / "filler").write_bytes(b"x" * 64 * 1024)
        status, said = staged.run("stage_sources", "--date", NEXT)
        assert status == 1, said
        assert "failed, nothing was published:" in said
        assert f"disk full. Make room, then run it again. It said: OSError: {small}/run=" in said
        assert f"ds={NEXT}/" in said
        assert staged.rows(TABLE).equals(before)
        (small / "filler").unlink()
        assert staged.run("stage_sources", "--date", NEXT)[0] == 0
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_training_killed_between_checkpoints_goes_on_to_the_same_weights(deployment: Deployment) -> None:
    deployment.edit("min_steps = 4", "min_steps = 200\ncheckpoint_every_steps = 5\npatience = 1000")
    deployment.edit("max_windows = 400", "max_windows = 60000")
    deployment.edit("epochs = 2", "epochs = 4")
    deployment.edit("[backtest]", "[distributor]\nprocesses = 2\nthreads = 1\n\n[backtest]")
    last = deployment.write_days(FIRST_DAY, 60)
    deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)
    assert deployment.run("build_sequences", "--date", last)[0] == 0
    command = [sys.executable, "-m", "pipelines.train", "--config", str(deployment.toml), "--date", str(last)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as training:
        folder = deployment.config.home / "training"
        while not list(folder.glob("*/checkpoints/*.pt")):
            assert training.poll() is None, training.communicate()[0].decode()
            time.sleep(0.01)
        training.kill()
    status, said = deployment.run("train", "--date", last)
    assert status == 0, said
    assert "going on from a checkpoint" in said
    registry = Registry(deployment.config)
    resumed = registry.get("challenger")
    assert deployment.run("train", "--date", last, "--from-scratch")[0] == 0
    whole = registry.get("challenger")
    assert resumed is not None
    assert whole is not None
    assert (resumed.version, whole.version) == ("1", "2")  # the killed one registered nothing
    weights = [(version.folder / "weights.safetensors").read_bytes() for version in (resumed, whole)]
    assert weights[0] == weights[1]
