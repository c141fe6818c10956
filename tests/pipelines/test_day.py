"""`m2m day`: the five stages of a day in one process are what they are one by one."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import pytest
from deployment import FIRST_DAY, Deployment, day
from pyspark.sql import SparkSession

from pipelines.chain import STAGES
from pipelines.day import STAGES as OF_A_DAY

pytestmark = pytest.mark.spark


def published(deployment: Deployment, ds: date) -> dict[str, Any]:
    """Of every daily table: its rows of the day, and what the commit says of itself, without what each run has anew."""
    found = {}
    for table in [table for stage in OF_A_DAY for table in STAGES[stage].daily]:
        if ds in deployment.warehouse.days(table):
            rows = deployment.rows(table).filter(ds=ds).drop("run_id", "sequence_snapshot_id", strict=False)
            said = deployment.warehouse.pin(table).lineage()[ds]
            found[table] = rows.rows(), [said[f"m2m.{key}"] for key in ("stage", "days", "config-hash")]
    return found


def runs(deployment: Deployment) -> list[str]:
    """The stages that have left a log, by their runs' ids."""
    logs = (deployment.config.home / "logs").glob("*.log")
    return sorted(re.sub(r"-\d{4}-.*", "", log.name) for log in logs)


def test_a_day_is_what_its_stages_are_one_by_one(deployment: Deployment) -> None:
    last = deployment.write_days(FIRST_DAY, 45)
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", day(43))[0] == 0
    before = runs(deployment)
    status, printed = deployment.run("day", "--date", last)
    assert status == 0, printed
    assert sorted([*before, *OF_A_DAY]) == runs(deployment)
    together = published(deployment, last)
    assert {"staged.performance_daily", "features.advertiser_sequence", "marts.forecast_daily"} <= set(together)
    said = {table: deployment.warehouse.pin(table).lineage()[last] for table in together}
    assert len({of_table["m2m.run-id"] for of_table in said.values()}) == 5
    assert all(
        float(of_table[f"m2m.{key}"]) > 0 for of_table in said.values() for key in ("wall-s", "cpu-s", "peak-mib")
    )
    assert said["marts.forecast_daily"]["m2m.input.features.advertiser_sequence"] == str(
        deployment.warehouse.snapshot_id("features.advertiser_sequence")
    )
    for stage in OF_A_DAY:
        assert deployment.run(stage, "--date", last)[0] == 0
    assert published(deployment, last) == together


@pytest.mark.parametrize("apart", [False, True])
def test_a_day_stops_at_the_first_failure_and_says_what_is_left(deployment: Deployment, apart: bool) -> None:
    if apart:
        deployment.edit("[spark]", '[spark.stages.score]\n"spark.sql.shuffle.partitions" = "3"\n\n[spark]')
    last = deployment.write_days(FIRST_DAY, 3)
    status, said = deployment.run("day", "--date", last)
    assert status == 3, said
    left = said.split(f"day {last}: build_sequences ended with 3; left to run, in this order:\n")[1].splitlines()
    options = f"--config {deployment.toml} --date {last}"
    assert left == [f"  python -m pipelines.{stage} {options}" for stage in OF_A_DAY[1:]]
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)[0] == 0
    status, said = deployment.run("day", "--date", last)
    assert status == 3, said
    assert "too late for 2 held-out cutoffs" in said
    assert f"day {last}: score ended with 3; left to run, in this order:\n  python -m pipelines.score {options}" in said
    assert "monitor" not in runs(deployment)
    assert deployment.warehouse.days("features.advertiser_sequence") == {last: 24}


def test_a_stages_jvm_is_started_with_what_makes_its_start_short(spark: SparkSession) -> None:
    assert spark.sparkContext._jvm is not None
    runtime = spark.sparkContext._jvm.java.lang.management.ManagementFactory.getRuntimeMXBean()
    assert "-XX:Tier4InvocationThreshold=50000" in list(runtime.getInputArguments())
