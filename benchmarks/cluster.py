"""A cluster on this machine: what a second executor saves, and how long failures hold training up.

Building and scoring: the bucketed kernels, on one executor of one core and then on two, in one run. The failures are
those of tests/cluster, which prints what it measured. The last line is JSON.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from benchmarks.measure import ROOT, machine, run, simulated, watched
from pipelines.cli import Run
from pipelines.life.registry import Registry
from pipelines.spark import buckets
from pipelines.spark.session import spark_session
from pipelines.stages.build_sequences import build_sequences
from pipelines.stages.score import score
from pipelines.toml_tables import Text
from pipelines.warehouse.commits import Warehouse

sys.path.insert(0, str(ROOT / "examples"))

from local_cluster import LocalCluster

ADVERTISERS, DAYS = 20_000, 60
FAILURES = {"lost_rank_s": "a rank killed", "hung_rank_s": "a rank stopped", "lost_executor_s": "an executor killed"}


def by_executors(folder: Path, cluster: LocalCluster) -> dict[int, float]:
    """Seconds in kernels of building and scoring, by the number of executors."""
    config = simulated(ADVERTISERS, DAYS, folder)
    first, as_of = config.dataset.first_day, config.dataset.first_day + timedelta(days=DAYS - 1)
    os.environ |= {"M2M_MASTER": cluster.master, "SPARK_LOCAL_IP": "127.0.0.1"}
    stage = ["-m", "pipelines.stage_sources", "--config", str(config.path), "--from", str(first), "--to", str(as_of)]
    run(stage, folder / "home", folder / "log.txt")
    found = {}
    for executors in (1, 2):
        warehouse = Warehouse(config)
        for data in (config.home / "warehouse").glob("*_features/sequence_week/data"):
            shutil.rmtree(data)  # parts that are lost are made again
        one = replace(config, spark=replace(config.spark, conf={"spark.cores.max": Text(str(executors))}))
        with spark_session(one, f"bench-{executors}") as spark:
            spark.range(0, 64, 1, 64).mapInArrow(_touch, "id bigint").count()  # workers are up
            with watched([(buckets, "map_buckets")]) as spent:
                build_sequences(Run(f"build-{executors}", "build_sequences", config, as_of, as_of), spark, warehouse)
                score(Run(f"score-{executors}", "score", config, as_of, as_of), spark, warehouse, Registry(config))
            found[executors] = spent["map_buckets"]
    return found


def _touch(batches):  # type: ignore[no-untyped-def]
    import m2m_model.forecasts.forecaster

    assert m2m_model
    yield from batches


def main() -> None:
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as made, LocalCluster(Path(made) / "cluster") as cluster:
        seconds = by_executors(Path(made), cluster)
    test = [sys.executable, "-m", "pytest", "-s", "tests/cluster", "-k", "by_hand"]
    done = subprocess.run(test, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout[-5000:])
    print(*re.findall(r"^.+: [\d.]+ s$", done.stdout, re.MULTILINE), sep="\n")
    told = dict(re.findall(r"^(.+): trains again: ([\d.]+) s$", done.stdout, re.MULTILINE))
    print(f"{machine()}; load before it {load:.1f}; building and scoring {ADVERTISERS:,} made-up advertisers")
    for executors, spent in seconds.items():
        print(f"{executors} executors of one core: {spent:.1f} s")
    figures = {"two_executors_speedup": round(seconds[1] / seconds[2], 2)}
    print(json.dumps(figures | {name: float(told[words]) for name, words in FAILURES.items()}))


if __name__ == "__main__":
    main()
