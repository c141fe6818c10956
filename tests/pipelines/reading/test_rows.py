"""Which rows: of which day and advertiser, for which a condition holds, in which order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date, timedelta

import polars as pl
import pytest
from deployment import FIRST_DAY, SQL, TOML, Deployment, day
from published import publish
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipelines.asked import ALL, Asked
from pipelines.errors import ConfigError
from pipelines.reading.rows import Rows, bucket_of

TABLE, TOTALS = "marts.forecast_daily", "marts.forecast_total"
ADVERTISERS = [f"adv{number}" for number in range(9)]


def forecasts(factor: float = 1.0) -> list[dict[str, object]]:
    return [
        {"advertiser_id": who, "scenario_id": scenario, "task": task, "horizon_days": 7, "mean": factor * number}
        for number, who in enumerate(ADVERTISERS)
        for scenario in ("search", "feed")
        for task in ("spend", "active_days")
    ]


def with_days(deployment: Deployment) -> Deployment:
    """Three days of forecasts, with a hole; the first was written again."""
    for ds, factor, run in ((day(0), 1.0, "one"), (day(0), 2.0, "two"), (day(1), 3.0, "three"), (day(4), 4.0, "four")):
        publish(deployment.warehouse, TABLE, ds, forecasts(factor), run)
    return deployment


@pytest.fixture
def changed(deployment: Deployment) -> Deployment:
    """They, for a test that writes."""
    return with_days(deployment)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "pipeline.toml").write_text(TOML)
    (folder / "performance_daily.sql").write_text(SQL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("M2M_HOME", str(tmp_path_factory.mktemp("home")))
        yield with_days(Deployment(folder, str))


def found(deployment: Deployment, **asked: object) -> pl.DataFrame:
    return Rows.of(deployment.warehouse, Asked(TABLE, **asked)).first(None)[0]


@pytest.mark.parametrize(
    ("text", "seed_0"), [("", 0xEF46DB3751D8E999), ("a", 0xD24EC4F1A98C6E5B), ("abc", 0x44BC2CF5AD770999)]
)
def test_the_hash_is_that_of_its_specification(text: str, seed_0: int) -> None:
    from pipelines.reading.rows import _xxhash64

    assert _xxhash64(text.encode(), seed=0) == seed_0


def test_the_bucket_is_the_one_that_staging_chose(spark: SparkSession) -> None:
    chance = random.Random(17)
    texts = ["".join(chance.choices("abcé广告|\U0001f600 0", k=size)) for size in range(80)] + ADVERTISERS
    for buckets in (1, 2, 7, 64, 1000):
        hashed = F.pmod(F.xxhash64("id"), F.lit(buckets)).cast("int")
        rows = spark.createDataFrame([(text,) for text in texts], "id string").select("id", hashed).collect()
        assert [(text, bucket_of(text, buckets)) for text in texts] == [tuple(row) for row in rows]


def test_the_newest_day_a_day_and_all_days(written: Deployment) -> None:
    newest = Rows.of(written.warehouse, Asked(TABLE))
    assert (newest.day, newest.stored) == (day(4), len(forecasts()))
    assert found(written, day=day(0))["mean"].sum() == 2 * sum(float(str(row["mean"])) for row in forecasts())
    assert found(written, day=ALL)["ds"].unique().sort().to_list() == [day(0), day(1), day(4)]
    assert found(written, day=day(0), snapshot="one")["run_id"].unique().to_list() == ["one"]
    assert Rows.of(written.warehouse, Asked(TABLE, snapshot="three")).day == day(1)


def test_a_day_that_was_written_empty_is_the_newest_and_one_that_was_not_is_none(changed: Deployment) -> None:
    publish(changed.warehouse, TABLE, day(6), [], "empty")
    newest = Rows.of(changed.warehouse, Asked(TABLE))
    assert (newest.day, newest.first(5)[1], newest.stored) == (day(6), 0, 0)
    with pytest.raises(ConfigError, match=f"{TABLE}: no day {day(2)}; it has .*; the nearest: {day(1)}, {day(4)}"):
        found(changed, day=day(2))
    with pytest.raises(ConfigError, match=r"nothing was written to it yet\. It is written by: monitor"):
        Rows.of(changed.warehouse, Asked("marts.forecast_quality", day(2)))
    assert Rows.of(changed.warehouse, Asked("marts.forecast_quality")).first(5)[0].columns[0] == "ds"


def test_the_newest_day_is_found_where_its_commit_has_expired(changed: Deployment) -> None:
    publish(changed.warehouse, TABLE, day(1), forecasts(5.0), "later")
    table = changed.warehouse.table(TABLE)
    old = [s.snapshot_id for s in table.snapshots() if s.snapshot_id != table.current_snapshot().snapshot_id]
    table.maintenance.expire_snapshots().by_ids(old).commit()
    assert Rows.of(changed.warehouse, Asked(TABLE)).day == day(4)


def test_of_an_advertiser_only_its_bucket_is_opened(written: Deployment) -> None:
    for who in ADVERTISERS:
        rows = Rows.of(written.warehouse, Asked(TABLE, advertiser=who))
        assert [file.bucket for file in rows.files] == [bucket_of(who, 2)]
        assert rows.first(None)[0].equals(found(written).filter(advertiser_id=who))
    assert found(written, advertiser="nobody").height == 0
    assert found(written, advertiser="adv1", scenario="feed", task="spend").height == 1


def test_of_totals_advertiser_and_scenario_are_levels(deployment: Deployment) -> None:
    levels = [("platform", None), ("scenario", "search"), ("advertiser", "search"), ("advertiser", "adv1")]
    rows = [{"level": level, "value": value, "task": "spend", "horizon_days": 7} for level, value in levels]
    publish(deployment.warehouse, TOTALS, FIRST_DAY, rows, "one")
    for asked, level in (({"advertiser": "search"}, "advertiser"), ({"scenario": "search"}, "scenario")):
        assert Rows.of(deployment.warehouse, Asked(TOTALS, **asked)).first(None)[0]["level"].to_list() == [level]


CONDITIONS = {
    "mean > 20": pl.col("mean") > 20,
    "task = 'spend' and not mean between 8 and 16": (pl.col("task") == "spend") & ~pl.col("mean").is_between(8, 16),
    "advertiser_id in ('adv1', 'adv8')": pl.col("advertiser_id").is_in(["adv1", "adv8"]),
    "advertiser_id like 'adv_' and scenario_id <> 'feed'": pl.col("scenario_id") != "feed",
    "model_version is null": pl.col("model_version").is_null(),
    "ds >= DATE '2024-01-05'": pl.col("ds") >= date(2024, 1, 5),
    "case when task = 'spend' then mean else p05 end > 4": (pl.col("task") == "spend") & (pl.col("mean") > 4),
    "1 = 1": pl.lit(True),
}


@pytest.mark.parametrize("where", CONDITIONS)
def test_a_condition_chooses_what_polars_would(written: Deployment, where: str) -> None:
    every = found(written, day=ALL)
    assert found(written, day=ALL, where=where).equals(every.filter(CONDITIONS[where]))
    counted = Rows.of(written.warehouse, Asked(TABLE, ALL, where=where)).first(3)
    assert (counted[0].height, counted[1]) == (min(3, (n := every.filter(CONDITIONS[where]).height)), n)


REFUSED = {
    "mean >": "unable to parse",
    "maen > 1": 'no column "maen"; did you mean "mean"',
    "maen in (1, 2)": 'no column "maen"; did you mean "mean"',
    "mean": "Float64, neither true nor false",
    "mean > avg(mean)": "more than a row's own values",
    "mean in (max(mean), 1)": "more than a row's own values",
    "count(*) > 1": "more than a row's own values",
    "row_number() over (order by mean) < 3": "more than a row's own values",
    "avg(mean) over (partition by task) > 1": "more than a row's own values",
    "mean > (select 1)": "a query in it is not read here",
    "mean > 1; drop table x": "semicolon|unexpected token",
    "ds = '2024-01-01'": "a day is written DATE",
    "cast(scenario_id as int) > 1": "conversion from",
    "nosuch(mean) > 1": "nosuch",
    "mean \x1b[31m": r"mean \\x1b",
    "": "parse",
}


@pytest.mark.parametrize("where", REFUSED)
def test_what_is_no_condition_on_a_row_is_refused_by_name(written: Deployment, where: str) -> None:
    with pytest.raises(ConfigError, match=REFUSED[where]) as refused:
        found(written, where=where)
    assert str(refused.value).startswith("--where")
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("limit", [1, 5, 17, 1000, None])
@pytest.mark.parametrize("by", [[("mean", True)], [("task", False), ("mean", True)], [("model_version", False)]])
def test_all_rows_are_sorted_before_the_limit_cuts(
    written: Deployment, limit: int | None, by: list[tuple[str, bool]]
) -> None:
    rows = Rows.of(written.warehouse, Asked(TABLE, ALL, columns=("advertiser_id", "mean")))
    first, count = rows.first(limit, by)
    key = ["ds", "advertiser_id", "scenario_id", "task", "horizon_days"]
    order = [*(name for name, _ in by), *(name for name in key if name not in dict(by))]
    falling = [dict(by).get(name, False) for name in order]
    expected = found(written, day=ALL).sort(order, descending=falling, nulls_last=True)
    assert first.equals(expected.select("advertiser_id", "mean").head(limit or 10**6))
    assert count == expected.height


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"columns": ("mean", "p5")}, '--columns: marts.forecast_daily has no column "p5"'),
        ({"task": "spent"}, 'no task "spent" in .*; did you mean "spend"'),
        ({"snapshot": "nobody"}, "no snapshot of run nobody"),
        ({"day": FIRST_DAY - timedelta(days=400)}, "the nearest: 2024-01-01"),
    ],
)
def test_what_the_table_has_not_is_named(written: Deployment, asked: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        found(written, **asked)


def test_a_filter_that_the_table_has_no_column_for_is_refused(written: Deployment) -> None:
    with pytest.raises(ConfigError, match=r"--advertiser: marts\.backtest has no advertiser_id; its columns: ds"):
        Rows.of(written.warehouse, Asked("marts.backtest", advertiser="adv1"))
