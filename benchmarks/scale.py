"""What a hundred times as many advertisers cost: every stage on simulated data of several sizes.

    python -m benchmarks.scale [--sizes 10000,100000,1000000] [--out docs/scale.md]

Each size has a fresh M2M_HOME: 4 scenarios, 90 days. The history of all but the last day is staged, its sequences are
built and a model is trained on them; then two days come as every day does. Every stage is a process of its own on a
Spark cluster of two executors with one core each, so that what the driver holds and what the executors hold are told
apart; the last day on all cores of the machine without one, as a deployment of one machine has it. The figures of a
size are kept until it is measured again. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.measure import PARTS, ROOT, Ran, machine, run
from pipelines.chain import CHALLENGER
from pipelines.cli import code_version
from pipelines.config import load_config
from pipelines.life.registry import Registry
from pipelines.warehouse.commits import Warehouse

DAYS = 90
ADVERTISERS_A_BUCKET = 12_500
MASTER = "local-cluster[2,1,3072]"
EXECUTOR_MEMORY = "2g"
ALONE = ", without a cluster"  # what the stages of the last day are called
PLANNED = 4_000_000  # advertisers that nobody measured


HEAD = (
    "| stage | rows | wall s | MiB written | driver | driver JVM | executor JVMs | workers | training |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
)


@dataclass(frozen=True)
class Stage:
    """One stage; ``rows`` are those it wrote to the tables of advertisers, ``wrote_mib`` what its home grew by."""

    name: str
    rows: int
    wrote_mib: float
    ran: Ran


def stages_of(advertisers: int, folder: Path) -> Iterator[Stage]:
    """Run every stage in order, in a home of its own."""
    home, config_path = folder / "home", folder / "simulated" / "pipeline.toml"
    shutil.copytree(ROOT / "examples" / "simulated", config_path.parent)
    text = config_path.read_text(encoding="utf-8")
    text = text.replace("buckets = 8", f"buckets = {max(8, advertisers // ADVERTISERS_A_BUCKET)}")
    cluster = f'\n[spark]\nmaster = "{MASTER}"\n\n[spark.conf]\n"spark.executor.memory" = "{EXECUTOR_MEMORY}"\n'
    config_path.write_text(text + cluster, encoding="utf-8")
    os.environ["M2M_HOME"] = str(home)
    config = load_config(config_path)
    warehouse, registry = Warehouse(config), Registry(config)
    first = config.dataset.first_day
    last = first + timedelta(days=DAYS - 1)
    before, after = last - timedelta(days=1), last + timedelta(days=1)

    def measured(name: str, command: list[str], oldest: date, newest: date, *tables: str) -> Stage:
        size, ran = stored(home), run(command, home, folder / "log.txt")
        rows = sum(file.rows for table in tables for file in warehouse.files(table, oldest, newest))
        return Stage(name, rows, stored(home) - size, ran)

    def stage(name: str, *options: str) -> list[str]:
        return ["-m", f"pipelines.{name}", "--config", str(config_path), *options]

    staged, series = ("staged.performance_daily", "staged.behavior_daily"), "features.advertiser_sequence"
    generate = ["examples/simulated/generate.py", "--advertisers", str(advertisers), "--days", str(DAYS + 1)]
    yield measured("simulate", [*generate, "--out", str(config.home / "raw")], first, last)
    history = ("--from", str(first), "--to", str(before))
    yield measured("stage_sources, 89 days", stage("stage_sources", *history), first, before, *staged)
    yield measured("build_sequences, all", stage("build_sequences", "--date", str(before)), before, before, series)
    yield measured("train", stage("train", "--date", str(before)), before, before)
    challenger = registry.get(CHALLENGER)
    assert challenger is not None
    registry.promote(challenger.version)  # whatever its backtest says: it is speed that is looked at
    for day, where in ((last, ""), (after, ALONE)):
        if where:
            config_path.write_text(text, encoding="utf-8")
        date = ("--date", str(day))
        yield measured(f"stage_sources, a day{where}", stage("stage_sources", *date), day, day, *staged)
        yield measured(f"build_sequences, a day{where}", stage("build_sequences", *date), day, day, series)
        yield measured(f"score{where}", stage("score", *date), day, day, "marts.forecast_daily")


def stored(home: Path) -> float:
    """MiB on disk."""
    return sum(file.stat().st_size for file in home.rglob("*") if file.is_file()) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000,1000000", help="numbers of advertisers, with commas between")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "scale.md", help="the tables; figures beside it")
    arguments = parser.parse_args()
    figures = arguments.out.with_suffix(".json")
    kept = json.loads(figures.read_text(encoding="utf-8")) if figures.exists() else {}
    for advertisers in map(int, arguments.sizes.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            stages = []
            for stage in stages_of(advertisers, Path(folder)):
                stages.append(asdict(stage))
                print(f"{advertisers:,}: {row(stages[-1])}", flush=True)
        kept[str(advertisers)] = {"machine": machine(), "code": code_version(), "stages": stages}
        figures.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        arguments.out.write_text(tables(kept), encoding="utf-8")
    print(tables(kept))
    print(json.dumps(ratios(kept)))


def tables(kept: dict[str, Any]) -> str:
    """The page: a table a size."""
    lines = [
        "# What size costs",
        "",
        "Made by `make bench-scale` on simulated data: 4 scenarios, 90 days, a process a stage, JVM start included.",
        "Spark runs as a cluster of two executors of one core each on the same machine, so that the driver's memory is",
        "its own. Memory is the peak of each part in MiB; for the training process and its driver, who fits LightGBM,",
        "what they hold themselves, and with the files that they map. Sizes may have been measured on different days;",
        "each says when.",
        "",
    ]
    for size in sorted(kept, key=int):
        found = kept[size]
        lines += [
            f"## {int(size):,} advertisers",
            "",
            f"{found['machine']}; code {found['code']}.",
            "",
            *HEAD,
            *(row(stage) for stage in found["stages"]),
            "",
            f"Staging, building and scoring together: {built_and_scored(found) / 60:.1f} minutes. {daily(found)}",
            "",
        ]
    measured = sorted(map(int, kept))[-2:]
    return "\n".join(lines + (plan(*((size, kept[str(size)]) for size in measured)) if len(measured) == 2 else []))


def daily(found: dict[str, Any]) -> str:
    """What a day costs without a cluster, in words."""
    alone = [stage["ran"]["wall_s"] for stage in found["stages"] if stage["name"].endswith(ALONE)]
    each = " + ".join(f"{seconds:.0f}" for seconds in alone)
    return f"A day on all cores without a cluster: {sum(alone):.0f} s ({each})." if alone else ""


def plan(smaller: tuple[int, dict[str, Any]], larger: tuple[int, dict[str, Any]]) -> list[str]:
    """What ``PLANNED`` advertisers would cost: every figure on the line through those of the two largest sizes."""
    (few, of_few), (many, of_many) = smaller, larger

    def ahead(one: float, other: float) -> float:
        return max(other, other + (other - one) * (PLANNED - many) / (many - few))

    def stage(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        then, now = one["ran"], other["ran"]
        kinds = ("peak_mib", "anonymous_mib")
        memory = {kind: {part: ahead(then[kind][part], mib) for part, mib in now[kind].items()} for kind in kinds}
        return {
            "name": other["name"],
            "rows": round(ahead(one["rows"], other["rows"])),
            "wrote_mib": ahead(one["wrote_mib"], other["wrote_mib"]),
            "ran": {"wall_s": ahead(then["wall_s"], now["wall_s"]), **memory},
        }

    by_name = {found["name"]: found for found in of_few["stages"]}
    stages = [stage(by_name[found["name"]], found) for found in of_many["stages"] if found["name"] in by_name]
    gib = {
        "on disk": sum(found["wrote_mib"] for found in stages) / 1024,
        "of memory, of the stage that holds most": max(found["ran"]["anonymous_mib"]["all"] for found in stages) / 1024,
        "of files that training maps": max(found["ran"]["peak_mib"]["training"] for found in stages) / 1024,
    }
    return [
        f"## {PLANNED:,} advertisers, planned, not measured",
        "",
        f"On the line through {few:,} and {many:,}, with as many more buckets.",
        "",
        *HEAD,
        *(row(found) for found in stages),
        "",
        daily({"stages": stages}),
        f"{'; '.join(f'{size:,.0f} GiB {of}' for of, size in gib.items())}.",
        "What binds first is the first of these that the machine has not: files that training maps beyond its memory",
        "are read again and again, all else is bounded by the bucket, or on disk.",
        "",
    ]


def row(stage: dict[str, Any]) -> str:
    ran = stage["ran"]

    def peak(part: str) -> str:
        own, mapped = ran["anonymous_mib"][part], ran["peak_mib"][part]
        if stage["name"] == "train" and part in ("driver", "training"):
            return f"{own:,.0f} ({mapped:,.0f})"
        return "" if part == "training" else f"{mapped:,.0f}"

    figures = f"{stage['rows']:,} | {ran['wall_s']:.0f} | {stage['wrote_mib']:,.0f}"
    return f"| {stage['name']} | {figures} | {' | '.join(map(peak, PARTS))} |"


def built_and_scored(found: dict[str, Any]) -> float:
    """Seconds from raw files to forecasts: the whole history staged, its sequences built, all series scored."""
    wanted = ("stage_sources, 89 days", "build_sequences, all", "score")
    return sum(float(stage["ran"]["wall_s"]) for stage in found["stages"] if stage["name"] in wanted)


def ratios(kept: dict[str, Any]) -> dict[str, float]:
    """The dearest step per ten times the advertisers, and what the largest size's driver (Python and JVM) holds over
    the smallest's; none of a single size."""
    sizes = sorted(map(int, kept))
    seconds = {size: built_and_scored(kept[str(size)]) for size in sizes}
    if len(sizes) == 1:
        return {}

    def driver(size: int) -> float:
        peaks = [stage["ran"]["anonymous_mib"] for stage in kept[str(size)]["stages"]]
        return max(float(peak["driver"] + peak["driver JVM"]) for peak in peaks)

    dearest = max(seconds[b] / seconds[a] * 10 * a / b for a, b in pairwise(sizes))
    return {
        "cost_of_10x": round(dearest, 2),
        "driver_rss_ratio": round(driver(sizes[-1]) / driver(sizes[0]), 3),
    }


if __name__ == "__main__":
    main()
