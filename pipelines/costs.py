"""What a command has cost so far: time, CPU and memory of its processes on this machine.

It goes with every commit, in the snapshot's properties: a run that is killed afterwards has left it, and no table of
its own is needed. Linux tells; elsewhere only the time is known. Executors on other machines are not counted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
WALL_S, CPU_S, PEAK_MIB = "wall-s", "cpu-s", "peak-mib"


class Meter:
    """From ``begin`` on; the first command of a process is counted from the process's own start."""

    def __init__(self) -> None:
        self._began, self._cpu_s = _started(), 0.0
        self._first = True

    def begin(self) -> None:
        """A command starts."""
        if not self._first:
            self._began, self._cpu_s = _now(), _spent()[0]
        self._first = False

    def so_far(self) -> dict[str, str]:
        """Seconds of the clock, of CPU of all processes, and the most memory that those which live have had, in MiB."""
        cpu_s, peak = _spent()
        wall = {WALL_S: f"{_now() - self._began:.1f}"}
        return wall | ({CPU_S: f"{max(cpu_s - self._cpu_s, 0):.1f}", PEAK_MIB: f"{peak / 1024:.0f}"} if peak else {})


def _root() -> int:
    """The first process of the command: spark-submit's JVM is Python's parent, any other JVM its child."""
    return os.getppid() if "PYSPARK_GATEWAY_PORT" in os.environ else os.getpid()


def _spent() -> tuple[float, int]:
    """Seconds of CPU of the tree, with those of processes that have ended and were waited for; KiB, each process's most
    added up."""
    cpu, peak = 0, 0
    for process in _tree(_root()):
        with suppress(OSError, ValueError, IndexError):
            cpu += sum(map(int, _stat(process)[11:15]))
            status = (process / "status").read_text(encoding="utf-8")
            peak += int(status.partition("VmHWM:")[2].split()[0])
    return cpu / _TICKS, peak


def _tree(root: int) -> Iterator[Path]:
    waiting = [root]
    while waiting:
        process = _PROC / str(waiting.pop())
        yield process
        with suppress(OSError):
            for thread in (process / "task").iterdir():
                with suppress(OSError):  # it ended meanwhile
                    waiting += map(int, (thread / "children").read_text().split())


def _stat(process: Path) -> list[str]:
    """Fields of /proc/PID/stat after the name, which may hold anything."""
    return (process / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _now() -> float:
    """Seconds since the machine started, as /proc counts them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _started() -> float:
    """When the command's first process started."""
    with suppress(OSError, IndexError, ValueError):
        return int(_stat(_PROC / str(_root()))[19]) / _TICKS
    return _now()


METER = Meter()
