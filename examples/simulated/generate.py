"""Writes a simulation as Parquet, block by block on Spark's workers.

    python examples/simulated/generate.py --advertisers 1000000 --days 90 --seed 1 --out FOLDER

FOLDER then holds performance/DAY/ and behavior/DAY/ (so that a day is read without a look at the others), with
--planned-share also plans/DAY/, advertiser/, scenario/ and simulation.json, which says what was simulated. If FOLDER
holds exactly this simulation, nothing is done; another simulation is replaced. The rows do not depend on the number of
workers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, fields
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simulation
from simulation import INDUSTRIES, TIERS, Rows, Simulation, delivered, joined, picked, simulate_block

from pipelines.config import load_config, m2m_home
from pipelines.spark.session import spark_session

HERE = Path(__file__).resolve().parent
GROUP = 5  # blocks of one task and of one file a day, at most; a task holds them in memory, about 1.2 GiB
MARK = "simulation.json"
CHOICES = {"advertisers": int, "days": int, "seed": int, "dirt_rate": float, "late_rate": float, "restated_rate": float}
CHOICES |= {"planned_share": float, "plan_effect": float}


def main() -> int:
    arguments = vars(parser().parse_args())
    folder = arguments.pop("out").absolute()
    settings = Simulation(**arguments)
    started = time.monotonic()
    try:
        rows = generate(settings, folder)
    except FileExistsError as error:
        print(error, file=sys.stderr)
        return 2
    if rows is None:
        print(f"{folder} holds this simulation already")
    else:
        seconds = time.monotonic() - started
        print(f"{folder}: {rows:,} performance rows in {seconds:.0f} s, {rows / seconds:,.0f} rows/s")
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(Simulation):
        if field.name in CHOICES:
            option = f"--{field.name.replace('_', '-')}"
            made.add_argument(option, type=CHOICES[field.name], default=field.default, help=f"default {field.default}")
    made.add_argument("--identical-scenarios", action="store_true", help="all scenarios run the first one's process")
    home = m2m_home() / "simulated" / "raw"
    made.add_argument("--out", type=Path, default=home, help="default $M2M_HOME/simulated/raw")
    return made


def generate(settings: Simulation, folder: Path) -> int | None:
    """Write the simulation to ``folder``, whole or not at all.

    Returns:
        Performance rows written; None if this simulation was there already.

    Raises:
        FileExistsError: the folder holds something that is no simulation.
    """
    mark = json.dumps(asdict(settings) | {"process": _process_hash()}, default=str, indent=1)
    if folder.exists():
        if not (folder / MARK).is_file():
            raise FileExistsError(f"{folder}: expected nothing or an earlier simulation; found no {MARK} in it")
        if (folder / MARK).read_text(encoding="utf-8") == mark:
            return None
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for day in range(settings.days):
        for kind in ("performance", "behavior", *(["plans"] if settings.planned_share else [])):
            (part / kind / str(day_of(settings, day))).mkdir(parents=True)
    (part / "advertiser").mkdir()
    (part / "scenario").mkdir()
    columns = {name: [getattr(s, name) for s in settings.scenarios] for name in ("name", "placement", "format")}
    pq.write_table(
        pa.table(columns).rename_columns(["scenario_id", "placement", "format"]), part / "scenario/0.parquet"
    )
    with spark_session(load_config(HERE / "pipeline.toml"), "simulation") as spark:
        spark.sparkContext.addPyFile(str(HERE / "simulation.py"))
        spark.sparkContext.addPyFile(str(HERE / "generate.py"))
        # Small enough that every core has work, large enough that a day has few files.
        group = max(1, min(GROUP, settings.blocks // spark.sparkContext.defaultParallelism))
        tasks = -(-settings.blocks // group)
        kernel = partial(write_groups, settings=settings, group=group, folder=str(part))
        counts = spark.range(0, tasks, 1, tasks).mapInArrow(kernel, "rows bigint")
        rows: int = sum(row.rows for row in counts.collect())
    (part / MARK).write_text(mark, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return rows


def write_groups(
    batches: Iterator[pa.RecordBatch], settings: Simulation, group: int, folder: str
) -> Iterator[pa.RecordBatch]:
    """Kernel of a task: the numbers of groups in, the performance rows of each group out."""
    for batch in batches:
        for number in batch.column("id").to_pylist():
            yield pa.record_batch({"rows": pa.array([write_group(settings, number, group, Path(folder))], pa.int64())})


def write_group(settings: Simulation, number: int, group: int, folder: Path) -> int:
    """Simulate ``group`` blocks and write their files: one a day and table; what is late is a file of its own."""
    numbers = range(number * group, min((number + 1) * group, settings.blocks))
    blocks = [simulate_block(settings, block) for block in numbers]
    first = int(blocks[0].profiles["advertiser"][0])
    profiles = joined([block.profiles for block in blocks])
    names = pa.array([f"a{first + index:07d}" for index in range(len(profiles["advertiser"]))])
    pq.write_table(profile_table(settings, profiles, names), folder / "advertiser" / f"{number:05d}.parquet")
    written = 0
    for day in range(settings.days):
        parts = [delivered(settings, b, day, block.performance[day]) for b, block in zip(numbers, blocks, strict=True)]
        rows = joined(parts)
        ds = str(day_of(settings, day))
        for delivery, which in (("first", rows["delay_days"] == 0), ("late", rows["delay_days"] > 0)):
            if delivery == "first" or which.any():
                table = daily_table(settings, day, picked(rows, which), first, names)
                pq.write_table(table, folder / "performance" / ds / f"{delivery}-{number:05d}.parquet")
        written += len(rows["advertiser"])
        behavior = joined([block.behavior[day] for block in blocks])
        table = daily_table(settings, day, behavior, first, names)
        pq.write_table(table, folder / "behavior" / ds / f"{number:05d}.parquet")
        if settings.planned_share:
            table = daily_table(settings, day, joined([block.plans[day] for block in blocks]), first, names)
            pq.write_table(table, folder / "plans" / ds / f"{number:05d}.parquet")
    return written


def daily_table(settings: Simulation, day: int, rows: Rows, first: int, names: pa.Array) -> pa.Table:
    """The rows of a day with dates and ids; ``names`` are the ids from advertiser number ``first`` on."""
    scenarios = pa.array([scenario.name for scenario in settings.scenarios])
    size = len(rows["advertiser"])
    columns = {
        "ds": pa.array(np.full(size, np.datetime64(day_of(settings, day)))),
        "advertiser_id": _ids(rows["advertiser"] - first, rows["advertiser"] < 0, names),
        "scenario_id": _ids(rows["scenario"], rows["scenario"] < 0, scenarios),
    }
    others = ("advertiser", "scenario", "delay_days", "for_day")
    columns |= {name: pa.array(column) for name, column in rows.items() if name not in others}
    if "for_day" in rows:
        columns["for_day"] = pa.array(np.datetime64(settings.first_day) + rows["for_day"])
    if "delay_days" in rows:
        columns["delivered_on"] = pa.array(np.datetime64(day_of(settings, day)) + rows["delay_days"])
    return pa.table(columns)


def profile_table(settings: Simulation, profiles: Rows, names: pa.Array) -> pa.Table:
    registered_on = np.datetime64(settings.first_day) + profiles["registered"]
    return pa.table(
        {
            "advertiser_id": names,
            "registered_on": pa.array(registered_on),
            "industry": pa.array(np.array(INDUSTRIES)[profiles["industry"]]),
            "tier": pa.array(np.array(TIERS)[profiles["tier"]]),
        }
    )


def day_of(settings: Simulation, day: int) -> date:
    return settings.first_day + timedelta(days=day)


def _ids(codes: np.ndarray, unknown: np.ndarray, names: pa.Array) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32), mask=unknown), names)


def _process_hash() -> str:
    """What the rows depend on besides the settings."""
    return hashlib.sha256(Path(simulation.__file__).read_bytes()).hexdigest()[:12]


if __name__ == "__main__":
    sys.exit(main())
