"""Damaged state as a person meets it: named in a line, nothing published, and what the line says mends it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from deployment import FIRST_DAY, Deployment, day

pytestmark = pytest.mark.spark

STAGED, BUILT = "staged.performance_daily", "features.advertiser_sequence"


@pytest.fixture
def staged(deployment: Deployment) -> Deployment:
    """Ten days staged, sequences of the ninth built."""
    deployment.write_days(FIRST_DAY, 10)
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", day(9))[0] == 0
    assert deployment.run("build_sequences", "--date", day(8))[0] == 0
    return deployment


def flip(path: str) -> None:
    content = bytearray(Path(path).read_bytes())
    content[len(content) // 3] ^= 16
    Path(path).write_bytes(content)


def test_a_damaged_data_file_stops_whoever_reads_it_with_its_name(staged: Deployment) -> None:
    before = staged.warehouse.snapshot_id(BUILT)
    file = staged.warehouse.files(STAGED, day(9))[0]
    flip(file.path)
    status, said = staged.run("build_sequences", "--date", day(9))
    assert (status, staged.warehouse.snapshot_id(BUILT)) == (3, before), said
    assert "Traceback" not in said
    assert f"ds={day(9)}: {file.path} is damaged" in said
    assert f"python -m pipelines.stage_sources --date {day(9)}" in said


@pytest.mark.parametrize("damage", ["changed", "gone"])
@pytest.mark.parametrize(("table", "number"), [(STAGED, 9), ("features.sequence_week", 6)])
def test_what_the_message_says_mends_it(staged: Deployment, table: str, number: int, damage: str) -> None:
    file = staged.warehouse.files(table, day(number))[0]
    flip(file.path) if damage == "changed" else Path(file.path).unlink()
    status, said = staged.run("build_sequences", "--date", day(9))
    if (table, damage) == ("features.sequence_week", "gone"):
        assert status == 0, said  # a part of a week is made again without a word
    else:
        assert status == 3, said
        stage, date = re.findall(r"python -m pipelines\.(\w+) --date ([\d-]+)", said)[0]
        Path(file.path).unlink(missing_ok=True)
        status, said = staged.run(stage, "--date", date)
        assert status == 0, said
    status, said = staged.run("build_sequences", "--date", day(9))
    assert status == 0, said
    assert staged.rows(BUILT).filter(ds=day(9))["advertiser_id"].n_unique() == 12


def test_forecasts_that_changed_on_disk_are_not_judged(staged: Deployment) -> None:
    staged.write_days(FIRST_DAY, 40)
    assert staged.run("stage_sources", "--from", FIRST_DAY, "--to", day(39))[0] == 0
    assert staged.run("build_sequences", "--date", day(32))[0] == 0
    assert staged.run("score", "--date", day(32))[0] == 0
    file = staged.warehouse.files("marts.forecast_daily", day(32))[0]
    flip(file.path)
    status, said = staged.run("monitor", "--date", day(39))
    assert (status, "is damaged" in said, "Traceback" in said) == (3, True, False), said
    status, said = staged.run("show", "marts.forecast_daily", "--date", day(32), "--limit", 1000)
    assert (status, file.path in said) == (3, True), said
