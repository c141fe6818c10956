"""Time and peak memory of every stage on the shipped data sets, as a table.

    python benchmarks/stages.py [--data online_ads online_retail] [--out benchmarks/stages.md]

Each stage runs as a person would run it: one process, JVM start included, in a fresh M2M_HOME. Memory is the largest
sum of resident sizes over the stage's whole process tree (Python, JVM, Spark's Python workers, training ranks), sampled
every 0.1 s; pages that processes share are counted once for each of them. The last line is the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import tomllib
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
LAST_DAYS = {"online_ads": date(2020, 6, 30), "online_retail": date(2011, 12, 9)}


@dataclass(frozen=True)
class Measured:
    """One stage. ``cpu_s`` is user + system time of the tree, as far as its processes were waited for."""

    data: str
    stage: str
    wall_s: float
    cpu_s: float
    peak_mib: float


def stages(config: Path, last: date) -> list[tuple[str, list[str]]]:
    """The demo's stages: the history up to the day before the last one, then the last day."""
    first = tomllib.loads(config.read_text(encoding="utf-8"))["dataset"]["first_day"]
    before = str(last - timedelta(days=1))
    history = ["--from", str(first), "--to", before]
    loads = [("stage_sources", history)]
    loads += [(name, ["--date", before]) for name in ("build_sequences", "train", "backtest", "promote", "score")]
    return loads + [(name, ["--date", str(last)]) for name in ("stage_sources", "build_sequences", "score", "monitor")]


def measure(data: str, stage: str, arguments: list[str], config: Path, home: Path) -> Measured:
    """Run one stage and watch its process tree.

    Raises:
        SystemExit: the stage failed.
    """
    command = [sys.executable, "-m", f"pipelines.{stage}", "--config", str(config), *arguments]
    log = home / "log.txt"
    started, peak = time.monotonic(), 0
    with log.open("wb") as out:
        process = psutil.Popen(command, cwd=ROOT, env=os.environ | {"M2M_HOME": str(home)}, stdout=out, stderr=out)
        before = os.times()
        while process.poll() is None:
            peak = max(peak, tree_rss(process))
            time.sleep(0.1)
    after = os.times()
    if process.returncode:
        sys.exit(f"{data} {stage} ended with {process.returncode}:\n{log.read_text(encoding='utf-8')[-3000:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    span = f"{stage} ({'history' if '--from' in arguments else arguments[-1]})"
    return Measured(data, span, time.monotonic() - started, cpu, peak / 2**20)


def tree_rss(process: psutil.Popen) -> int:
    total = 0
    try:
        for member in [process, *process.children(recursive=True)]:
            total += member.memory_info().rss
    except psutil.NoSuchProcess:
        pass  # it ended between the listing and the look
    return total


def machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    today = datetime.now(UTC).date()
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}, {today}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(LAST_DAYS), choices=list(LAST_DAYS))
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    found = []
    lines = [
        "# Time and memory per stage",
        "",
        f"Made by `python benchmarks/stages.py` on: {machine()}; load before it: {os.getloadavg()[0]:.1f}.",
        "Each stage is one process, JVM start included.",
        "",
        "| data | stage | wall s | cpu s | peak MiB |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    print("\n".join(lines), flush=True)
    for data in arguments.data:
        config = ROOT / "examples" / data / "pipeline.toml"
        with tempfile.TemporaryDirectory() as home:
            for stage, options in stages(config, LAST_DAYS[data]):
                row = measure(data, stage, options, config, Path(home))
                found.append(row)
                line = f"| {row.data} | {row.stage} | {row.wall_s:.1f} | {row.cpu_s:.1f} | {row.peak_mib:,.0f} |"
                lines.append(line)
                print(line, flush=True)
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(json.dumps([asdict(row) for row in found]))


if __name__ == "__main__":
    main()
