"""Stages on the cluster of the tests, each a process as a person or spark-submit starts it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from deployment import FIRST_DAY, SQL, TOML, Deployment, day
from local_cluster import LocalCluster

ROOT = Path(__file__).resolve().parents[1]
AS_OF = day(52)
CHAIN: dict[str, tuple[object, ...]] = {
    "stage_sources": ("--from", FIRST_DAY, "--to", day(59)),
    "build_sequences": ("--date", AS_OF),
    "train": ("--date", AS_OF),
    "backtest": ("--date", AS_OF),
    "promote": ("--date", AS_OF),
    "score": ("--date", AS_OF),
    "monitor": ("--date", day(59)),
    "explain": ("--date", AS_OF),
    "drift": ("--date", AS_OF),
}
SHORT_LIVED = {"SPARK_SUBMIT_OPTS": "-XX:TieredStopAtLevel=1"}  # no driver here is worth Java's second compiler
_RANKS = """
[distributor]
processes = 2
local = false
attempts = 6
threads = 1

[spark.conf]
"spark.executor.extraJavaOptions" = "-XX:TieredStopAtLevel=1"  # nothing here runs long enough for the second compiler
# Whatever takes longer than another task is done twice.
"spark.speculation" = "true"
"spark.speculation.quantile" = "0.1"
"spark.speculation.multiplier" = "1.01"
"spark.speculation.minTaskRuntime" = "1ms"
"""


def deployed(folder: Path) -> Deployment:
    """A small data set of 60 days, whose two ranks take some seconds to train on executors."""
    deployment = Deployment(folder / "tiny", lambda: "")
    deployment.folder.mkdir()
    text = TOML.replace("[backtest]", f"{_RANKS}\n[backtest]").replace("max_windows = 400", "max_windows = 40000")
    text = text.replace("min_steps = 4", "min_steps = 400\npatience = 1000\ncheckpoint_every_steps = 20")
    deployment.toml.write_text(text.replace("epochs = 2", "epochs = 4"))
    (deployment.folder / "performance_daily.sql").write_text(SQL)
    deployment.write_days(FIRST_DAY, 60)
    return deployment


@dataclass
class Process:
    """A stage that runs, and what it has said so far, with the second of each line."""

    process: subprocess.Popen[str]
    said: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.said.append((time.monotonic(), line))

    @property
    def text(self) -> str:
        return "".join(line for _, line in self.said)

    def says(self, pattern: str, within_s: float = 120, after: float = 0) -> tuple[float, str]:
        """When the first such line (after a moment) came, and the line."""
        return until(
            lambda: next(((at, line) for at, line in list(self.said) if at > after and re.search(pattern, line)), None),
            within_s,
            lambda: f"{pattern}: not in\n{self.text}",
            self,
        )

    def end(self, within_s: float = 240) -> tuple[int, str]:
        status = self.process.wait(within_s)
        self._reader.join()
        return status, self.text


@dataclass
class OnCluster:
    """Starts stages on the cluster from a folder that has nothing to do with the code."""

    deployment: Deployment
    home: Path
    master: str
    started: list[Process] = field(default_factory=list)

    def start(self, stage: str, *arguments: object, toml: Path | None = None, **env: str) -> Process:
        config = str(toml or self.deployment.toml)
        return self.python(ROOT / "pipelines" / "__main__.py", stage, "--config", config, *arguments, **env)

    def run(self, stage: str, *arguments: object, **env: str) -> str:
        status, said = self.start(stage, *arguments, **env).end()
        assert status == 0, said
        return said

    def python(self, *command: object, **env: str) -> Process:
        kept = {key: os.environ[key] for key in ("PATH", "JAVA_HOME", "LANG") if key in os.environ}
        own = {
            "M2M_HOME": str(self.home),
            "M2M_MASTER": self.master,
            "SPARK_LOCAL_IP": "127.0.0.1",
            **SHORT_LIVED,
            **env,
        }
        process = subprocess.Popen(
            [sys.executable, "-u", *map(str, command)],
            cwd=self.deployment.folder.parent,
            env=kept | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(Process(process))
        return self.started[-1]

    def variant(self, name: str, old: str, new: str) -> Path:
        """The configuration with something else in it."""
        text = self.deployment.toml.read_text()
        assert old in text
        path = self.deployment.folder / f"{name}.toml"
        path.write_text(text.replace(old, new))
        return path


def until(found: Callable[[], Any], within_s: float, otherwise: Callable[[], str], run: Process | None = None) -> Any:
    """What is found, once it is; fails when it is not in time, or cannot be any more."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if (value := found()) not in (None, False, [], 0):
            return value
        if run and run.process.poll() is not None:
            time.sleep(0.5)  # its last words
            if (value := found()) not in (None, False, [], 0):
                return value
            break
        time.sleep(0.05)
    pytest.fail(otherwise())


