"""docs/read_the_tables.md is true: its Python and its SQL run, give what they say, and a glob gives nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset
import pytest
from published import publish
from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from pipelines.cli import exit_status
from pipelines.config import load_config
from pipelines.export import main as export
from pipelines.show import main as show
from pipelines.stages.maintain import orphans
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.files import GUARD

ROOT = Path(__file__).resolve().parents[2]
TOML = ROOT / "examples" / "online_ads" / "pipeline.toml"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "docs" / "read_the_tables.md").read_text("utf-8"), re.M | re.S)
QUERIES = [text.strip() for kind, text in BLOCKS if kind == "sql"]
NEWEST = date(2020, 6, 30)
WHO = ["camp 1|High|240 x 400", "camp 2|Low|580 x 400", "camp 3|High|728 x 90"]
SERIES = [(who, scenario) for who in WHO for scenario in ("ghi", "mno")]


def forecasts(factor: float) -> list[dict[str, Any]]:
    return [
        {"advertiser_id": who, "scenario_id": scenario, "task": task, "horizon_days": 7, "method": "baseline:mean_28"}
        | dict.fromkeys(("point", "mean"), factor * number)
        | {"p05": 0.5 * factor * number, "p95": 3 * factor * number}
        for number, (who, scenario) in enumerate(SERIES, start=1)
        for task in ("spend", "clicks", "active_days")
    ]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Forecasts of three days, the newest written twice; their totals, who may leave, what came, how good they were."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("M2M_HOME", str(tmp_path_factory.mktemp("srv") / "m2m"))
        patch.setenv("M2M_CONFIG", str(TOML))
        patch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")
        config = load_config(TOML)
        warehouse = Warehouse(config)
        early = NEWEST - timedelta(days=8)
        for ds, factor, run in (
            (early, 1.0, "score-2020-06-22-one"),
            (NEWEST, 100.0, "score-2020-06-30-first"),
            (NEWEST, 10.0, "score-2020-06-30-again"),
        ):
            publish(warehouse, "marts.forecast_daily", ds, forecasts(factor), run)
        for number in range(9):
            ds = early + timedelta(days=number)
            came = [{"advertiser_id": who, "scenario_id": scenario, "spend": 2.0} for who, scenario in SERIES]
            publish(warehouse, "staged.performance_daily", ds, came, f"stage_sources-{ds}-x")
        total = {"task": "spend", "horizon_days": 7, "mean": 210.0, "p05": 150.0, "p95": 300.0, "series": 6}
        levels = [{"level": "platform", "value": None}, {"level": "scenario", "value": "ghi"}]
        publish(warehouse, "marts.forecast_total", NEWEST, [total | level for level in levels], "t")
        leaving = [
            {"advertiser_id": who, "scenario_id": scenario, "horizon_days": 7, "probability": 0.1, "value_at_risk": n}
            for n, (who, scenario) in enumerate(SERIES)
        ]
        publish(warehouse, "marts.churn_risk", NEWEST, leaving, "c")
        judged = {"method": "*", "scenario_id": "*", "task": "spend", "horizon_days": 7, "n": 6, "nmae": 0.3}
        publish(warehouse, "marts.forecast_quality", early, [judged | {"matured_on": NEWEST}], "q")
        yield config.home


@pytest.fixture(scope="module")
def done(home: Path) -> dict[str, Any]:
    """What the page's Python leaves behind; Spark's block needs a session, and is run where one is."""
    names: dict[str, Any] = {}
    for kind, text in BLOCKS:
        if kind == "python" and not text.startswith("# spark"):
            exec(text.replace("/srv/m2m/online_ads", str(home)), names)
    return names


def test_python_reads_the_newest_day_once(done: dict[str, Any]) -> None:
    assert done["spend_arrow"].num_rows == len(done["spend_pandas"]) == len(SERIES)
    assert done["newest"] == NEWEST
    assert done["largest"]["mean"].to_list() == [10.0 * number for number in range(len(SERIES), 0, -1)]
    assert sum(done["then"]["mean"].to_pylist()) == 10 * sum(row["mean"] for row in forecasts(10.0))


def answers(run: Any) -> list[list[tuple[Any, ...]]]:
    """Of each question, in the page's order; views give none."""
    return [found for query in QUERIES if (found := run(query)) is not None]


def look_at(found: list[list[tuple[Any, ...]]]) -> None:
    advertiser, leaving, platform, quality, past, made_by, summed = found
    assert [tuple(row[:3]) for row in advertiser[:2]] == [("ghi", "active_days", 7), ("mno", "active_days", 7)]
    assert [float(row[3]) for row in advertiser] == [10.0, 20.0] * 3
    assert [row[3] for row in leaving] == [5, 4, 3, 2, 1, 0]
    assert leaving[0][4] == 60.0
    assert [row[:2] for row in platform] == [("platform", None), ("scenario", "ghi")]
    assert [(row[0], row[4]) for row in quality] == [(date(2020, 6, 22), 0.3)]
    assert {row[5] for row in past} == {14.0}  # seven days after it, 2 a day
    assert len(past) == len(SERIES)
    assert [tuple(row) for row in made_by] == [("baseline:mean_28", None, "score-2020-06-30-again", 6)]
    assert [tuple(row) for row in summed] == [(630.0, 300.0)]


