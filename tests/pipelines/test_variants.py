"""Data sets of other shapes: behavior and attributes, one scenario, CSV, other names; nothing but a folder changes."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest
from deployment import FIRST_DAY, Deployment, rows_of_day

from pipelines.warehouse.sequences import open_sequences

pytestmark = pytest.mark.spark

LAST = FIRST_DAY + timedelta(days=45)

BEHAVIOR = """
select day as ds, who as advertiser_id, cast(null as string) as scenario_id, 1D as logins, views / 100 as edits
from raw_day where place = 'search' and pmod(day(day), 3) = 0
"""
ADVERTISER = """
select distinct who as advertiser_id, cast(null as date) as registered_on, concat('band', length(who)) as band
from raw_day
"""
SCENARIO = "select * from values ('search', 'text'), ('feed', 'image') as s (scenario_id, form)"


def test_behavior_profiles_and_scenario_attributes_reach_the_sequences_and_the_forecasts(
    deployment: Deployment,
) -> None:
    for name, sql in (("behavior_daily", BEHAVIOR), ("advertiser", ADVERTISER), ("scenario", SCENARIO)):
        (deployment.folder / f"{name}.sql").write_text(sql)
    deployment.edit(
        'performance_daily = "performance_daily.sql"',
        'performance_daily = "performance_daily.sql"\nbehavior_daily = "behavior_daily.sql"\n'
        'advertiser = "advertiser.sql"\nscenario = "scenario.sql"\n\n[attributes]\nadvertiser = ["band"]\n'
        'scenario = ["form"]\n\n[[behavior]]\nname = "logins"\n\n[[behavior]]\nname = "edits"',
    )
    deployment.write_days(FIRST_DAY, 46)
    for stage, arguments in (
        ("stage_sources", ("--from", FIRST_DAY, "--to", LAST)),
        ("build_sequences", ("--date", LAST)),
        ("train", ("--date", LAST)),
        ("score", ("--date", LAST)),
    ):
        status, said = deployment.run(stage, *arguments)
        assert status == 0, said
    files = open_sequences(deployment.config, deployment.warehouse, LAST)
    sequences = pl.concat(files.rows(bucket) for bucket in files.buckets)
    assert set(sequences["form"]) == {"text", "image"}
    assert set(sequences["band"]) == {"band4", "band5"}
    search = sequences.filter(advertiser_id="adv0", scenario_id="search").row(0, named=True)
    feed = sequences.filter(advertiser_id="adv0", scenario_id="feed").row(0, named=True)
    assert search["logins"] == feed["logins"]  # a row for all scenarios counts in each
    assert len(search["logins"]) == len(search["behavior_day"]) > 5
    assert deployment.rows("marts.forecast_daily").height == sequences.height * 2


def test_one_scenario_from_csv_with_other_names(deployment: Deployment) -> None:
    deployment.edit(
        'format = "parquet"\npath = "raw/ds={ds}.parquet"',
        'format = "csv"\npath = "raw/*.csv"\noptions = { header = "true" }',
    )
    deployment.toml.write_text(
        deployment.toml.read_text().replace('"spend"', '"outlay"').replace('"views"', '"showings"')
    )
    (deployment.folder / "performance_daily.sql").write_text(
        "select day as ds, who as advertiser_id, 'all' as scenario_id, sum(views) as showings, sum(taps) as taps, "
        "sum(cost) as outlay from raw_day where day between :from_ds and :to_ds group by day, who"
    )
    (deployment.folder / "raw").mkdir()
    days = [FIRST_DAY + timedelta(days=i) for i in range(46)]
    half = [pl.concat([rows_of_day(day) for day in part]) for part in (days[:20], days[20:])]
    half[0].write_csv(deployment.folder / "raw" / "a.csv")
    half[1].write_csv(deployment.folder / "raw" / "b.csv")
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", LAST)[0] == 0
    assert deployment.run("build_sequences", "--date", LAST)[0] == 0
    assert deployment.run("score", "--date", LAST)[0] == 0
    forecasts = deployment.rows("marts.forecast_daily")
    assert set(forecasts["scenario_id"]) == {"all"}
    assert set(forecasts["task"]) == {"outlay", "active_days"}


def test_a_data_set_that_counts_no_active_days_has_no_figures_of_leaving(deployment: Deployment) -> None:
    deployment.edit('[[task]]\nname = "active_days"\nmetric = "active"\naggregate = "days"\n\n', "")
    deployment.write_days(FIRST_DAY, 46)
    for stage, arguments in (
        ("stage_sources", ("--from", FIRST_DAY, "--to", LAST)),
        ("build_sequences", ("--date", LAST)),
        ("train", ("--date", LAST)),
        ("backtest", ("--date", LAST)),
        ("score", ("--date", LAST)),
    ):
        status, said = deployment.run(stage, *arguments)
        assert status == 0, said
    assert deployment.rows("marts.churn_risk").is_empty()
    assert deployment.warehouse.days("marts.churn_risk") == {LAST: 0}  # written, and empty
    rows = deployment.rows("marts.backtest_value")
    assert set(rows["task"]) == {"spend"}
    assert set(rows["figure"]) == {
        "gini",
        "top_decile_capture",
        "perfect_capture",
        "size_nmae",
        "size_bias",
        "size_actual_share",
        "group_nmae",
        "group_bias",
        "group_zero_points",
        "group_zeros",
        "group_p_zero",
        "group_level_50",
        "group_level_90",
        "group_coverage_50",
        "group_coverage_90",
    }


def test_without_a_task_that_adds_up_money_no_value_is_at_risk(deployment: Deployment) -> None:
    deployment.edit('kind = "money"', 'kind = "count"')
    deployment.write_days(FIRST_DAY, 46)
    for stage, arguments in (
        ("stage_sources", ("--from", FIRST_DAY, "--to", LAST)),
        ("build_sequences", ("--date", LAST)),
        ("score", ("--date", LAST)),
    ):
        status, said = deployment.run(stage, *arguments)
        assert status == 0, said
    rows = deployment.rows("marts.churn_risk")
    assert rows.height == deployment.rows("features.advertiser_sequence").height
    assert rows["probability"].is_between(0, 1).all()
    assert rows["value_at_risk"].is_null().all()


def test_csv_files_with_columns_in_another_order_are_read_by_name(deployment: Deployment) -> None:
    deployment.edit(
        'format = "parquet"\npath = "raw/ds={ds}.parquet"',
        'format = "csv"\npath = "raw/*.csv"\noptions = { header = "true" }',
    )
    (deployment.folder / "raw").mkdir()
    rows_of_day(FIRST_DAY).write_csv(deployment.folder / "raw" / "a.csv")
    swapped = ["day", "who", "place", "taps", "views", "cost"]
    rows_of_day(FIRST_DAY + timedelta(days=1)).select(swapped).write_csv(deployment.folder / "raw" / "b.csv")
    status, said = deployment.run("stage_sources", "--from", FIRST_DAY, "--to", FIRST_DAY + timedelta(days=1))
    assert status == 0, said
    staged = deployment.rows("staged.performance_daily")
    raw = pl.concat([rows_of_day(FIRST_DAY), rows_of_day(FIRST_DAY + timedelta(days=1))]).sort("day", "who", "place")
    assert staged["taps"].to_list() == raw["taps"].to_list()
    assert staged["views"].to_list() == raw["views"].to_list()


def test_too_little_history_to_train_is_said_with_dates(deployment: Deployment) -> None:
    last = deployment.write_days(FIRST_DAY, 30)
    deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)
    deployment.run("build_sequences", "--date", last)
    status, said = deployment.run("train", "--date", last)
    assert status == 3
    assert "2024-01" in said
    status, said = deployment.run("score", "--date", last)
    assert status == 0, said  # forecasts do not wait for training


def test_a_stage_before_its_input_names_the_command_that_makes_it(deployment: Deployment) -> None:
    deployment.write_days(FIRST_DAY, 1)
    assert deployment.run("stage_sources", "--date", FIRST_DAY)[0] == 0
    for stage in ("train", "score"):
        status, said = deployment.run(stage, "--date", FIRST_DAY)
        assert status == 3
        assert "python -m pipelines.build_sequences" in said
    status, said = deployment.run("promote", "--date", FIRST_DAY)
    assert status == 3
    assert "run backtest for that date first" in said
