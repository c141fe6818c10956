"""The work of `restatements`: pipelines/restatements.py says what it reads and writes, and when it fails."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

import polars as pl
import pyarrow as pa
from pyspark.sql import SparkSession

from m2m_model.data.spec import SequenceSpec, daily_totals
from pipelines.cli import Run
from pipelines.config import Config
from pipelines.spark.buckets import map_buckets
from pipelines.spark.session import spark_session
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.files import DataFile, read_files
from pipelines.warehouse.sequences import SERIES, history_start

TABLE = "staged.performance_daily"
FINAL = 0.01  # a cell that changes by less than this counts as final
RESTATED = pl.Schema(
    {
        "age": pl.Int32(),
        "scenario_id": pl.String(),
        "task": pl.String(),
        "restated": pl.Float64(),
        "total": pl.Float64(),
    }
)


@dataclass(frozen=True)
class Version:
    """A day's files by bucket, as they were staged when the day was ``age`` days old."""

    age: int
    files: dict[int, DataFile]


def restatements(run: Run, spark: SparkSession, warehouse: Warehouse) -> pl.DataFrame:
    """Per age, scenario and task: what was restated after that age, the total as known now, and the days compared."""
    config = run.config
    versions = versions_of_days(warehouse, history_start(config, run.ds), run.ds)
    compared: dict[int, int] = defaultdict(int)
    for looks in versions.values():
        for age in range(looks[0].age, looks[-1].age):
            compared[age] += 1
    if not compared:
        return pl.DataFrame(schema=RESTATED | {"days": pl.Int64()})
    schema, spec = warehouse.arrow_schema(TABLE), config.sequence_spec

    def kernel(bucket: int) -> pl.DataFrame:
        parts = [restated_in(bucket, looks, schema, spec) for looks in versions.values()]
        return pl.concat([pl.DataFrame(schema=RESTATED), *parts])

    keys = ["age", "scenario_id", "task"]
    found = map_buckets(spark, range(config.dataset.buckets), kernel, RESTATED, sum_by=keys)
    days = pl.DataFrame({"age": list(compared), "days": list(compared.values())}, schema_overrides={"age": pl.Int32})
    return found.join(days, on="age").sort(*keys)


def versions_of_days(warehouse: Warehouse, first: date, last: date) -> dict[date, list[Version]]:
    """The versions of each day that was staged more than once, oldest first."""
    versions: dict[date, list[Version]] = defaultdict(list)
    commits, newest = warehouse.commits(TABLE), date.min
    if commits:  # days older than the oldest snapshot that is kept
        newest = max((file.ds for file in warehouse.files(TABLE, snapshot_id=commits[0][0])), default=newest)
    for snapshot_id, replaced in commits:
        newest = max([newest, *replaced])
        days = [day for day in replaced if first <= day <= last]
        if not days:
            continue
        files: dict[date, dict[int, DataFile]] = defaultdict(dict)
        for file in warehouse.files(TABLE, days[0], days[-1], snapshot_id):
            files[file.ds][file.bucket] = file
        for day in days:
            versions[day].append(Version((newest - day).days, files[day]))
    return {day: looks for day, looks in sorted(versions.items()) if looks[-1].age > looks[0].age}


def restated_in(bucket: int, looks: list[Version], schema: pa.Schema, spec: SequenceSpec) -> pl.DataFrame:
    """Of one day in one bucket, for every age at which it was known and looked at again later."""
    now = looks[-1].files.get(bucket)
    final = values_of(now, schema, spec)
    parts = [pl.DataFrame(schema=RESTATED)]
    for look, following in pairwise(looks):
        then = look.files.get(bucket)
        same = (then and then.fingerprint) == (now and now.fingerprint)
        known = final if same else values_of(then, schema, spec)
        both = final.join(known, on=SERIES, how="full", coalesce=True, suffix="_then").fill_null(0.0)
        sums = [
            both.group_by("scenario_id").agg(
                pl.lit(task.name).alias("task"),
                (pl.col(f"_{m}") - pl.col(f"_{m}_then")).abs().sum().alias("restated"),
                pl.col(f"_{m}").sum().alias("total"),
            )
            for m, task in enumerate(spec.tasks)
        ]
        ages = pl.DataFrame({"age": range(look.age, following.age)}, schema={"age": pl.Int32})
        parts.append(pl.concat(sums).join(ages, how="cross").select(RESTATED.names()))
    return pl.concat(parts)


def values_of(file: DataFile | None, schema: pa.Schema, spec: SequenceSpec) -> pl.DataFrame:
    """What each row of a day adds to each task, in the columns _0, _1, ...: a task may be named as a key."""
    rows = read_files([file] if file else [], schema, [*SERIES, *spec.metrics])
    total_NM = daily_totals(rows.select(spec.metrics).to_numpy(), spec)
    return rows.select(*SERIES, *(pl.Series(f"_{m}", total_NM[:, m]) for m in range(len(spec.tasks))))


def mature_from(found: pl.DataFrame) -> int | None:
    """The smallest age from which no cell changes by over 1 %; None where the oldest age looked at still does."""
    still = found.filter(pl.col("restated") > FINAL * pl.col("total"))["age"]
    age = 0 if still.is_empty() else int(still.max()) + 1  # type: ignore[arg-type]
    return age if age <= int(found["age"].max()) else None  # type: ignore[arg-type]


def report(config: Config, found: pl.DataFrame, ds: date) -> list[str]:
    """The lines to print."""
    if found.is_empty():
        return [
            f"{TABLE}: no day up to {ds} was staged at two ages, so nothing is known of restatements; with [dataset] "
            "late_days every daily run stages the days before its own again"
        ]
    ages = found["age"].unique().sort().to_list()
    days = dict(found.select("age", "days").unique().iter_rows())
    lines = [
        f"{TABLE} up to {ds}: restated after a day was N days old, in % of what is known now",
        f"  {'scenario':16} {'task':16}" + "".join(f"{age:>9}" for age in ages),
    ]
    for (scenario, task), part in found.group_by("scenario_id", "task", maintain_order=True):
        sums = part.select("age", "restated", "total").iter_rows()
        share = {age: 100 * restated / total if total else 0.0 for age, restated, total in sums}
        cells = "".join(f"{share[age]:>9.2f}" if age in share else f"{'-':>9}" for age in ages)
        lines.append(f"  {scenario!s:16} {task!s:16}{cells}")
    lines.append(f"  {'days compared':33}" + "".join(f"{days[age]:>9}" for age in ages))
    mature = mature_from(found)
    if mature is None:
        lines.append(f"not final yet at {ages[-1]} days; raise [dataset] late_days to look later")
    else:
        now = config.dataset.mature_days
        lines.append(f"final from {mature} days on (every cell within {FINAL:.0%}); [dataset] mature_days is {now}")
    return lines


def work(run: Run) -> None:
    warehouse = Warehouse.existing(run.config, run.ds)
    with spark_session(run.config, run.run_id, run.stage) as spark:
        found = restatements(run, spark, warehouse)
    print("\n".join(report(run.config, found, run.ds)))