def test_the_questions_in_duckdb(done: dict[str, Any]) -> None:
    def run(query: str) -> list[tuple[Any, ...]] | None:
        found = done["database"].execute(query).fetchall()
        return None if query.startswith("create view") else found

    look_at(answers(run))


def test_a_view_is_of_the_newest_day_alone(done: dict[str, Any]) -> None:
    database = duckdb.connect()
    forecast_daily = pl.scan_iceberg(done["forecasts"].metadata_location).collect()
    database.register("forecast_daily", forecast_daily.to_arrow())
    database.execute(QUERIES[0])
    assert database.execute("select distinct ds from forecast_newest").fetchall() == [(NEWEST,)]


def files_of(table: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    capsys.readouterr()
    assert exit_status(show, [table, "--format", "files", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_the_list_of_files_is_the_table(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    day, every = (files_of("marts.forecast_daily", capsys, "--date", of) for of in ("newest", "all"))
    assert duckdb.execute(f"select count(*), min(ds) from read_parquet({day})").fetchall() == [(18, NEWEST)]
    assert duckdb.execute(f"select count(*) from read_parquet({every})").fetchall() == [(36,)]
    assert set(day) < set(every)
    one = files_of("marts.forecast_daily", capsys, "--advertiser", WHO[0])
    assert len(one) == 1
    assert WHO[0] in pl.read_parquet(one)["advertiser_id"].to_list()


def test_an_export_is_what_duckdb_says(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "day.parquet"
    assert exit_status(export, ["marts.forecast_daily", "--out", str(out), "--task", "spend"]) == 0
    assert duckdb.execute(f"select sum(mean) from '{out}'").fetchall() == [(210.0,)]


GLOBS = {
    "duckdb, of the table": lambda table: duckdb.execute(f"from read_parquet('{table}/**/*.parquet')").fetchall(),
    "duckdb, of the data": lambda table: duckdb.execute(f"from read_parquet('{table}/data/**/*')").fetchall(),
    "duckdb, of a day": lambda table: duckdb.execute(
        f"from read_parquet('{table}/data/*/ds={NEWEST}/*.parquet')"
    ).fetchall(),
    "polars, of the table": lambda table: pl.scan_parquet(f"{table}/**/*.parquet").collect(),
    "polars, of a day": lambda table: pl.scan_parquet(f"{table}/data/*/ds={NEWEST}/*.parquet").collect(),
    "polars, the folder": lambda table: pl.read_parquet(f"{table}/data/"),
    "polars, the table's folder": lambda table: pl.read_parquet(f"{table}/"),
    "pandas, the folder": lambda table: pd.read_parquet(f"{table}/data"),
    "pyarrow, the folder": lambda table: pyarrow.dataset.dataset(f"{table}/data", format="parquet").to_table(),
}


@pytest.mark.parametrize("reader", GLOBS)
def test_a_glob_fails_and_does_not_count_twice(home: Path, reader: str) -> None:
    table = home / "warehouse" / "online_ads_marts" / "forecast_daily"
    stored = [path for path in table.rglob("*.pq") if f"ds={NEWEST}" in path.parts]
    assert sum(pl.read_parquet(path).height for path in stored) == 36  # what is there: the day of 18 rows, twice
    with pytest.raises(
        (duckdb.Error, pl.exceptions.PolarsError, OSError, ValueError), match=rf"{GUARD}|No files|PAR1|were empty"
    ):
        GLOBS[reader](table)


def test_who_opens_what_stops_readers_is_told_what_to_do(home: Path) -> None:
    for table in (home / "warehouse").glob("*/*"):
        words = (table / "data" / GUARD).read_text(encoding="utf-8")
        assert "no Parquet file" in words
        assert "docs/read_the_tables.md" in words
        assert "m2m export" in words


def test_house_keeping_leaves_it_and_a_table_of_before_gets_it(home: Path) -> None:
    warehouse = Warehouse(load_config(TOML))
    table = warehouse.table("marts.forecast_daily")
    guard = Path(table.location()) / "data" / GUARD
    left = {
        Path(info.path).name for info in orphans(table, {s.snapshot_id for s in table.snapshots()}, time.time() + 1)
    }
    assert GUARD not in left
    guard.unlink()
    warehouse.folder("marts.forecast_daily", "score-2020-07-01-x")
    assert guard.exists()


def test_files_of_before_are_read(home: Path) -> None:
    file = Warehouse(load_config(TOML)).files("marts.forecast_daily")[0]
    before = replace(file, path=file.path.removesuffix(".pq") + ".parquet")
    assert before.identity == file.identity


@pytest.mark.spark
def test_the_questions_in_spark(home: Path, spark: SparkSession, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = (text for kind, text in BLOCKS if kind == "python" and text.startswith("# spark"))
    tables = ("marts.forecast_daily", "marts.forecast_total", "marts.churn_risk", "marts.forecast_quality")
    for table in (*tables, "staged.performance_daily"):
        files = files_of(table, capsys, "--date", "all")
        exec(block.replace('"forecast_daily"', repr(table.split(".")[1])), {"spark": spark, "files": files})

    def run(query: str) -> list[tuple[Any, ...]] | None:
        found = spark.sql(query.replace("create view", "create or replace temporary view"))  # no Hive, to store one
        return None if query.startswith("create view") else found.collect()

    look_at(answers(run))
    with pytest.raises(Py4JJavaError, match=GUARD):
        spark.read.parquet(f"{home}/warehouse/online_ads_marts/forecast_daily/data")
