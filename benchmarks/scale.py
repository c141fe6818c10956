"""What a hundred times as many advertisers cost: every stage on simulated data of several sizes.

    python benchmarks/scale.py --sizes 10000,100000,1000000 [--out docs/scale.md]

Each size has a fresh M2M_HOME: 4 scenarios, 90 days. The history of all but the last day is staged, its sequences are
built and a model is trained on them; then the last day comes as every day does. Every stage is a process of its own on
a Spark cluster of two executors with one core each, so that what the driver holds and what the executors hold are told
apart. The figures of each size are kept in docs/scale.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

from measure import PARTS, ROOT, Ran, machine, run

from pipelines.cli import code_version
from pipelines.config import load_config
from pipelines.registry import CHALLENGER, Registry
from pipelines.warehouse import Warehouse

DAYS = 90
ADVERTISERS_A_BUCKET = 12_500
MASTER = "local-cluster[2,1,3072]"
EXECUTOR_MEMORY = "2g"


@dataclass(frozen=True)
class Stage:
    """One stage at one size; ``rows`` are those it wrote, ``wrote_mib`` what its home grew by."""

    advertisers: int
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
    text += f'\n[spark]\nmaster = "{MASTER}"\n\n[spark.conf]\n"spark.executor.memory" = "{EXECUTOR_MEMORY}"\n'
    config_path.write_text(text, encoding="utf-8")
    os.environ["M2M_HOME"] = str(home)
    config = load_config(config_path)
    warehouse, registry = Warehouse(config), Registry(config)
    first = config.dataset.first_day
    last = first + timedelta(days=DAYS - 1)
    before = last - timedelta(days=1)

    def measured(name: str, command: list[str], rows: Callable[[], int]) -> Stage:
        size, ran = stored(home), run(command, home, folder / "log.txt")
        return Stage(advertisers, name, rows(), stored(home) - size, ran)

    def stage(name: str, *options: str) -> list[str]:
        return ["-m", f"pipelines.{name}", "--config", str(config_path), *options]

    def written(table: str, day: date) -> Callable[[], int]:
        return lambda: sum(file.rows for file in warehouse.files(table, day, day))

    def staged(oldest: date, newest: date) -> Callable[[], int]:
        tables = ("staged.performance_daily", "staged.behavior_daily")
        return lambda: sum(file.rows for table in tables for file in warehouse.files(table, oldest, newest))

    generate = ["examples/simulated/generate.py", "--advertisers", str(advertisers), "--out", str(config.home / "raw")]
    yield measured("simulate", generate, lambda: 0)
    history = ("--from", str(first), "--to", str(before))
    yield measured("stage_sources, 89 days", stage("stage_sources", *history), staged(first, before))
    series = "features.advertiser_sequence"
    yield measured("build_sequences, all", stage("build_sequences", "--date", str(before)), written(series, before))
    yield measured("train", stage("train", "--date", str(before)), lambda: 0)
    challenger = registry.get(CHALLENGER)
    assert challenger is not None
    registry.promote(challenger.version)  # whatever its backtest says: it is speed that is looked at
    yield measured("stage_sources, a day", stage("stage_sources", "--date", str(last)), staged(last, last))
    yield measured("build_sequences, a day", stage("build_sequences", "--date", str(last)), written(series, last))
    yield measured("score", stage("score", "--date", str(last)), written("marts.forecast_daily", last))


def stored(home: Path) -> float:
    """MiB on disk."""
    return sum(file.stat().st_size for file in home.rglob("*") if file.is_file()) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000,1000000", help="numbers of advertisers, with commas between")
    parser.add_argument(
        "--keep", type=Path, default=ROOT / "docs" / "scale.json", help="figures of the sizes done before"
    )
    arguments = parser.parse_args()
    kept = json.loads(arguments.keep.read_text(encoding="utf-8")) if arguments.keep.exists() else {}
    for advertisers in map(int, arguments.sizes.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            stages = []
            for stage in stages_of(advertisers, Path(folder)):
                print(row(stage), flush=True)
                stages.append(asdict(stage))
        kept[str(advertisers)] = {"machine": machine(), "code": code_version(), "stages": stages}
        arguments.keep.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def row(stage: Stage) -> str:
    ran = stage.ran
    memory = " | ".join(f"{ran.peak_mib[part]:,.0f}" for part in PARTS)
    figures = f"{stage.rows:,} | {ran.wall_s:.0f} | {stage.wrote_mib:,.0f}"
    return f"| {stage.advertisers:,} | {stage.name} | {figures} | {memory} |"


if __name__ == "__main__":
    main()
