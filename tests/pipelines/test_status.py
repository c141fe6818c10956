"""`status` finds what is missing and what is stale, and the commands that it names mend it."""

from __future__ import annotations

import re

import pytest
from deployment import FIRST_DAY, Deployment, day, rows_of_day

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
    assert (status, "nothing is missing or stale" in said) == (0, True), said


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


def test_a_stage_of_two_tables_is_named_once(deployment: Deployment) -> None:
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
    assert said.count(f"{last}: features.advertiser_sequence {last} was written since") == 2  # of both tables
    assert mend(deployment, said) == ["score"]
    assert deployment.run("status", "--date", last)[0] == 0


def test_days_fold_to_ranges() -> None:
    days = [day(1), day(2), day(5), day(7), day(8), day(9)]
    assert ranges(days) == [(day(1), day(2)), (day(5), day(5)), (day(7), day(9))]
