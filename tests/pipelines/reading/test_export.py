"""A day as a file: whole or not at all, types kept, nothing that a spreadsheet would run."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from deployment import FIRST_DAY, Deployment, day
from published import publish

from pipelines.reading.rows import bucket_of
from pipelines.warehouse.files import GUARD

TABLE = "staged.performance_daily"
IDS = ["adv1", "=1+1", "-7", "@x", "+49", "\tx", "＝1", "a,b", 'q"x', "line\nbreak", "café 广告"]


def rows(spend: float = 0.1) -> list[dict[str, object]]:
    return [{"advertiser_id": who, "scenario_id": "search", "views": 2.0, "spend": spend} for who in IDS]


@pytest.fixture
def written(deployment: Deployment) -> Deployment:
    publish(deployment.warehouse, TABLE, day(0), rows(9.0), "before")
    publish(deployment.warehouse, TABLE, day(0), rows(), "one")
    publish(deployment.warehouse, TABLE, day(3), rows(0.3), "two")
    return deployment


def export(deployment: Deployment, table: str, out: Path, *arguments: object) -> tuple[int, str]:
    return deployment.run("export", table, "--out", out, *arguments, spark=False)


def test_parquet_has_the_rows_as_they_are(written: Deployment, tmp_path: Path) -> None:
    status, said = export(written, TABLE, out := tmp_path / "day.parquet", "--date", day(0))
    assert (status, said) == (0, f"{TABLE} {day(0)}: 11 rows and 7 columns, 0.0 MiB, in {out}\n")
    key = ["advertiser_id"]
    assert pl.read_parquet(out).sort(key).equals(written.rows(TABLE).filter(ds=day(0)).sort(key))
    assert pq.read_metadata(out).num_row_groups == len({bucket_of(who, 2) for who in IDS})
    assert pq.read_schema(out).metadata[b"m2m.snapshot"] == str(written.warehouse.snapshot_id(TABLE)).encode()
    assert len(pd.read_parquet(out)) == 11


def test_csv_has_them_as_text_and_nothing_that_runs(written: Deployment, tmp_path: Path) -> None:
    status, said = export(written, TABLE, out := tmp_path / "day.csv")  # of the newest day
    assert status == 0
    assert "6 texts that a spreadsheet would run as a formula got a ' before" in said
    text = out.read_text(encoding="utf-8")
    assert text.splitlines()[0] == "ds,bucket,advertiser_id,scenario_id,views,taps,spend"
    read = pd.read_csv(out, dtype={"advertiser_id": str})
    assert set(read["ds"]) == {str(day(3))}
    assert set(read["spend"]) == {0.3}
    assert set(read["advertiser_id"]) == {f"'{who}" if who[0] in "=-+@\t＝" else who for who in IDS}


def test_null_is_nothing_and_an_empty_text_two_quotes(deployment: Deployment, tmp_path: Path) -> None:
    when = datetime(2024, 1, 1, 5, 30, tzinfo=UTC).replace(tzinfo=None)
    row = {"champion": None, "baseline": "", "decided_at": when, "promoted": True, "dry_run": False}
    publish(deployment.warehouse, "ops.promotion", FIRST_DAY, [row], "one")
    columns = "champion,baseline,decided_at,promoted,champion_nmae"
    assert export(deployment, "ops.promotion", out := tmp_path / "one.csv", "--columns", columns)[0] == 0
    assert out.read_text() == f'{columns}\n,"",2024-01-01T05:30:00.000000Z,true,\n'


def test_choices_are_counted(written: Deployment, tmp_path: Path) -> None:
    out = tmp_path / "some.parquet"
    status, said = export(written, TABLE, out, "--where", "advertiser_id like 'a%'", "--columns", "advertiser_id,spend")
    assert status == 0
    assert "2 of 11 rows and 2 columns" in said
    assert pl.read_parquet(out).sort("advertiser_id").rows() == [("a,b", 0.3), ("adv1", 0.3)]
    assert "0 of 11 rows" in export(written, TABLE, tmp_path / "none.csv", "--advertiser", "nobody")[1]
    assert (tmp_path / "none.csv").read_text() == "ds,bucket,advertiser_id,scenario_id,views,taps,spend\n"
    assert "22 rows" in export(written, TABLE, tmp_path / "all.csv", "--date", "all")[1]


@pytest.mark.parametrize(
    ("table", "out", "arguments", "words"),
    [
        (TABLE, "x.csv", ["--date", "2024-01-03"], "no day 2024-01-03; it has .*; the nearest: 2024-01-01, 2024-01-04"),
        (TABLE, "x.xlsx", [], "a local file whose name ends with .parquet or .csv"),
        (TABLE, "s3://ads/x.csv", [], "a local file whose name"),
        (TABLE, "gone/x.csv", [], "there is no folder"),
        (TABLE, "x.parquet", [], "is a folder; name a file in it"),
        ("features.sequence_week", "x.csv", [], "CSV cannot hold day, views, .*: write .parquet, or name --columns"),
        ("marts.forecast", "x.csv", [], 'unknown table "marts.forecast"'),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_left(
    written: Deployment, tmp_path: Path, table: str, out: str, arguments: list[str], words: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.parquet").mkdir()
    place = out if "://" in out else str(tmp_path / "out" / out)
    status, said = written.run("export", table, "--out", place, *arguments, spark=False)
    assert status == 2, said
    assert pl.Series([said]).str.contains(words).all(), said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.parquet"]


def test_a_file_of_the_tables_is_not_replaced(written: Deployment) -> None:
    place = written.config.home / "warehouse" / "tiny_staged" / "performance_daily" / "data" / GUARD
    status, said = written.run("export", TABLE, "--out", place, spark=False)
    assert (status, "that folder is the tables' own" in said) == (2, True), said
    assert b"no Parquet" in place.read_bytes()


def test_a_failure_in_the_middle_leaves_the_file_of_before(written: Deployment, tmp_path: Path) -> None:
    out = tmp_path / "out" / "day.csv"
    out.parent.mkdir()
    assert export(written, TABLE, out)[0] == 0
    before = out.read_bytes()
    Path(written.warehouse.files(TABLE, day(3))[-1].path).unlink()  # the second bucket
    status, said = export(written, TABLE, out)
    assert (status, "is gone" in said) == (3, True), said
    assert [path.read_bytes() for path in out.parent.iterdir()] == [before]


def test_a_day_without_a_row_is_a_header(written: Deployment, tmp_path: Path) -> None:
    publish(written.warehouse, TABLE, day(5), [], "empty")
    status, said = export(written, TABLE, out := tmp_path / "day.csv")
    assert (status, f"{day(5)}: 0 rows" in said) == (0, True), said
    assert out.read_text().count("\n") == 1
    assert pl.read_csv(out).height == 0
    assert date.fromisoformat(str(day(5))) == day(5)
