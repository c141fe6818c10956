"""Time and peak memory of every stage on the shipped data sets, as a table.

    python benchmarks/stages.py [--data online_ads online_retail] [--out benchmarks/stages.md]

Each stage runs as a person would run it: one process, JVM start included, in a fresh M2M_HOME. Memory is the largest
sum over the stage's whole process tree (Python, JVM, Spark's Python workers, training ranks). The last line is the same
as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import tomllib
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

from measure import ROOT, machine, run

LAST_DAYS = {"online_ads": date(2020, 6, 30), "online_retail": date(2011, 12, 9)}


@dataclass(frozen=True)
class Measured:
    """One stage; figures as in ``measure.Ran``."""

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
                command = ["-m", f"pipelines.{stage}", "--config", str(config), *options]
                ran = run(command, Path(home), Path(home) / "log.txt")
                span = f"{stage} ({'history' if '--from' in options else options[-1]})"
                row = Measured(data, span, ran.wall_s, ran.cpu_s, ran.peak_mib["all"])
                found.append(row)
                line = f"| {row.data} | {row.stage} | {row.wall_s:.1f} | {row.cpu_s:.1f} | {row.peak_mib:,.0f} |"
                lines.append(line)
                print(line, flush=True)
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(json.dumps([asdict(row) for row in found]))


if __name__ == "__main__":
    main()
