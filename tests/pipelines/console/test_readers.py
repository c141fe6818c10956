"""What the pages show, from the tables to frames: no Streamlit, no Spark."""

from __future__ import annotations

from datetime import date, timedelta
from io import BytesIO
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from benchmarks.console_bed import SCENARIOS
from pipelines.config import load_config
from pipelines.console import readers
from pipelines.console.readers import FORECAST, TOGETHER, Moment, Tables
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.sequences import WEEK_TABLE, open_sequences

LAST = date(2024, 4, 1)


@pytest.fixture
def moment(tables: Tables) -> Moment:
    return tables.now()


def test_the_index_has_every_advertiser_once_with_its_bucket_and_attributes(moment: Moment) -> None:
    known = readers.index(moment, LAST).sort("advertiser_id")
    assert known["advertiser_id"].to_list() == [f"adv_{n:07d}" for n in range(60)]
    assert set(known.columns) >= {"bucket", "scenarios", "industry", "tier", "expected"}
    assert known["bucket"].to_list() == [n % 2 for n in range(60)]
    assert known["expected"].null_count() == 0
    early = readers.index(moment, date(2024, 3, 11))  # of which no sequences are kept
    assert early["advertiser_id"].sort().equals(known["advertiser_id"])


def test_an_id_is_found_before_those_that_begin_with_it_and_those_that_have_it() -> None:
    known = pl.DataFrame(
        {
            "advertiser_id": ["xab", "AB", "ab", "abc", "abd", "other"],
            "tier": ["a", "a", "a", "b", "a", "a"],
            "expected": [9.0, 8.0, 1.0, 2.0, 3.0, 4.0],
        }
    )
    assert readers.find(known, " ab ", {})["advertiser_id"].to_list() == ["ab", "abd", "abc", "xab", "AB"]
    assert readers.find(known, "ab", {"tier": "b"})["advertiser_id"].to_list() == ["abc"]
    assert readers.find(known, "", {"tier": ""}).height == 6
    assert readers.find(known, "(.*", {}).is_empty()  # a text, no pattern


def test_a_group_shares_all_attributes_unknown_ones_too() -> None:
    known = pl.DataFrame(
        {
            "advertiser_id": ["a", "b", "c", "d"],
            "tier": ["x", "x", None, None],
            "expected": [1.0, 5.0, 3.0, None],
        }
    )
    ranked, place = readers.group(known, "a", ["tier"])
    assert (ranked["advertiser_id"].to_list(), place) == (["b", "a"], 2)
    ranked, place = readers.group(known, "d", ["tier"])
    assert (ranked["advertiser_id"].to_list(), place) == (["c", "d"], 2)
    assert readers.group(known, "a", [])[1] == 3
    assert readers.group(known, "nobody", ["tier"])[1] == 0


