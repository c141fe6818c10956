"""`python -m pipelines.show`: rows for people and for programs, of now and of then."""

from __future__ import annotations

import json
from datetime import timedelta

import polars as pl
import pytest
from deployment import FIRST_DAY, Deployment, rows_of_day

pytestmark = pytest.mark.spark

TABLE = "staged.performance_daily"


def test_rows_as_json_of_a_day_and_of_an_earlier_run(deployment: Deployment) -> None:
    last = deployment.write_days(FIRST_DAY, 2)
    deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)
    old = deployment.warehouse.table(TABLE).current_snapshot()
    run_id = old.summary.additional_properties["m2m.run-id"]
    deployment.write_day(last, rows_of_day(last).with_columns(cost=pl.lit(99.0)))
    deployment.run("stage_sources", "--date", last)

    def spend(*arguments: object) -> set[float]:
        status, said = deployment.run("show", TABLE, "--date", last, "--format", "json", "--limit", 100, *arguments)
        assert status == 0, said
        return {json.loads(line)["spend"] for line in said.splitlines() if line.startswith("{")}

    assert spend() == {99.0}
    assert 99.0 not in spend("--snapshot", run_id)
    assert spend("--snapshot", old.snapshot_id) == spend("--snapshot", run_id)
    assert deployment.run("show", TABLE, "--snapshot", "nobody")[0] == 2


def test_tables_for_people(deployment: Deployment) -> None:
    last = deployment.write_days(FIRST_DAY, 2)
    deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)
    status, said = deployment.run("show", "tables")
    assert status == 0
    assert TABLE in said
    assert str(FIRST_DAY) in said
    status, said = deployment.run("show", "marts.nothing")
    assert status == 2
    assert 'unknown table "marts.nothing"; the tables are staged.scenario' in said
    assert deployment.run("show", TABLE, "--date", FIRST_DAY + timedelta(days=1), "--limit", 3)[0] == 0
