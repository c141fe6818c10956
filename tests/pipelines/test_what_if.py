"""`score --what-if`: other plans for some advertisers, forecast in this process, and nothing published."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from deployment import AS_OF, FIRST_DAY, Deployment, day, rows_of_day

from m2m_model.config import KnownFuture, Task
from m2m_model.data.grid import NOTHING, to_grid
from m2m_model.data.panel import Panel
from m2m_model.data.spec import SequenceSpec
from pipelines.errors import EXIT_USAGE, ConfigError
from pipelines.what_if import read_changes, replan

DAY = date(2024, 3, 10)
SPEC = SequenceSpec(
    ("spend",), (), (), (), (Task("spend", "spend", "sum"),), (3,), 7,
    known_future=(KnownFuture("budget", "money"), KnownFuture("holidays", country="GB"), KnownFuture("price", "ratio")),
)  # fmt: skip


def ahead(days: int) -> date:
    return DAY + timedelta(days=days)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("advertiser_id,budgett\na,1\n", 'unknown column "budgett"; did you mean "budget"'),
        ("advertiser_id,holidays\na,1\n", 'unknown column "holidays"'),
        ("budget\n1\n", "expected advertiser_id and budget or price; found budget"),
        ("advertiser_id\na\n", "expected advertiser_id and budget or price"),
        ("advertiser_id,budget\na,much\nb,-1\nc,1\n", "2 rows whose budget is not a number of 0 or more"),
        ("advertiser_id,for_day,budget\na,soon,1\n", "1 rows whose for_day is no day"),
        ("advertiser_id,for_day,budget\na,2024-03-10,1\n", "outside the horizon, 2024-03-11..2024-03-13"),
        ("advertiser_id,for_day,budget\na,2024-03-14,1\n", "First: advertiser_id=a, scenario_id=None"),
        ("advertiser_id,budget\na,1\na,2\n", "2 rows that name a day twice"),
        ("advertiser_id,budget\n,1\n", "1 rows without an advertiser_id"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "plans.csv"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"plans\.csv") as refused:
        read_changes(file, SPEC, DAY)
    assert words in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_changes(tmp_path / name, SPEC, DAY)


def test_other_plans_count_by_scenario_and_day_and_the_rest_stays(tmp_path: Path) -> None:
    keys = pa.table({"advertiser_id": ["a", "a", "b"], "scenario_id": ["feed", "search", "feed"]})
    future_NTC = np.full((3, 5, 3), 7.0)
    panel = Panel.of_values(SPEC, DAY, np.ones((3, 5, 1)), np.zeros((3, 5, 0)), np.zeros(3, np.int32), keys, future_NTC)
    staged = pl.DataFrame(
        [("a", None, ahead(1), 5.0, 2.0), ("a", None, ahead(2), 5.0, 4.0), ("a", "search", ahead(3), 9.0, None)],
        schema={"advertiser_id": pl.String, "scenario_id": pl.String, "for_day": pl.Date}
        | {"budget": pl.Float64, "price": pl.Float64},
        orient="row",
    )
    file = tmp_path / "plans.parquet"
    pl.DataFrame(
        {
            "advertiser_id": ["a", "a", "a"],
            "scenario_id": [None, "search", None],
            "for_day": [ahead(1), ahead(1), ahead(2)],
            "budget": [1.0, 20.0, None],
            "price": [None, None, 8.0],
        }
    ).write_parquet(file)
    found = replan(panel, staged, read_changes(file, SPEC, DAY))
    expected = np.array(
        [
            [1.0 + 5.0, 7.0, (2.0 + 8.0) / 2],  # feed has no budget of its own: those for all, but for one day
            [20.0 + 9.0, 7.0, (2.0 + 8.0) / 2],
            [7.0, 7.0, 7.0],
        ]
    )
    np.testing.assert_array_equal(found.future_NTC[:, -1], to_grid(expected))
    np.testing.assert_array_equal(found.future_NTC[:, :-1], panel.future_NTC[:, :-1])
    assert (panel.future_NTC == to_grid(np.array(7.0))).all()  # which is not changed
    each_day = tmp_path / "plans.csv"
    each_day.write_text("advertiser_id,budget\nb,2\n")
    found = replan(panel, staged, read_changes(each_day, SPEC, DAY))
    assert found.future_NTC[2, -1, 0] == to_grid(np.array(6.0))
    assert NOTHING not in found.future_NTC
    # Beside what is planned for a whole scenario, which counts before what is for everyone.
    of_all = pl.DataFrame(
        [(None, "feed", ahead(1), 3.0, None), (None, None, ahead(1), 8.0, None)], schema=staged.schema, orient="row"
    )
    each_day.write_text(f"advertiser_id,for_day,budget\nb,{ahead(2)},2\n")
    found = replan(panel, pl.concat([staged, of_all]), read_changes(each_day, SPEC, DAY))
    assert found.future_NTC[2, -1, 0] == to_grid(np.array(3.0 + 2.0))


PLANNED = """
select day as ds, who as advertiser_id, place as scenario_id, date_add(day, n) as for_day, cost as budget
from raw_day lateral view explode(sequence(1, 9)) as n
"""
DECLARED = """
known_future = "known_future.sql"

