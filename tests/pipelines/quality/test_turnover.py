"""Who is new and who is gone, by bucket and added up; what normal days look like, and ids spelled otherwise."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from deployment import FIRST_DAY, SQL, TOML, day
from pyiceberg.io.pyarrow import schema_to_pyarrow

from pipelines.config import Config, load_config
from pipelines.quality.turnover import Turnover, turnover_counters, turnover_rules
from pipelines.warehouse.files import write_file
from pipelines.warehouse.store import Folder
from pipelines.warehouse.tables import performance_daily

ROWS = tuple[date, str, float]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "pipeline.toml").write_text(TOML)
    (tmp_path / "performance_daily.sql").write_text(SQL)
    return load_config(tmp_path / "pipeline.toml")


def _frame(rows: list[ROWS]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=["ds", "advertiser_id", "spend"], orient="row")
    return frame.with_columns(pl.lit(1.0).alias(name) for name in ("views", "taps")).with_columns(
        scenario_id=pl.lit("s")
    )


def _judged(config: Config, folder: Path, rows: list[ROWS], first: date, last: date) -> dict[tuple[date, str], float]:
    """The shares that are judged of ``first``..``last``; earlier rows lie in files, by length of id in two buckets."""
    schema = schema_to_pyarrow(performance_daily(config).schema())
    frame = _frame(rows).with_columns(bucket=pl.col("advertiser_id").str.len_bytes().cast(pl.Int32) % 2)
    files = [
        write_file(part, schema, Folder(f"file://{folder}"), ds, bucket)
        for (ds, bucket), part in frame.filter(pl.col("ds") < first).group_by("ds", "bucket")
    ]
    turnover = Turnover.of(config, files, schema, first, last)
    now = frame.filter(pl.col("ds") >= first)
    report = pl.concat(turnover.count(bucket, now.filter(bucket=bucket)) for bucket in (0, 1))
    found = turnover_counters(report, set(frame["ds"]), turnover.value, config.checks.new_max_ratio)
    return {(ds, counter): value for ds, counter, value in found.select("ds", "counter", "value").iter_rows()}


def _days(ids: list[str], first: int, last: int) -> list[ROWS]:
    return [(day(number), name, 10.0) for number in range(first, last + 1) for name in ids]


IDS = [f"{1000037 + i}" for i in range(10)]
SPELLINGS: dict[str, Callable[[str], str]] = {
    "a float": lambda name: f"{name}.0",
    "zeros in front": lambda name: f"000{name}",
    "a blank": lambda name: f"{name} ",
    "a prefix": lambda name: f"A{name}",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_ids_spelled_otherwise_are_all_new_and_all_gone(config: Config, tmp_path: Path, spelling: str) -> None:
    respelled = [SPELLINGS[spelling](name) for name in IDS]
    rows = _days(IDS, 0, 9) + _days(respelled, 10, 10)
    assert _judged(config, tmp_path, rows, day(10), day(10)) == {(day(10), "changed_ids"): 1.0}
    # In a range, where both spellings are rows of the run; from the next day on the new ones are known.
    found = _judged(config, tmp_path, rows + _days(respelled, 11, 12), day(0), day(12))
    assert found == {(day(10), "changed_ids"): 1.0}


def test_a_part_of_the_ids_counts_by_heads_and_by_money(config: Config, tmp_path: Path) -> None:
    rows = _days(IDS, 0, 9) + _days([*IDS[3:], "x1", "x2", "x3"], 10, 10)
    found = _judged(config, tmp_path, rows, day(10), day(10))
    assert found == {(day(10), "changed_ids"): 0.3, (day(10), "new_advertisers"): 0.3}  # at most 0.3 is allowed
    dear = [(ds, name, 1000.0 if name in (*IDS[:3], "x1", "x2", "x3") else spend) for ds, name, spend in rows]
    assert _judged(config, tmp_path, dear, day(10), day(10))[day(10), "changed_ids"] > 0.9


def test_growth_and_several_spellings_are_new_alone(config: Config, tmp_path: Path) -> None:
    rows = _days(IDS, 0, 10) + _days([f"{name}.0" for name in IDS], 10, 10)
    assert _judged(config, tmp_path, rows, day(10), day(10)) == {(day(10), "new_advertisers"): 0.5}


def test_who_pauses_is_not_new_and_a_few_are_no_change(config: Config, tmp_path: Path) -> None:
    paused = _days(IDS, 0, 9) + _days(IDS, 25, 25)
    assert _judged(config, tmp_path, paused, day(25), day(25)) == {}
    few = _days(IDS[:2], 0, 9) + _days(["x1", "x2"], 10, 10)
    assert _judged(config, tmp_path, few, day(10), day(10)) == {}


def test_in_the_first_week_nearly_all_must_have_changed(config: Config, tmp_path: Path) -> None:
    assert _judged(config, tmp_path, _days(IDS, 0, 0), FIRST_DAY, FIRST_DAY) == {}
    half = _days(IDS, 0, 0) + _days([*IDS[5:], *(f"x{i}" for i in range(5))], 1, 1)
    assert _judged(config, tmp_path, half, day(1), day(1)) == {}
    every = _days(IDS, 0, 0) + _days([f"{name}.0" for name in IDS], 1, 1)
    assert _judged(config, tmp_path, every, day(1), day(1)) == {(day(1), "changed_ids"): 1.0}


def test_rows_of_no_day_of_the_run_count_for_nobody(config: Config) -> None:
    turnover = Turnover.of(config, [], schema_to_pyarrow(performance_daily(config).schema()), day(0), day(1))
    good = _frame(_days(IDS, 0, 1))
    odd = _frame([(date(1900, 1, 1), IDS[0], 1.0), (date(2199, 1, 1), "x", 1.0)])
    nobody = good.head(1).with_columns(advertiser_id=pl.lit(None, pl.String))
    counted = turnover.count(0, pl.concat([good, odd, nobody])).sort("ds", "counter")
    assert counted.equals(turnover.count(0, good).sort("ds", "counter"))


def test_a_bucket_that_got_no_row_has_lost_its_own(config: Config, tmp_path: Path) -> None:
    rows = _days([*IDS, "eight888"], 0, 9) + _days(["eight888"], 10, 10)
    assert _judged(config, tmp_path, rows, day(10), day(10)) == {}  # gone alone is for the volume to say


def test_it_stops_a_day_and_warns_in_a_range(config: Config) -> None:
    by_name = {
        daily: {check.name: check.severity for check in turnover_rules(config, daily)} for daily in (True, False)
    }
    assert by_name == {
        True: {"changed_ids": "critical", "new_advertisers": "warning"},
        False: {"changed_ids": "warning", "new_advertisers": "warning"},
    }


def test_the_examples_are_the_same_advertiser_in_both_spellings(config: Config, tmp_path: Path) -> None:
    rows = _frame(_days(IDS, 0, 9) + _days([f"0{name}.0" for name in IDS], 10, 10))
    schema = performance_daily(config).schema().as_arrow()
    turnover = Turnover.of(config, [], schema, day(0), day(10))
    found = turnover_counters(turnover.count(0, rows), set(rows["ds"]), "spend", 0.3)
    assert found["example"].to_list() == [
        '10 of 10 advertisers, with 100% of spend, are new, such as "01000037.0"; '
        '10 of 10 of the week before, with 100%, are gone, such as "1000037"'
    ]
