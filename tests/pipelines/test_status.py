"""`status` finds what is missing and what is stale, and the commands that it names mend it."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from deployment import FIRST_DAY, Deployment, day, rows_of_day

from pipelines.chain import STAGES
from pipelines.stages.status import _begun
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.days import ranges

pytestmark = pytest.mark.spark


@pytest.fixture
def daily(deployment: Deployment) -> Deployment:
    """Ten days staged, sequences of the last two."""
    deployment.write_days(FIRST_DAY, 13)
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", day(9))[0] == 0
    for number in (8, 9):
        assert deployment.run("build_sequences", "--date", day(number))[0] == 0
    return deployment


def mend(deployment: Deployment, said: str) -> list[str]:
    """Run the commands that were named, as they were named; their stages."""
    named = re.findall(r"python -m pipelines\.(\w+) --config \S+ (.*)", said)
    for stage, arguments in named:
        status, words = deployment.run(stage, *arguments.split())
        assert status == 0, words
    return [stage for stage, _ in named]


def test_nothing_is_missing_before_a_table_begins(daily: Deployment) -> None:
    status, said = daily.run("status", "--date", day(9))
    assert (status, "nothing is missing, stale or lost" in said) == (0, True), said


def test_missing_days_are_named_and_mended_in_order(daily: Deployment) -> None:
    status, said = daily.run("status", "--date", day(12))
    assert status == 4
    assert f"missing: {day(10)}..{day(12)}" in said
    assert mend(daily, said) == ["stage_sources", *["build_sequences"] * 3]
    assert daily.run("status", "--date", day(12))[0] == 0


def test_a_day_that_was_staged_again_makes_stale_what_was_made_from_it(daily: Deployment) -> None:
    daily.write_day(day(9), rows_of_day(day(9), advertisers=11))
    assert daily.run("stage_sources", "--date", day(9))[0] == 0
    status, said = daily.run("status", "--date", day(9))
    assert status == 4
    assert f"stale: {day(9)}. {day(9)}: staged.performance_daily {day(9)} was written since" in said
    assert mend(daily, said) == ["build_sequences"]
    assert daily.run("status", "--date", day(9))[0] == 0


def test_a_late_day_makes_every_later_sequence_stale(deployment: Deployment) -> None:
    deployment.edit("[checks]", '[checks]\nseverity = { day_completeness = "warning" }')
    deployment.write_days(FIRST_DAY, 10)
    for first, last in ((0, 3), (5, 9)):
        assert deployment.run("stage_sources", "--from", day(first), "--to", day(last))[0] == 0
    for number in (3, 9):
        assert deployment.run("build_sequences", "--date", day(number))[0] == 0
    status, said = deployment.run("status", "--date", day(9))
    assert status == 4
    assert f"missing: {day(4)}" in said
    assert f"stale: {day(9)}. {day(9)}: staged.performance_daily {day(4)} is to be mended" in said
    assert mend(deployment, said)[0] == "stage_sources"
    assert deployment.run("status", "--date", day(9))[0] == 0


def test_a_stage_of_several_tables_is_named_once(deployment: Deployment) -> None:
    last = deployment.write_days(FIRST_DAY, 30)
    for stage, arguments in (
        ("stage_sources", ("--from", FIRST_DAY, "--to", last)),
        ("build_sequences", ("--date", last)),
        ("score", ("--date", last)),
        ("build_sequences", ("--date", last)),
    ):
        status, said = deployment.run(stage, *arguments)
        assert status == 0, said
    assert deployment.run("status", "--date", last)[0] == 0  # the same rows again are nothing new
    deployment.write_day(last, rows_of_day(last, advertisers=11))
    for stage in ("stage_sources", "build_sequences"):
        assert deployment.run(stage, "--date", last)[0] == 0
    status, said = deployment.run("status", "--date", last)
    assert status == 4
    assert said.count(f"{last}: features.advertiser_sequence {last} was written since") == 4  # of all its tables
    assert mend(deployment, said) == ["score"]
    assert deployment.run("status", "--date", last)[0] == 0


@pytest.mark.parametrize(("table", "changed"), [("advertiser", {"tier": "silver"}), ("scenario", {"form": "image"})])
def test_restated_profiles_make_stale_what_was_made_from_them(
    deployment: Deployment, table: str, changed: dict[str, str]
) -> None:
    deployment.write_profiles()
    last = deployment.write_days(FIRST_DAY, 3)
    for stage, arguments in (
        ("stage_sources", ("--from", FIRST_DAY, "--to", last)),
        ("stage_sources", ("--date", last)),
        ("build_sequences", ("--date", last)),
        ("stage_sources", ("--date", last)),  # the same again is nothing new
    ):
        assert deployment.run(stage, *arguments)[0] == 0
    assert deployment.run("status", "--date", last)[0] == 0
    deployment.write_profiles(**changed)
    assert deployment.run("stage_sources", "--date", last)[0] == 0
    status, said = deployment.run("status", "--date", last)
    assert status == 4
    assert f"stale: {last}. {last}: staged.{table} {last} was written since" in said
    assert mend(deployment, said) == ["build_sequences"]
    assert deployment.run("status", "--date", last)[0] == 0
    ((name, value),) = changed.items()
    assert set(deployment.rows("features.advertiser_sequence")[name]) == {value}


def test_where_nothing_was_ever_staged_nothing_is_green_and_nothing_is_made(deployment: Deployment) -> None:
    last = deployment.write_days(FIRST_DAY, 2)
    first_load = f"python -m pipelines.stage_sources --config {deployment.toml} --from {FIRST_DAY} --to {last}"
    for command in (["status"], ["show", "tables"], ["show", "marts.forecast_daily"], ["score"], ["restatements"]):
        status, said = deployment.run(*command, "--date", last, spark=False)
        assert (status, "is M2M_HOME the right one?" in said, first_load in said) == (2, True, True), said
    assert not deployment.config.home.exists()

    Warehouse(deployment.config)  # a catalog without a table
    before = sorted(deployment.config.home.rglob("*"))
    status, said = deployment.run("status", "--date", last, spark=False)
    assert (status, first_load in said) == (4, True), said
    assert deployment.run("show", "tables", spark=False)[0] == 0
    assert deployment.run("show", "marts.forecast_daily", spark=False)[0] == 0
    assert sorted(deployment.config.home.rglob("*")) == before
    assert mend(deployment, said) == ["stage_sources"]
    status, said = deployment.run("status", "--date", last)
    assert status == 0
    assert "not begun: build_sequences, backtest, promote, score, monitor, explain" in said


@pytest.mark.parametrize(
    "table", ["staged.performance_daily", "features.sequence_week", "features.advertiser_sequence"]
)
def test_a_lost_file_is_seen_and_made_again(daily: Deployment, table: str) -> None:
    before = daily.rows("features.advertiser_sequence")
    lost = daily.warehouse.files(table, day(9) if table != "features.sequence_week" else day(6))[0]
    Path(lost.path.removeprefix("file://")).unlink()
    status, said = daily.run("status", "--date", day(9))
    assert status == 4
    assert f"lost: {day(9)}. {day(9)}: {lost.path} is gone" in said
    mend(daily, said)
    status, said = daily.run("status", "--date", day(9))
    assert status == 0, said
    assert daily.rows("features.advertiser_sequence").equals(before)


def test_a_run_that_ended_between_its_tables_is_seen_until_it_is_run_again(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.write_profiles()
    deployment.write_days(FIRST_DAY, 3)
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", day(1))[0] == 0
    commit = Warehouse.commit

    def killed(warehouse: Warehouse, table: str, *arguments: Any) -> int:
        if table == "staged.performance_daily":
            raise KeyboardInterrupt
        return commit(warehouse, table, *arguments)

    for days in (("--date", day(2)), ("--from", day(0), "--to", day(1))):
        with monkeypatch.context() as patch:
            patch.setattr(Warehouse, "commit", killed)
            assert deployment.run("stage_sources", *days)[0] == 130
        status, said = deployment.run("status", "--date", days[-1])
        assert status == 4, said
        assert re.search(
            rf"stale: .*{days[-1]}: run stage_sources-{days[-1]}-\w+ wrote staged.scenario and ended", said
        )
        assert mend(deployment, said) == ["stage_sources"]
        assert deployment.run("status", "--date", days[-1])[0] == 0


def test_forecasts_whose_second_table_was_never_written_are_seen(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = deployment.write_days(FIRST_DAY, 30)
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)[0] == 0
    assert deployment.run("build_sequences", "--date", last)[0] == 0
    commit = Warehouse.commit

    def killed(warehouse: Warehouse, table: str, *arguments: Any) -> int:
        if table == "marts.churn_risk":
            raise KeyboardInterrupt
        return commit(warehouse, table, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Warehouse, "commit", killed)
        assert deployment.run("score", "--date", last)[0] == 130
    status, said = deployment.run("status", "--date", last)
    assert status == 4
    assert f"missing: {last}" in said
    assert mend(deployment, said) == ["score"]
    assert deployment.run("status", "--date", last)[0] == 0
    Path(deployment.warehouse.files("marts.forecast_daily", last)[0].path.removeprefix("file://")).unlink()
    status, said = deployment.run("status", "--date", last)
    assert (status, f"lost: {last}" in said) == (4, True)
    assert mend(deployment, said) == ["score"]
    assert deployment.run("status", "--date", last)[0] == 0

    def overtaken(warehouse: Warehouse, table: str, *arguments: Any) -> int:
        if table == "marts.churn_risk" and not begun:
            begun.append(table)
            assert deployment.run("score", "--date", last)[0] == 0
        return commit(warehouse, table, *arguments)

    begun: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(Warehouse, "commit", overtaken)
        assert deployment.run("score", "--date", last)[0] == 0
    status, said = deployment.run("status", "--date", last)
    assert (status, "wrote marts.forecast_daily, another one this table" in said) == (4, True), said
    assert mend(deployment, said) == ["score"]
    assert deployment.run("status", "--date", last)[0] == 0


@pytest.mark.parametrize(("judged", "since"), [([3, 4], 1), ([], None)])
def test_forecasts_are_judged_from_the_first_on_not_from_the_first_judged_on(
    deployment: Deployment, judged: list[int], since: int | None
) -> None:
    """The run that should have judged the first ones may not have come that far: a day that was refused, say."""
    forecasts, quality = ({day(number): 1 for number in of} for of in ([1, 2, 3, 4, 5], judged))
    stories = {"marts.forecast_daily": forecasts, "marts.forecast_quality": quality}
    told: Any = {table: SimpleNamespace(days=days) for table, days in stories.items()}
    begun = _begun(deployment.config, STAGES["monitor"], told)
    assert begun == (day(since) if since is not None else None)


def test_days_fold_to_ranges() -> None:
    days = [day(1), day(2), day(5), day(7), day(8), day(9)]
    assert ranges(days) == [(day(1), day(2)), (day(5), day(5)), (day(7), day(9))]
