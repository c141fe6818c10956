"""Bad input: a named error, the right exit status, nothing published, yesterday's tables intact."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from deployment import FIRST_DAY, SQL, TOML, Deployment, rows_of_day
from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

TABLE = "staged.performance_daily"


def stage_ten_days(deployment: Deployment) -> Deployment:
    last = deployment.write_days(FIRST_DAY, 10)
    status, said = deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)
    assert status == 0, said
    return deployment


@pytest.fixture
def week(deployment: Deployment) -> Deployment:
    """Ten good days are staged."""
    return stage_ten_days(deployment)


@pytest.fixture(scope="module")
def ten_days(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("bad_input") / "tiny"
    folder.mkdir()
    (folder / "pipeline.toml").write_text(TOML)
    (folder / "performance_daily.sql").write_text(SQL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("M2M_HOME", str(folder.parent / "home"))
        yield stage_ten_days(Deployment(folder, str, lambda: spark))


@pytest.fixture
def shared(ten_days: Deployment, capfd: pytest.CaptureFixture[str]) -> Iterator[Deployment]:
    """Ten good days, once for all tests in which nothing is published: each leaves the tables as they were."""
    before, raw = ten_days.warehouse.snapshot_id(TABLE), ten_days.folder / "raw"
    yield Deployment(ten_days.folder, lambda: "".join(capfd.readouterr()))
    assert ten_days.warehouse.snapshot_id(TABLE) == before
    (raw / f"ds={BAD_DAY}.parquet").unlink(missing_ok=True)
    ten_days.write_days(FIRST_DAY, 10)


BAD_DAY = FIRST_DAY + timedelta(days=10)
_FIRST = pl.int_range(pl.len()) == 0


def _set(column: str, value: object) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Break the first row's column."""
    return lambda rows: rows.with_columns(pl.when(_FIRST).then(pl.lit(value)).otherwise(pl.col(column)).alias(column))