[gate]
max_ratio_to_baseline = 100.0

[[known_future]]
name = "budget"
kind = "money"
of = "spend"
"""


@pytest.mark.spark
def test_as_a_person_asks_it(deployment: Deployment) -> None:
    def did(stage: str, *arguments: object) -> str:
        status, said = deployment.run(stage, *arguments)
        assert status == 0, said
        return said

    def refused(*arguments: object) -> str:
        status, said = deployment.run("score", *arguments, spark=False)
        assert status == EXIT_USAGE
        return said

    for number in range(70):
        rows = rows_of_day(day(number))
        deployment.write_day(day(number), rows.with_columns(cost=pl.col("cost") * (1 + number // 7 % 3)))
    plans, kept = deployment.folder / "plans.csv", deployment.folder / "found.csv"
    plans.write_text("advertiser_id,budget\nadv2,50\nadv3,0\n")
    asked = ("--date", AS_OF, "--what-if", plans)
    assert "declares no plans" in refused(*asked)
    (deployment.folder / "known_future.sql").write_text(PLANNED)
    sql = 'performance_daily = "performance_daily.sql"'
    deployment.edit(sql, sql + DECLARED)
    deployment.edit("epochs = 2", "epochs = 2\nblend = false")  # a blend may give the network no part
    did("stage_sources", "--from", FIRST_DAY, "--to", AS_OF)
    did("build_sequences", "--date", AS_OF)
    did("train", "--date", AS_OF)
    assert "no champion serves" in refused(*asked)
    for stage in ("backtest", "promote", "score"):
        did(stage, "--date", AS_OF)
    before = deployment.warehouse.snapshot_id("marts.forecast_daily")
    status, said = deployment.run("score", *asked, "--out", kept, spark=False)
    assert status == 0, said
    assert "nothing was published" in said
    assert "adv2" in said
    found = pl.read_csv(kept)
    ids = ["adv2", "adv3"]
    assert set(found["advertiser_id"]) == set(ids)
    published = deployment.rows("marts.forecast_daily").filter(pl.col("advertiser_id").is_in(ids))
    assert found["point"].to_list() == pytest.approx(published["point"].to_list(), rel=1e-5)
    assert (found["p95"] != found["p95_what_if"]).any()
    assert deployment.warehouse.snapshot_id("marts.forecast_daily") == before
    plans.write_text("advertiser_id,scenario_id,budget\nadv2,video,50\n")
    assert "1 of 1 (advertiser_id, scenario_id) have no sequence" in refused(*asked)
    plans.write_text("advertiser_id,budget\nadv99,50\nadv2,50\n")
    assert "1 of 2 (advertiser_id) have no sequence" in refused(*asked)
    assert "--out" in refused(*asked, "--out", deployment.folder / "found.xlsx")
