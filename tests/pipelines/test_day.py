"""`m2m day`: the four stages of a day in one process are what they are one by one."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import pytest
from deployment import FIRST_DAY, Deployment, day

from pipelines.chain import STAGES
from pipelines.day import STAGES as OF_A_DAY

pytestmark = pytest.mark.spark


def published(deployment: Deployment, ds: date) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of every daily table: its rows of the day, and what the commit says of itself; without the ids
    that every run has anew."""
    rows, said = {}, {}
    for table in [table for stage in OF_A_DAY for table in STAGES[stage].daily]:
        if ds in deployment.warehouse.days(table):
            found = deployment.rows(table).filter(ds=ds)
            rows[table] = found.drop("run_id", "sequence_snapshot_id", strict=False).rows()
            properties = deployment.warehouse.pin(table).lineage()[ds]
            ours = {key: value for key, value in properties.items() if key.startswith("m2m.")}
            said[table] = {key: "" if "input" in key or key == "m2m.run-id" else ours[key] for key in ours}
    return rows, said


def runs(deployment: Deployment) -> list[str]:
    """The stages that have left a log, by their runs' ids."""
    logs = (deployment.config.home / "logs").glob("*.log")
    return sorted(re.sub(r"-\d{4}-.*", "", log.name) for log in logs)


def test_a_day_is_what_its_stages_are_one_by_one(deployment: Deployment) -> None:
    last = deployment.write_days(FIRST_DAY, 45)
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", day(43))[0] == 0
    before = runs(deployment)
    status, said = deployment.run("day", "--date", last)
    assert status == 0, said
    assert [line.split()[0] for line in said.splitlines() if line.split()[0] in OF_A_DAY and str(last) in line]
    assert sorted([*before, *OF_A_DAY]) == runs(deployment)
    together = published(deployment, last)
    assert {"staged.performance_daily", "features.advertiser_sequence", "marts.forecast_daily"} <= set(together[0])
    ids = {said["m2m.run-id"] for said in (deployment.warehouse.pin(t).lineage()[last] for t in together[0])}
    assert {run_id.split("-")[0] for run_id in ids} == {"stage_sources", "build_sequences", "score"}
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
    first_by_itself = deployment.run("build_sequences", "--date", last)
    assert "staged.performance_daily" in first_by_itself[1]
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
