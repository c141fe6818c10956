"""A stage reads the snapshots of the moment when it planned, and records those, whatever is committed meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from deployment import FIRST_DAY, Deployment, day, rows_of_day

from pipelines import chain
from pipelines.chain import INPUT
from pipelines.stages import build_sequences, monitor, score
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.pins import Pin, Reads
from pipelines.warehouse.sequences import TABLE, WEEK_TABLE, open_sequences

STAGED, FORECASTS = "staged.performance_daily", "marts.forecast_daily"
LAST = day(29)


def before_publishing(patch: pytest.MonkeyPatch, stage: Any, meanwhile: Callable[[], Any]) -> None:
    """Has something happen when the stage has planned and worked, and not yet committed."""
    publish = stage.publish

    def later(*arguments: Any) -> None:
        patch.setattr(stage, "publish", publish)
        meanwhile()
        publish(*arguments)

    patch.setattr(stage, "publish", later)


def restage(deployment: Deployment, number: int, factor: float = 3.0) -> None:
    """The day comes again, every amount times the factor."""
    deployment.write_day(day(number), rows_of_day(day(number)).with_columns(pl.col("cost") * factor))
    assert deployment.run("stage_sources", "--date", day(number))[0] == 0


def spend(deployment: Deployment, number: int) -> float:
    sequences = open_sequences(deployment.config, deployment.warehouse, day(number))
    return sum(float(sequences.rows(bucket)["spend"].list.sum().sum()) for bucket in sequences.buckets)


@pytest.mark.spark
def test_a_restatement_in_the_middle_of_a_build_is_neither_in_it_nor_recorded_as_read(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.write_profiles()
    last = deployment.write_days(FIRST_DAY, 3)
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)[0] == 0
    staged = deployment.rows(STAGED)["spend"].sum()
    then = {name: deployment.warehouse.snapshot_id(name) for name in (STAGED, "staged.advertiser", "staged.scenario")}
    before_publishing(monkeypatch, build_sequences, lambda: restage(deployment, 2))
    assert deployment.run("build_sequences", "--date", last)[0] == 0
    assert spend(deployment, 2) == pytest.approx(staged)
    recorded = deployment.warehouse.lineage(TABLE)[last]
    assert {name: recorded[INPUT + name] for name in then} == {name: str(number) for name, number in then.items()}
    assert recorded[INPUT + WEEK_TABLE] == str(deployment.warehouse.snapshot_id(WEEK_TABLE))
    status, said = deployment.run("status", "--date", last)
    assert (status, f"{STAGED} {last} was written since" in said) == (4, True)
    assert deployment.run("build_sequences", "--date", last)[0] == 0
    assert spend(deployment, 2) == pytest.approx(deployment.rows(STAGED)["spend"].sum()) != pytest.approx(staged)
    assert deployment.run("status", "--date", last)[0] == 0


@pytest.mark.spark
def test_scoring_and_judging_keep_to_what_they_planned(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    matured = LAST + timedelta(days=7)
    deployment.write_days(FIRST_DAY, 37)
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", matured)[0] == 0
    assert deployment.run("build_sequences", "--date", LAST)[0] == 0
    read = deployment.warehouse.snapshot_id(TABLE)

    def rebuild() -> None:
        restage(deployment, 29)
        assert deployment.run("build_sequences", "--date", LAST)[0] == 0

    before_publishing(monkeypatch, score, rebuild)
    assert deployment.run("score", "--date", LAST)[0] == 0
    assert deployment.rows(FORECASTS)["sequence_snapshot_id"].unique().to_list() == [read]
    for table in (FORECASTS, "marts.churn_risk"):
        recorded = deployment.warehouse.lineage(table)[LAST]
        declared = {name for name in chain.STAGES["score"].reads if chain.has(deployment.config, name)}
        assert {key.removeprefix(INPUT) for key in recorded if key.startswith(INPUT)} == declared
        assert recorded[INPUT + TABLE] == str(read)
        assert recorded["m2m.input.model.champion"] == "None"
    assert recorded[INPUT + FORECASTS] == str(deployment.warehouse.snapshot_id(FORECASTS))  # of churn_risk
    assert f"{TABLE} {LAST} was written since" in deployment.run("status", "--date", LAST)[1]
    assert deployment.run("score", "--date", LAST)[0] == 0

    staged = deployment.warehouse.snapshot_id(STAGED)
    before_publishing(monkeypatch, monitor, lambda: restage(deployment, 33))
    assert deployment.run("monitor", "--date", matured)[0] == 0
    bias = deployment.rows("marts.forecast_quality").filter(method="*", scenario_id="*", task="spend")["bias"].item()
    assert deployment.warehouse.lineage("marts.forecast_quality")[LAST][INPUT + STAGED] == str(staged)
    assert f"{STAGED} {day(33)} was written since" in deployment.run("status", "--date", matured)[1]
    assert deployment.run("monitor", "--date", matured)[0] == 0
    rows = deployment.rows("marts.forecast_quality").filter(method="*", scenario_id="*", task="spend")
    assert rows["bias"].item() < bias  # three times as much happened on one of seven days


@pytest.mark.spark
def test_sequences_are_opened_at_one_snapshot(deployment: Deployment) -> None:
    last = deployment.write_days(FIRST_DAY, 3)
    deployment.edit("[checks]", '[checks]\nseverity = { volume = "warning" }')
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)[0] == 0
    assert deployment.run("build_sequences", "--date", last)[0] == 0
    then, series = deployment.warehouse.snapshot_id(TABLE), deployment.rows(TABLE).height

    class Meanwhile(Warehouse):
        """One in which a newcomer is committed as soon as anything was read."""

        def pin(self, name: str, snapshot_id: int | None = None) -> Pin:
            found = super().pin(name, snapshot_id)
            if deployment.warehouse.snapshot_id(TABLE) == then:
                deployment.write_day(last, rows_of_day(last, advertisers=13))
                for stage in ("stage_sources", "build_sequences"):
                    assert deployment.run(stage, "--date", last)[0] == 0
            return found

    sequences = open_sequences(deployment.config, Meanwhile(deployment.config), last)
    assert (sequences.snapshot_id, sequences.series) == (then, series)
    assert sum(sequences.rows(bucket).height for bucket in sequences.buckets) == series
    assert sequences.rows(0)["day"].list.len().min() > 0
    now = open_sequences(deployment.config, deployment.warehouse, last)
    assert now.series > series
    assert now.snapshot_id != then


def test_a_stage_cannot_read_what_it_does_not_declare(deployment: Deployment) -> None:
    reads = Reads("score", Warehouse(deployment.config))
    with pytest.raises(LookupError, match=r"score reads staged.scenario without saying so: declare it in"):
        reads.pin("staged.scenario")
    with pytest.raises(LookupError, match=r"score reads model.challenger without saying so"):
        reads.model("challenger", "1")
    assert set(reads.recorded) == {TABLE, WEEK_TABLE, FORECASTS, "ops.serving_cell", "model.champion"}


def test_reading_a_table_that_was_never_written_finds_nothing_and_makes_nothing(deployment: Deployment) -> None:
    warehouse = deployment.warehouse
    pin = warehouse.pin(STAGED)
    assert (pin.files(), pin.days(), pin.lineage(), pin.snapshot_id, pin.knows(1)) == ([], {}, {}, None, False)
    assert pin.scan(columns=("spend",)).schema == pl.Schema({"spend": pl.Float64()})
    assert not warehouse.exists(STAGED)
    warehouse.table(STAGED)
    assert pin.schema.equals(warehouse.arrow_schema(STAGED), check_metadata=True)
