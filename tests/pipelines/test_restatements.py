"""What is restated after a day, at which age, and that labels wait until it is final."""

from __future__ import annotations

import polars as pl
import pytest
from deployment import FIRST_DAY, Deployment, day, rows_of_day
from pyspark.sql import SparkSession

from pipelines.cli import Run
from pipelines.life.evaluation import Contenders, evaluate, fallback
from pipelines.stages.restatements import mature_from, restatements
from pipelines.warehouse.sequences import held_out_cutoffs, open_sequences

pytestmark = pytest.mark.spark


def raw(number: int, cost: float, late: bool) -> pl.DataFrame:
    """One advertiser in two scenarios, and one that arrives late in search."""
    rows = [(day(number), "one", "search", 10.0, 1.0, cost), (day(number), "one", "feed", 10.0, 1.0, 5.0)]
    if late:
        rows.append((day(number), "two", "search", 10.0, 1.0, 2.0))
    return pl.DataFrame(rows, schema=["day", "who", "place", "views", "taps", "cost"], orient="row")


def test_restated_by_age_scenario_and_task(deployment: Deployment, spark: SparkSession) -> None:
    """Spend of search is 6 on the day itself, 8 from the next day on; another advertiser's 2 come two days late."""
    deployment.edit("buckets = 2", "buckets = 2\nlate_days = 3")
    for number in range(7):
        for age, (cost, late) in enumerate([(6.0, False), (8.0, False), (8.0, True)]):
            if number >= age:
                deployment.write_day(day(number - age), raw(number - age, cost, late))
        status, said = deployment.run("stage_sources", "--date", day(number))
        assert status == 0, said
    run = Run("r", "restatements", deployment.config, day(6), day(6))
    found = restatements(run, spark, deployment.warehouse)
    cells = {
        (age, scenario, task): (restated, total)
        for age, scenario, task, restated, total in found.drop("days").iter_rows()
    }
    days = dict(found.select("age", "days").unique().iter_rows())
    assert days == {0: 6, 1: 5, 2: 4}  # days that were looked at again when they were older
    # The day of age 1 now has not got its late row yet.
    assert cells[0, "search", "spend"] == (5 * 4.0 + 2.0, 5 * 10.0 + 8.0)
    assert cells[1, "search", "spend"] == (5 * 2.0, 5 * 10.0)
    assert cells[1, "search", "active_days"] == (5 * 1.0, 5 * 2.0)
    assert cells[2, "search", "spend"] == (0.0, 4 * 10.0)
    assert {cells[age, "feed", task][0] for age in (0, 1, 2) for task in ("spend", "active_days")} == {0.0}
    assert mature_from(found) == 2
    assert mature_from(found.filter(pl.col("age") < 2)) is None

    status, said = deployment.run("restatements", "--date", day(6))
    assert status == 0
    assert "final from 2 days on (every cell within 1%); [dataset] mature_days is 0" in said
    assert ["search", "spend", "37.93", "20.00", "0.00"] in [line.split() for line in said.splitlines()]


def test_days_that_were_staged_once_say_nothing(deployment: Deployment) -> None:
    last = deployment.write_days(FIRST_DAY, 3)
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)[0] == 0
    status, said = deployment.run("restatements", "--date", last)
    assert status == 0
    assert "no day up to 2024-01-03 was staged at two ages" in said


def test_the_age_of_a_day_staged_again_by_hand_is_that_of_the_table(deployment: Deployment) -> None:
    last = deployment.write_days(FIRST_DAY, 6)
    for number in range(6):
        assert deployment.run("stage_sources", "--date", day(number))[0] == 0
    deployment.write_day(day(2), rows_of_day(day(2), 13))
    assert deployment.run("stage_sources", "--date", day(2))[0] == 0
    said = deployment.run("restatements", "--date", last)[1]
    assert "not final yet at 2 days" in said  # it was 3 days old when it changed


@pytest.mark.parametrize(("mature_days", "waits"), [(3, True), (0, False)])
def test_no_label_holds_a_day_that_is_not_mature(
    deployment: Deployment, spark: SparkSession, mature_days: int, waits: bool
) -> None:
    deployment.edit("buckets = 2", f"buckets = 2\nmature_days = {mature_days}")
    last = deployment.write_days(FIRST_DAY, 40)

    def judged() -> tuple[object, pl.DataFrame]:
        """What serves without a model, its residuals, and the errors of every baseline."""
        assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)[0] == 0
        assert deployment.run("build_sequences", "--date", last)[0] == 0
        config, warehouse = deployment.config, deployment.warehouse
        sequences = open_sequences(config, warehouse, last)
        found = fallback(Run("r", "score", config, last, last), spark, sequences, warehouse.scratch)
        sums = evaluate(spark, sequences, held_out_cutoffs(config, last), Contenders({}, found.calibrations)).errors
        stored = {key: calibration.to_dict() for key, calibration in found.calibrations.items()}
        return (found.name, stored), sums.sort(sums.columns)

    before = judged()
    for number in range(37, 40):
        absurd = rows_of_day(day(number)).with_columns(pl.col("cost") * 1e6)
        deployment.write_day(day(number), absurd)
    after = judged()
    assert after[0] == before[0]
    assert after[1].equals(before[1]) is waits
