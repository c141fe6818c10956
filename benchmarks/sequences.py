"""How fast sequences are built: the stage beside Polars in one process and beside idiomatic Spark, a day beside a
rebuild, and what the checks take of it.

    python -m benchmarks.sequences [--advertisers 100000] [--turns 3] [--out docs/sequences.md]

Made-up advertisers, 4 scenarios. All sides read the same staged files and write Parquet; they take turns in one
process, with the Spark session up, and their results are compared. The stage also checks and commits, the others do
not. The last line is JSON.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from benchmarks.measure import machine, make_page, run, simulated, watched
from pipelines.cli import Run, code_version
from pipelines.quality import ledger
from pipelines.quality.rules import Rule, count_rows, row_rules
from pipelines.quality.sequences import rules_of_series, rules_of_week
from pipelines.spark import buckets
from pipelines.spark.session import spark_session
from pipelines.stages import build_sequences, stage_sources
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.files import DataFile, read_files
from pipelines.warehouse.sequences import SERIES, TABLE, WEEK_TABLE, open_sequences

BUILD_DAYS, KEPT_DAYS = 60, 90
STAGED = ("staged.scenario", "staged.advertiser", "staged.behavior_daily", "staged.performance_daily")  # in its order
SCENARIO, PROFILE, BEHAVIOR, PERFORMANCE = STAGED
STAGE = "the stage"
IN_WEEKS, IN_LISTS = "Polars, one process, by week", "Polars, one process, whole lists"
IN_SPARK = "Spark, collect_list of structs, whole lists"
A_DAY, A_REBUILD = "a day", "a rebuild"
# Where a stage's time goes; the rest is planning.
PARTS = ((buckets, "map_frame"), (buckets, "map_buckets"), (ledger, "check"), (Warehouse, "commit"))
Content = tuple[int, int, float]  # series, days listed, clicks


@dataclass(frozen=True)
class Bench:
    """A deployment with staged data, and what the sides write to."""

    warehouse: Warehouse
    spark: SparkSession
    out: Path

    def run(self, stage: str, first: date, last: date) -> Run:
        return Run(f"{stage}-{time.monotonic_ns()}", stage, self.warehouse.config, first, last)

    def staged(self, name: str, last: date) -> list[DataFile]:
        first = self.warehouse.config.dataset.first_day
        return self.warehouse.files(name, first, last)

    def stage(self, first: date, last: date) -> None:
        run = self.run("stage_sources", first, last)
        stage_sources.stage_sources(run, self.spark, self.warehouse, daily=False)

    def forget(self) -> None:
        """As if no sequence had ever been built."""
        for name in (TABLE, WEEK_TABLE):
            if self.warehouse.exists(name):
                stored = self.warehouse.table(name)
                self.warehouse.catalog.drop_table(stored.name())
                shutil.rmtree(stored.location().removeprefix("file://"))  # a folder with a table in it takes no other

    def build(self, as_of: date) -> None:
        build_sequences.build_sequences(self.run("build_sequences", as_of, as_of), self.spark, self.warehouse)

    def content(self, as_of: date) -> Content:
        """What was built, read as training reads it."""
        sequences = open_sequences(self.warehouse.config, self.warehouse, as_of)
        rows = [sequences.rows(bucket) for bucket in sequences.buckets]
        return content(pl.concat(rows))


@dataclass
class Side:
    """Seconds of every turn, and of the last one by part."""

    spent: list[float] = field(default_factory=list)
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.spent)


def content(sequences: pl.DataFrame) -> Content:
    days, clicks = sequences["day"].list.len().sum(), sequences["clicks"].list.sum().sum()
    return sequences.height, int(days), float(clicks)


# The sides.


def weeks_in_polars(bench: Bench, as_of: date) -> Content:
    """The same two tables in one process: all buckets at once, a file a week and a file of series."""
    config, out = bench.warehouse.config, bench.out / "weeks"
    performance, behavior = (read(bench, name, as_of) for name in (PERFORMANCE, BEHAVIOR))
    sunday = pl.col("ds").dt.truncate("1w").dt.offset_by("6d")
    week = pl.min_horizontal(sunday, pl.lit(as_of)).alias("week")

    def listed(rows: pl.DataFrame, day: str, values: tuple[str, ...]) -> pl.DataFrame:
        rows = rows.sort(*SERIES, "ds").with_columns(week)
        by = ["week", *SERIES]
        return rows.group_by(by, maintain_order=True).agg(pl.col("ds").cast(pl.Int32).alias(day), *values)

    achieved = listed(performance, "day", config.metric_names)
    acted = listed(behavior, "behavior_day", config.behavior_names)
    found = achieved.join(acted, on=["week", *SERIES], how="full", coalesce=True, nulls_equal=True)
    found = found.sort("week", *SERIES, nulls_last=True)
    out.mkdir(parents=True)
    for (end,), part in found.group_by("week", maintain_order=True):
        part.write_parquet(out / f"{end}.parquet")
    series = performance.group_by(SERIES).agg(pl.min("ds").alias("first_row"))
    with_attributes(bench, series, as_of).sort(SERIES).write_parquet(out / "series.parquet")
    return series.height, int(found["day"].list.len().sum()), float(found["clicks"].list.sum().sum())


def lists_in_polars(bench: Bench, as_of: date) -> Content:
    """One list per series over the whole history, as one would write it without a thought of tomorrow."""
    config = bench.warehouse.config
    performance, behavior = (read(bench, name, as_of) for name in (PERFORMANCE, BEHAVIOR))
    day = pl.col("ds").cast(pl.Int32)
    by_series = performance.sort(*SERIES, "ds").group_by(SERIES, maintain_order=True)
    found = by_series.agg(pl.min("ds").alias("first_row"), day.alias("day"), *config.metric_names)
    everywhere = behavior.filter(pl.col("scenario_id").is_null()).drop("scenario_id")
    everywhere = everywhere.join(found.select(SERIES), on="advertiser_id").select(behavior.columns)
    acted = pl.concat([behavior.filter(pl.col("scenario_id").is_not_null()), everywhere])
    acted = acted.group_by(*SERIES, "ds").agg(pl.sum(*config.behavior_names)).sort(*SERIES, "ds")
    acted = acted.group_by(SERIES, maintain_order=True).agg(day.alias("behavior_day"), *config.behavior_names)
    sequences = with_attributes(bench, found, as_of).join(acted, on=SERIES, how="left").sort(SERIES)
    sequences.write_parquet(bench.out / "lists.parquet")
    return content(sequences)


def lists_in_spark(bench: Bench, as_of: date) -> Content:
    """The same in idiomatic Spark: a sorted collect_list of structs per series."""
    config, spark = bench.warehouse.config, bench.spark

    def table(name: str) -> DataFrame:
        return spark.read.parquet(*(file.path for file in bench.staged(name, as_of)))

    def collected(rows: DataFrame, name: str, values: tuple[str, ...]) -> DataFrame:
        listed = F.sort_array(F.collect_list(F.struct("ds", *values))).alias(name)
        return rows.groupBy(*SERIES).agg(listed)

    behavior = table(BEHAVIOR).select(*SERIES, "ds", *config.behavior_names)
    found = collected(table(PERFORMANCE), "performance", config.metric_names)
    everywhere = behavior.where("scenario_id is null").drop("scenario_id").join(found.select(*SERIES), "advertiser_id")
    acted = behavior.where("scenario_id is not null").unionByName(everywhere)
    acted = acted.groupBy(*SERIES, "ds").agg(*(F.sum(name).alias(name) for name in config.behavior_names))
    sequences = found.join(collected(acted, "behavior", config.behavior_names), SERIES, "left")
    sequences = sequences.join(table(PROFILE).drop("ds", "bucket"), "advertiser_id", "left")
    sequences = sequences.join(table(SCENARIO).drop("ds"), "scenario_id", "left")
    out = str(bench.out / "spark")
    sequences.write.parquet(out)
    written = pl.read_parquet(f"{out}/*.parquet", columns=["performance"])["performance"]
    clicks = written.explode().struct.field("clicks").sum()
    return written.len(), int(written.list.len().sum()), float(clicks)


def read(bench: Bench, name: str, as_of: date) -> pl.DataFrame:
    rows = read_files(bench.staged(name, as_of), bench.warehouse.arrow_schema(name))
    return rows.drop("bucket", strict=False)


def with_attributes(bench: Bench, series: pl.DataFrame, as_of: date) -> pl.DataFrame:
    profiles, scenarios = (read(bench, name, as_of).drop("ds") for name in (PROFILE, SCENARIO))
    found = series.join(profiles, on="advertiser_id", how="left").join(scenarios, on="scenario_id", how="left")
    return found.with_columns(pl.min_horizontal("registered_on", "first_row")).drop("first_row")


# Measuring.


def measure(side: Side, work: Callable[[], Any]) -> Any:
    """One more turn of a side."""
    with watched(PARTS) as spent:
        started = time.perf_counter()
        found = work()
        side.spent.append(time.perf_counter() - started)
    side.parts = spent
    return found


def builds(bench: Bench, as_of: date, turns: int) -> dict[str, Side]:
    """All builders of the same history; the first turn warms up."""
    sides: dict[str, Side] = defaultdict(Side)
    others = {IN_WEEKS: weeks_in_polars, IN_LISTS: lists_in_polars, IN_SPARK: lists_in_spark}
    for turn in range(turns + 1):
        if turn == 1:
            sides.clear()
        bench.forget()
        measure(sides[STAGE], lambda: bench.build(as_of))
        expected = bench.content(as_of)
        for name, build in others.items():
            shutil.rmtree(bench.out, ignore_errors=True)
            bench.out.mkdir()
            found = measure(sides[name], partial(build, bench, as_of))
            same = found[:2] == expected[:2] and abs(found[2] - expected[2]) <= 1e-9 * expected[2]
            if not same:
                raise SystemExit(f"{name}: expected the stage's {expected} (series, days, clicks); found {found}")
    return sides


def increments(bench: Bench, as_of: date, turns: int) -> dict[str, Side]:
    """The newest day on top of the day before, beside everything anew; both must end in the same files."""
    sides: dict[str, Side] = defaultdict(Side)
    for turn in range(turns + 1):
        if turn == 1:
            sides.clear()
        made = {}
        for name, before in ((A_DAY, [as_of - timedelta(days=1)]), (A_REBUILD, [])):
            bench.forget()
            for day in before:
                bench.build(day)
            measure(sides[name], lambda: bench.build(as_of))
            sequences = open_sequences(bench.warehouse.config, bench.warehouse, as_of)
            files = [file for part in (sequences.files, sequences.weeks) for of in part.values() for file in of]
            made[name] = {file.identity: Path(file.path.removeprefix("file:")).read_bytes() for file in files}
        if made[A_DAY] != made[A_REBUILD]:
            raise SystemExit("the day's files are not the rebuild's")
    return sides


def stagings(bench: Bench, first: date, last: date, turns: int) -> tuple[Side, dict[str, list[Rule]]]:
    """Staging the same days again and again, and the rules that it counted for; the first turn warms up."""
    side, rules, of_table = Side(), row_rules, []

    def noted(*arguments: Any, **named: Any) -> list[Rule]:
        of_table.append(rules(*arguments, **named))
        return of_table[-1]

    with patch.object(stage_sources, "row_rules", noted):
        for _ in range(turns + 1):
            measure(side, lambda: bench.stage(first, last))
    del side.spent[0]
    return side, dict(zip(STAGED, of_table, strict=False))


def counting_s(bench: Bench, as_of: date, rules: dict[str, list[Rule]]) -> float:
    """Seconds to count rows for their checks, all buckets one after the other on all cores."""
    spent = 0.0
    for name, of_table in rules.items():
        declared, by_bucket = bench.warehouse.declared(name), defaultdict(list)
        for file in bench.staged(name, as_of):
            by_bucket[file.bucket].append(file)
        for bucket, files in by_bucket.items():
            rows = read_files(files, bench.warehouse.arrow_schema(name))
            started = time.perf_counter()
            count_rows(bucket, rows, of_table, declared.key)
            spent += time.perf_counter() - started
    return spent


def report(advertisers: int, turns: int, folder: Path) -> tuple[list[str], dict[str, float]]:
    """Prepare, measure, and put the page together."""
    load, config = os.getloadavg()[0], simulated(advertisers, KEPT_DAYS, folder)
    home, log = folder / "home", folder / "log.txt"
    first = config.dataset.first_day
    as_of, newest = first + timedelta(days=BUILD_DAYS - 1), first + timedelta(days=KEPT_DAYS - 1)
    with spark_session(config, "bench-sequences") as spark:
        bench = Bench(Warehouse(config), spark, folder / "out")
        staging, rules = stagings(bench, first, as_of, turns)
        counting = {"stage_sources": counting_s(bench, as_of, rules)}
        built = builds(bench, as_of, turns)
        rules = {WEEK_TABLE: rules_of_week(config), TABLE: rules_of_series(as_of)}
        counting["build_sequences"] = counting_s(bench, as_of, rules)
        rows = {name: sum(file.rows for file in bench.staged(name, as_of)) for name in (PERFORMANCE, BEHAVIOR)}
        bench.stage(as_of + timedelta(days=1), newest)
        added = increments(bench, newest, turns)
        bench.forget()
    command = ["-m", "pipelines.build_sequences", "--config", str(config.path), "--date", str(as_of)]
    alone = run(command, home, log)

    stages = {"stage_sources": staging, "build_sequences": built[STAGE]}
    checks = {name: (side.parts["check"] + counting[name]) / side.spent[-1] for name, side in stages.items()}
    fastest = min((IN_WEEKS, IN_LISTS), key=lambda name: built[name].median)
    ratios = {
        "over_polars": round(built[STAGE].median / built[fastest].median, 2),
        "faster_than_plain_spark": round(built[IN_SPARK].median / built[STAGE].median, 2),
        "incremental_over_rebuild": round(added[A_DAY].median / added[A_REBUILD].median, 3),
        "checks_over_stage": round(max(checks.values()), 3),
    }
    lines = [
        "# How fast sequences are built",
        "",
        f"Made by `make bench-sequences` on: {machine()}; code {code_version()}; load before it {load:.1f}.",
        f"{advertisers:,} made-up advertisers, 4 scenarios, {BUILD_DAYS} days: {rows[PERFORMANCE]:,} rows of",
        f"performance, {rows[BEHAVIOR]:,} of behavior. All sides read the same staged files and write Parquet,",
        "in turns, in one process with the Spark session up; seconds are the median of the turns (all of them), after",
        "one to warm up. The stage also plans, checks and commits; the others do not. Their results are compared.",
        "",
        f"As a process of its own, with the start of Python and of the JVM and all imports: {alone.wall_s:.0f} s.",
        "",
        *table(f"{BUILD_DAYS} days from staged rows to sequences", built, STAGE),
        *table(f"A day, and {KEPT_DAYS} days anew; the same bytes in the end", added, A_REBUILD),
        "## Where the time goes",
        "",
        "One turn of each, in seconds. *count* is the checks' part of the workers' pass, measured by itself on all",
        "cores; *judge* is Great Expectations, its pages, and the rows of ops.validation; *checks* are both.",
        "",
        "| stage | all | of it Spark | count | judge | commit | planning and the rest | checks |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(parts_row(name, side, counting[name], checks[name]) for name, side in stages.items()),
        *(parts_row(f"build_sequences, {name}", side) for name, side in added.items()),
        "",
    ]
    return lines, ratios


def table(title: str, sides: dict[str, Side], base: str) -> list[str]:
    rows = (
        f"| {name} | {side.median:.2f} ({', '.join(f'{s:.2f}' for s in side.spent)}) "
        f"| {side.median / sides[base].median:.2f} |"
        for name, side in sides.items()
    )
    return [f"## {title}", "", f"| side | seconds | times {base} |", "| --- | ---: | ---: |", *rows, ""]


def parts_row(name: str, side: Side, count: float | None = None, checks: float | None = None) -> str:
    spent, whole = side.parts, side.spent[-1]
    in_spark = spent["map_frame"] + spent["map_buckets"]
    rest = whole - in_spark - spent["check"] - spent["commit"]
    counted, share = "" if count is None else f"{count:.2f}", "" if checks is None else f"{checks:.1%}"
    seconds = f"{spent['check']:.2f} | {spent['commit']:.2f} | {rest:.2f}"
    return f"| {name} | {whole:.2f} | {in_spark:.2f} | {counted} | {seconds} | {share} |"


if __name__ == "__main__":
    make_page(__doc__, 100_000, report)