def trainers(cluster: LocalCluster) -> dict[int, psutil.Process]:
    """By rank, the processes that train: each is the child of its sitter, and looks like it."""
    found = {}
    for executor in cluster.executors():
        for process in executor.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                command = process.cmdline()
                if (
                    command
                    and command[-1].endswith("/train.py")
                    and command == psutil.Process(process.ppid()).cmdline()
                ):
                    found[int(process.environ()["RANK"])] = process
    return found


@dataclass
class Disturbed:
    """What each stage said, and the training processes that there were."""

    on: OnCluster
    cluster: LocalCluster
    said: dict[str, str] = field(default_factory=dict)
    trained: list[psutil.Process] = field(default_factory=list)

    def run(self, stage: str) -> None:
        run = self.on.start(stage, *CHAIN[stage])
        if stage == "train":
            self._fail_in_training(run)
        elif stage in ("build_sequences", "score"):
            busy = until(lambda: [e for e in self.cluster.executors() if e.children()], 240, lambda: run.text, run)
            at = time.monotonic()
            busy[0].kill()
            run.end()
            record(f"an executor killed in {stage}: done after", time.monotonic() - at)
        status, self.said[stage] = run.end()
        assert status == 0, run.text

    def _fail_in_training(self, run: Process) -> None:
        cluster, checkpoints, newest = self.cluster, self.on.home / "tiny" / "training", ""

        def train_on() -> bool:
            """Whether all ranks train, and have written one more checkpoint."""
            nonlocal newest
            latest = max((path.name for path in checkpoints.glob("*/checkpoints/*.pt")), default="")
            ranks = trainers(cluster)
            if latest <= newest or len(ranks) < 2:
                return False
            newest = latest
            self.trained += [process for rank in ranks.values() for process in (rank, *rank.parents()[:1])]
            return True

        failures: tuple[tuple[str, Callable[[], object], str], ...] = (
            ("a rank killed", lambda: trainers(cluster)[1].kill(), r"rank 1 on \S+ at step \d+: killed by SIGKILL"),
            ("a rank stopped", lambda: trainers(cluster)[0].suspend(), r"rank 0 on .+: no sign of life for 25 s"),
            ("an executor killed", lambda: cluster.executors()[0].kill(), r"rank \d on .+: its executor was lost"),
            ("a sitter killed", lambda: trainers(cluster)[1].parent().kill(), r"rank 1 on .+: gone without a word"),
        )
        for attempt, (what, how, expected) in enumerate(failures, 1):
            until(train_on, 120, lambda: f"attempt {attempt} does not train: {run.text}", run)  # noqa: B023
            at = time.monotonic()
            how()
            heard, line = run.says(rf"attempt {attempt} of 6 failed", 60)
            assert re.search(expected, line), line
            again, _ = run.says(r"resuming at step \d+/400", 120, after=heard)
            record(f"{what}: told by the driver", heard - at)
            record(f"{what}: trains again", again - at)


def record(what: str, seconds: float) -> None:
    """For docs/reliability.md."""
    print(f"\n{what}: {seconds:.1f} s")