def test_of_an_advertiser_the_files_of_its_bucket_alone_are_read(
    moment: Moment, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    monkeypatch.setattr(
        readers, "read_files", lambda files, *rest, own=readers.read_files: read.extend(files) or own(files, *rest)
    )
    made = readers.forecasts(moment, LAST, 1, "adv_0000007")
    readers.history(moment, 1, "adv_0000007", 28)
    readers.past_forecasts(moment, (LAST - timedelta(days=7),), 1, "adv_0000007")
    assert {file.bucket for file in read} == {1}
    assert len(read) == 2 + 5 + 2  # forecasts and totals; the weeks that 28 days reach into; an earlier day
    assert set(made["scenario_id"]) <= {TOGETHER, *SCENARIOS}


def test_history_is_what_the_stages_read_of_it(moment: Moment, tables: Tables) -> None:
    of = open_sequences(tables.config, tables.warehouse, LAST).rows(1).filter(advertiser_id="adv_0000007")
    want = of.explode("day", *tables.config.metric_names).select(
        "scenario_id", pl.from_epoch("day", time_unit="d").cast(pl.Date).alias("day"), "spend", "clicks"
    )
    found = readers.history(moment, 1, "adv_0000007", 400)
    assert found.select(want.columns).equals(want.sort("day", "scenario_id"))
    assert set(found["active_days"]) == {1.0}


def test_a_day_without_a_row_is_0_and_blocks_are_whole() -> None:
    rows = pl.DataFrame(
        {"scenario_id": ["s", "t", "s"], "day": [LAST, LAST, LAST - timedelta(days=3)], "spend": [1.0, 2.0, 4.0]}
    )
    days = readers.per_day(rows, TOGETHER, "spend", LAST - timedelta(days=4), LAST)
    assert days["amount"].to_list() == [0.0, 4.0, 0.0, 0.0, 3.0]
    assert readers.per_day(rows, "t", "spend", LAST, LAST)["amount"].to_list() == [2.0]
    blocks = readers.in_blocks(days, LAST, 2)
    assert blocks["amount"].to_list() == [4.0, 3.0]
    assert blocks["day"].to_list() == [LAST - timedelta(days=2), LAST]


def test_past_forecasts_do_not_overlap() -> None:
    days = [LAST - timedelta(days=n) for n in (1, 2, 7, 8, 13, 14, 30)]
    assert readers.apart(days, LAST, 7, 12) == [LAST - timedelta(days=n) for n in (30, 14, 7)]
    assert readers.apart(days, LAST, 7, 2) == [LAST - timedelta(days=n) for n in (14, 7)]


def test_who_may_leave_comes_by_value_and_all_of_them(moment: Moment) -> None:
    rows = readers.at_risk(moment, LAST, 7, 7)
    series = sum(file.rows for file in moment.pin(readers.RISK).files_on([LAST]))
    assert rows.height == series
    assert rows["value_at_risk"].is_sorted(descending=True)
    assert readers.at_risk(moment, LAST, 14, 28).is_empty()


def test_movers_without_causes_are_compared_by_advertiser(moment: Moment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "DECLARATIONS", {k: v for k, v in readers.DECLARATIONS.items() if k != readers.CHANGE})
    before = LAST - timedelta(days=1)
    rows = readers.movers(moment, LAST, before, "spend", 7)
    assert rows["change"].abs().is_sorted(descending=True)
    assert rows["advertiser_id"].n_unique() == rows.height > 1
    assert readers.movers(moment, before, None, "spend", 7).is_empty()


def test_movers_come_by_rank_with_what_moved_them(moment: Moment) -> None:
    rows = readers.movers(moment, LAST, None, "spend", 7)
    assert rows["rank"].is_sorted()
    assert set(readers.CAUSES) <= set(rows.columns)
    assert rows.select(pl.sum_horizontal(*readers.CAUSES) - pl.col("change")).to_series().abs().max() < 1e-6  # type: ignore[operator]
    assert readers.movers(moment, LAST, None, "clicks", 7).is_empty()


def test_history_of_all_is_the_sum_of_its_files(moment: Moment) -> None:
    files = readers.history_files(moment, 28)
    whole = readers.joined([readers.added_up(moment, file) for file in files], moment.config)
    one = pl.concat([readers.history(moment, n % 2, f"adv_{n:07d}", 28) for n in range(60)])
    want = one.group_by("scenario_id", "day").agg(pl.sum("spend"))
    both = want.join(whole, on=["scenario_id", "day"], suffix="_whole")
    assert both.height == want.height
    assert (both["spend"] - both["spend_whole"]).abs().max() < 1e-6  # type: ignore[operator]


def test_a_commit_is_seen_at_the_next_look_and_nothing_is_loaded_twice(tables: Tables) -> None:
    first = tables.now().pin(FORECAST)
    assert tables.now().pin(FORECAST) is first
    writer = Warehouse(tables.config)
    pin = writer.pin(FORECAST)
    writer.commit(FORECAST, [LAST], pin.files(LAST), {"run-id": "again"})
    again = tables.now().pin(FORECAST)
    assert again.snapshot_id == writer.snapshot_id(FORECAST) != first.snapshot_id


def test_days_and_files_are_those_that_a_plan_finds(moment: Moment) -> None:
    for name in (FORECAST, WEEK_TABLE, readers.QUALITY, readers.CHECKS):
        pin = moment.pin(name)
        assert pin.days_written() == sorted(pin.days())
        for day in pin.days_written()[-2:]:
            assert pin.files_on([day]) == pin.files(day)
    assert moment.pin("staged.performance_daily").files_on([LAST]) == []


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "|calc"])
def test_no_cell_of_a_csv_is_a_formula(text: str) -> None:
    written = readers.to_csv(pl.DataFrame({"advertiser_id": [text, "plain"], "value": [-1.0, 2.0]}))
    assert pl.read_csv(written)["advertiser_id"].to_list() == [f"'{text}", "plain"]
    assert pl.read_csv(written)["value"].to_list() == [-1.0, 2.0]


def test_a_parquet_download_is_the_rows() -> None:
    rows = pl.DataFrame({"advertiser_id": ["=1+1", None]})
    assert pl.read_parquet(BytesIO(readers.to_parquet(rows))).equals(rows)


def test_runs_are_told_once_each_with_all_their_tables(moment: Moment) -> None:
    rows = readers.runs(moment)
    assert rows["run_id"].n_unique() == rows.height
    newest = rows.filter(run_id=f"made-up-{LAST}").row(0, named=True)
    assert {FORECAST, readers.RISK, readers.TOTAL} <= set(newest["tables"].split(", "))


def test_of_a_day_that_was_checked_again_the_newest_run_counts(
    bed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("M2M_HOME", str(tmp_path))
    config = load_config(bed)
    warehouse, schema = Warehouse(config), Warehouse(config).arrow_schema(readers.CHECKS)
    row = {"ds": LAST, "stage": "stage_sources", "table": "t", "check": "unique", "severity": "critical"}
    row |= {"column": None, "scenario": "search", "expected": "0", "found": 1.0, "example": None}
    for run, changes in (("b", {"passed": False}), ("a", {"passed": True, "scenario": None})):
        rows = pa.Table.from_pylist([{**row, "run_id": run, **changes}], schema)
        warehouse.append(readers.CHECKS, rows, {"run-id": run})
        failed = readers.failed_checks(Tables(config).now(), 7)
        assert failed["run_id"].to_list() == ([run] if run == "b" else [])


def test_readers_write_nothing(moment: Moment, home: Path) -> None:
    def listing() -> list[tuple[str, int, int]]:
        files = [path for path in home.rglob("*") if path.is_file()]
        return sorted((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)

    before = listing()
    readers.index(moment, LAST)
    readers.decisions(moment)
    readers.failed_checks(moment, 7)
    readers.holes(moment, LAST - timedelta(days=7), LAST)
    assert listing() == before
