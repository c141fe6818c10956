"""A stage run as a person runs it, one process from its start to its end: time, and memory of its process tree by part;
and where the time of a stage within this process goes.

Memory is resident memory, sampled every 0.2 s; pages that processes share are counted once for each of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

from pipelines.config import Config, load_config

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("driver", "driver JVM", "executor JVMs", "workers", "training")


@dataclass(frozen=True)
class Ran:
    """``cpu_s`` is user + system time of the tree, as far as its processes were waited for. ``peak_mib``: the largest
    sum of each part's processes, ``anonymous_mib``: without the files that they map; "all" is the whole tree."""

    wall_s: float
    cpu_s: float
    peak_mib: dict[str, float]
    anonymous_mib: dict[str, float]


def run(command: list[str], home: Path, log: Path) -> Ran:
    """Run a Python command in the repository with its state under ``home``, and watch its process tree.

    Raises:
        SystemExit: it failed.
    """
    peak, anonymous = Counter[str](), Counter[str]()
    started, before = time.monotonic(), os.times()
    with log.open("wb") as out:
        process = psutil.Popen(
            [sys.executable, *command], cwd=ROOT, env=os.environ | {"M2M_HOME": str(home)}, stdout=out, stderr=out
        )
        while process.poll() is None:
            total, own = resident(process)
            peak, anonymous = peak | total, anonymous | own  # the larger of each part
            time.sleep(0.2)
    seconds, after = time.monotonic() - started, os.times()
    if process.returncode:
        said = log.read_text(encoding="utf-8", errors="replace")[-3000:]
        sys.exit(f"`{' '.join(command)}` ended with {process.returncode}:\n{said}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    in_mib = [{part: most[part] / 2**20 for part in (*PARTS, "all")} for most in (peak, anonymous)]
    return Ran(seconds, cpu, *in_mib)


def resident(root: psutil.Process) -> tuple[Counter[str], Counter[str]]:
    """Bytes in memory by part, and those of them that are no file's."""
    total, anonymous = Counter[str](), Counter[str]()
    try:
        members = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        members = []
    for member in members:
        try:
            memory, part = member.memory_info(), part_of(member, root)
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue  # it ended between the listing and the look
        for name in (part, "all"):
            total[name] += memory.rss
            anonymous[name] += memory.rss - memory.shared
    return total, anonymous


def part_of(member: psutil.Process, root: psutil.Process) -> str:
    """Which of ``PARTS`` a process is; in local mode the driver's JVM is the executor too."""
    if member.pid == root.pid:
        return "driver"
    words = " ".join(member.cmdline())
    if "java" in member.name():
        return "executor JVMs" if "CoarseGrainedExecutorBackend" in words else "driver JVM"
    return "workers" if "pyspark.daemon" in words else "training"


@contextmanager
def watched(functions: Iterable[tuple[Any, str]]) -> Iterator[defaultdict[str, float]]:
    """Seconds spent in functions of this process, each named by its owner (a module or a class) and its name."""
    spent = defaultdict[str, float](float)

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                spent[function.__name__] += time.perf_counter() - started

        return call

    with ExitStack() as stack:
        for owner, name in functions:
            stack.enter_context(patch.object(owner, name, timed(getattr(owner, name))))
        yield spent


def simulated(advertisers: int, days: int, folder: Path) -> Config:
    """A deployment of its own with the raw rows of made-up advertisers, in ``folder``."""
    home, config_path = folder / "home", folder / "simulated" / "pipeline.toml"
    shutil.copytree(ROOT / "examples" / "simulated", config_path.parent)
    os.environ["M2M_HOME"] = str(home)
    config = load_config(config_path)
    generate = ["examples/simulated/generate.py", "--advertisers", str(advertisers), "--days", str(days)]
    run([*generate, "--out", str(config.home / "raw")], home, folder / "log.txt")
    return config


def make_page(
    description: str | None, advertisers: int, report: Callable[[int, int, Path], tuple[list[str], dict[str, float]]]
) -> None:
    """The command line of a benchmark: print ``report(advertisers, turns, folder)``, its page and then its ratios."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--advertisers", type=int, default=advertisers)
    parser.add_argument("--turns", type=int, default=3, help="of every side, after one to warm up")
    parser.add_argument("--out", type=Path, help="also write the page to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines, ratios = report(arguments.advertisers, arguments.turns, Path(folder))
    page = "\n".join(lines)
    if arguments.out:
        arguments.out.write_text(page, encoding="utf-8")
    print(page)
    print(json.dumps(ratios))


def machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    today = datetime.now(UTC).date()
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}, {today}"
    )