BAD_ROWS = {
    "duplicate keys": (lambda rows: pl.concat([rows, rows.head(3)]), ["duplicate_key", "search", "found 2", "adv"]),
    "negative spend": (_set("cost", -3.25), ["negative", "spend", "search", "-3.25", "adv0"]),
    "NaN": (_set("cost", float("nan")), ["nan", "spend", "search", "adv0"]),
    "infinity": (_set("views", float("inf")), ["infinite", "views", "search", "adv0"]),
    "an amount beyond all reason": (_set("cost", 1e300), ["absurd", "spend", "1e+15", "adv0"]),
    "null metric": (_set("taps", None), ["null", "taps", "search", "adv0"]),
    "clicks above impressions": (_set("taps", 1e6), ["not_above", "taps", "search", "1000000"]),
    "null id": (_set("who", None), ["null_id", "advertiser_id", "search"]),
    "empty id": (_set("who", "  "), ["empty_id", "advertiser_id", "search"]),
    "very long id": (_set("who", "x" * 300), ["long_id", "advertiser_id", "256", "xxx"]),
    "control characters in an id": (_set("who", "a\nb"), ["control_characters", "advertiser_id"]),
    "a scenario named as all of them": (_set("place", "*"), ["reserved_id", "scenario_id", "not *"]),
    "null scenario": (_set("place", None), ["null_id", "scenario_id"]),
    "a row of another day": (_set("day", BAD_DAY + timedelta(days=3)), ["other_day", "2024-01-14"]),
    "a row in the far future": (_set("day", date(2199, 1, 1)), ["other_day", "2199-01-01"]),
    "an empty day": (lambda rows: rows.clear(), ["empty_day", "2024-01-11"]),
    "half a day": (lambda rows: rows.head(10), ["volume", "10 rows, usually 20"]),
    "ids spelled otherwise": (
        lambda rows: rows.with_columns(pl.col("who") + ".0"),
        ["changed_ids advertiser_id", "100% of spend", "new, such as", "adv0.0", "12 of 12 of the week before"],
    ),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_stop_the_run_and_publish_nothing(shared: Deployment, case: str) -> None:
    break_rows, words = BAD_ROWS[case]
    shared.write_day(BAD_DAY, break_rows(rows_of_day(BAD_DAY)))
    before, runs = shared.rows(TABLE), set(shared.rows("ops.validation")["run_id"])

    status, said = shared.run("stage_sources", "--date", BAD_DAY)

    assert status == 3
    assert "nothing was published" in said
    for word in ["performance_daily", *words]:
        assert word in said
    assert shared.rows(TABLE).equals(before)
    (page,) = re.findall("every check of this run, and what to do: (.+)", said)
    assert words[0].split()[0] in Path(page).read_text(encoding="utf-8")
    failed = shared.rows("ops.validation").filter(~pl.col("run_id").is_in(list(runs)), passed=False)
    assert "critical" in set(failed["severity"])  # the failure is kept, with the run that found it


def test_mended_data_goes_through(week: Deployment) -> None:
    week.write_day(BAD_DAY, _set("cost", -3.25)(rows_of_day(BAD_DAY)))
    assert week.run("stage_sources", "--date", BAD_DAY)[0] == 3
    week.write_day(BAD_DAY)
    assert week.run("stage_sources", "--date", BAD_DAY)[0] == 0
    assert week.warehouse.days(TABLE)[BAD_DAY] == rows_of_day(BAD_DAY).height


def _rename(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.rename({"cost": "costs"})


def test_a_renamed_column_is_named_with_its_likely_new_name(shared: Deployment) -> None:
    shared.write_day(BAD_DAY, _rename(rows_of_day(BAD_DAY)))
    status, said = shared.run("stage_sources", "--date", BAD_DAY)
    assert status == 3
    assert 'source raw_day ds=2024-01-11: column "cost" is gone' in said
    assert 'is it "costs" now?' in said
    assert BAD_DAY not in shared.warehouse.days(TABLE)


def test_a_new_column_is_reported_and_ignored(week: Deployment) -> None:
    week.write_day(BAD_DAY, rows_of_day(BAD_DAY).with_columns(extra=pl.lit(1)))
    status, said = week.run("stage_sources", "--date", BAD_DAY)
    assert status == 0
    assert "warning" in said
    assert "extra" in said
    assert week.warehouse.days(TABLE)[BAD_DAY] > 0


def test_text_in_a_number_is_counted_with_an_example(shared: Deployment) -> None:
    rows = rows_of_day(BAD_DAY).with_columns(
        pl.when(_FIRST).then(pl.lit("1,5")).otherwise(pl.col("cost").cast(pl.String)).alias("cost")
    )
    shared.write_day(BAD_DAY, rows)
    status, said = shared.run("stage_sources", "--date", BAD_DAY)
    assert status == 3
    assert 'source raw_day ds=2024-01-11: column "cost": 1 values are not double; expected 0. First: "1,5"' in said
    assert BAD_DAY not in shared.warehouse.days(TABLE)


def test_a_missing_file_is_named(shared: Deployment) -> None:
    status, said = shared.run("stage_sources", "--date", BAD_DAY)
    assert status == 3
    assert "source raw_day ds=2024-01-11: 1 of 1 files are missing" in said
    assert "ds=2024-01-11.parquet" in said


@pytest.mark.parametrize("content", [b"", b"not parquet at all", b"PAR1" + b"\0" * 64 + b"PAR1"])
def test_a_corrupt_file_is_named(shared: Deployment, content: bytes) -> None:
    shared.write_day(BAD_DAY).write_bytes(content)
    status, said = shared.run("stage_sources", "--date", BAD_DAY)
    assert status == 3
    assert "cannot be read" in said
    assert "An error occurred while calling" not in said
    assert "ds=2024-01-11.parquet" in said
    assert BAD_DAY not in shared.warehouse.days(TABLE)


def test_a_truncated_file_is_named(shared: Deployment) -> None:
    path = shared.write_day(BAD_DAY)
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + b"\xff" * 40 + whole[80:])  # the footer is right, the pages are not
    status, said = shared.run("stage_sources", "--date", BAD_DAY)
    assert status == 3, said
    assert "ds=2024-01-11.parquet" in said


def test_an_id_that_is_not_ascii_warns_and_goes_through_unharmed(week: Deployment) -> None:
    week.write_day(BAD_DAY, _set("who", "Žižkov 広告")(rows_of_day(BAD_DAY)))
    status, said = week.run("stage_sources", "--date", BAD_DAY)
    assert status == 0
    assert "not_ascii" in said
    assert "Žižkov 広告" in week.rows(TABLE)["advertiser_id"].to_list()
    week.edit("[checks]", '[checks]\nseverity = { not_ascii = "critical" }')
    assert week.run("stage_sources", "--date", BAD_DAY)[0] == 3


def test_an_id_that_was_a_number_on_its_way_warns(week: Deployment) -> None:
    week.write_day(BAD_DAY, _set("who", "1000037.0")(rows_of_day(BAD_DAY)))
    status, said = week.run("stage_sources", "--date", BAD_DAY)
    assert status == 0
    assert "number_id advertiser_id" in said
    assert "1000037.0" in said


def test_an_unknown_scenario_stops_the_run_when_scenarios_are_declared(week: Deployment) -> None:
    week.edit(
        'performance_daily = "performance_daily.sql"',
        'performance_daily = "performance_daily.sql"\nscenario = "scenario.sql"',
    )
    (week.folder / "scenario.sql").write_text("select scenario_id from values ('search'), ('feed') as s (scenario_id)")
    week.write_day(BAD_DAY, _set("place", "serach")(rows_of_day(BAD_DAY)))
    status, said = week.run("stage_sources", "--date", BAD_DAY)
    assert status == 3
    assert "unknown_scenario" in said
    assert "serach" in said
    assert BAD_DAY not in week.warehouse.days(TABLE)


def test_a_day_that_was_staged_keeps_its_old_rows_when_its_new_ones_are_bad(shared: Deployment) -> None:
    last = FIRST_DAY + timedelta(days=9)
    before = shared.rows(TABLE)
    shared.write_day(last, _set("cost", -1.0)(rows_of_day(last)))
    assert shared.run("stage_sources", "--date", last)[0] == 3
    assert shared.rows(TABLE).equals(before)


DATES = {
    "before the data starts": ("2023-12-31", "before the data starts: [dataset] first_day = 2024-01-01"),
    "in the future": ("2999-01-01", "in the future"),
}


@pytest.mark.parametrize("case", DATES)
def test_a_date_that_cannot_be(deployment: Deployment, case: str) -> None:
    ds, words = DATES[case]
    status, said = deployment.run("stage_sources", "--date", ds)
    assert status == 2
    assert words in said


def test_a_date_that_is_no_date_is_wrong_use(deployment: Deployment) -> None:
    assert deployment.run("stage_sources", "--date", "20240111")[0] == 2
