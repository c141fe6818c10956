"""What is known of days to come: from a data set's SQL to panels, as it was known on each day."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from deployment import FIRST_DAY, Deployment, day
from hypothesis import example, given, settings
from hypothesis import strategies as st

from m2m_model.config import KnownFuture, Task
from m2m_model.data.grid import NOTHING, to_grid
from m2m_model.data.panel import Panel
from m2m_model.data.spec import SequenceSpec
from pipelines.errors import EXIT_DATA
from pipelines.kernels.sequences import series_of, week_of
from pipelines.warehouse.sequences import open_sequences, panel_of, put_together, week_days, week_ends

LAST_DAY, HORIZON = FIRST_DAY + timedelta(days=20), 3
BUDGET, PRICE = KnownFuture("budget", "money", of="spend"), KnownFuture("price", "ratio")
SPEC = SequenceSpec(
    ("spend",), (), (), (), (Task("spend", "spend", "sum"),), (HORIZON,), 7, known_future=(BUDGET, PRICE)
)
KEY = {"advertiser_id": pl.String, "scenario_id": pl.String, "ds": pl.Date}

_ids, _scenarios = st.sampled_from(["a", "b"]), st.sampled_from(["search", "feed"])
_days = st.integers(0, 20).map(day)
_amounts = st.tuples(st.sampled_from([0.0, 1.0, 6.0, None]), st.sampled_from([0.5, 2.0, None]))
_for = st.tuples(st.none() | _ids, st.none() | _scenarios, _days, st.integers(1, 5))
_plans = st.dictionaries(_for, _amounts, max_size=40)
_performance = st.sets(st.tuples(_ids, _scenarios, _days), min_size=1, max_size=20)


def expected_point(plans: dict, advertiser: str, scenario: str, known: date, column: int) -> int:
    """The definition, read aloud: of the plans known that evening those for the next days, the series' own first."""
    for of in ((advertiser, scenario), (advertiser, None), (None, scenario), (None, None)):
        values = [plans[key][column] for n in range(1, HORIZON + 1) if (key := (*of, known, n)) in plans]
        told = [value for value in values if value is not None]
        if told:
            return int(to_grid(np.array(sum(told) if column == 0 else sum(told) / len(told))))
    return NOTHING


@settings(max_examples=100, deadline=None)
@given(_performance, _plans, st.integers(0, 10), st.integers(1, 30))
@example({("a", "feed", FIRST_DAY)}, {(None, None, day(12), 1): (1.0, None)}, 7, 9)  # plans, and no series yet
def test_a_panel_has_the_plans_that_were_known_each_evening(
    performance: set, plans: dict, later: int, span: int
) -> None:
    first = day(later)
    achieved = pl.DataFrame([(*key, 1.0) for key in performance], schema=KEY | {"spend": pl.Float64}, orient="row")
    planned = pl.DataFrame(
        [(a, s, ds, ds + timedelta(days=n), *amounts) for (a, s, ds, n), amounts in plans.items()],
        schema=KEY | {"for_day": pl.Date, "budget": pl.Float64, "price": pl.Float64},
        orient="row",
    )
    weeks = []
    for end in week_ends(first, LAST_DAY):
        of_week = pl.col("ds").is_in(week_days(end))
        rows = week_of(achieved.filter(of_week), None, ("spend",), (), planned.filter(of_week), SPEC.plans)
        weeks.append(rows.with_columns(ds=pl.lit(end)))
    days = pl.concat(weeks)
    nothing = pl.DataFrame(schema={"scenario_id": pl.String})
    series = series_of(days.select("ds", "advertiser_id", "scenario_id", "day"), first, LAST_DAY, None, nothing)
    panel = panel_of(series, days, SPEC, LAST_DAY, span, first)
    for n, (advertiser, scenario) in enumerate(zip(panel.advertiser_N, panel.scenario_N, strict=True)):
        for index in range(span):
            known = panel.day_of(index)
            for column in range(2):
                point = expected_point(plans, advertiser, scenario, known, column) if known >= first else NOTHING
                assert panel.future_NTC[n, index, column] == point
    if first.weekday() == 0:  # else the first week is cut where it is read
        whole = put_together(series, days, ("spend",), (), SPEC.plan_columns)
        together = Panel.from_sequences(whole.to_arrow(), SPEC, LAST_DAY, span)
        np.testing.assert_array_equal(together.future_XC, panel.future_XC)


PLANNED = """
-- A plan is known four days ahead; whoever raised is known to the day, and what is of the past nobody asks for.
select
    day as ds, who as advertiser_id, if(views > 150, place, cast(null as string)) as scenario_id,
    date_add(day, n) as for_day, cost * n as budget, cast(null as double) as price,
    if(who = 'adv3', 'drop:trial', null) as dirt
from (select distinct day, who, place, cost, views from raw_day)
lateral view explode(sequence(1, 4)) as n
where views > 150 or place = 'feed'
union all
select distinct day, cast(null as string), cast(null as string), date_add(day, 2), cast(null as double), 2D,
    'repair:price_of_all'
from raw_day
"""


def with_plans(deployment: Deployment, sql: str = PLANNED) -> None:
    (deployment.folder / "known_future.sql").write_text(sql)
    deployment.edit(
        'performance_daily = "performance_daily.sql"',
        'performance_daily = "performance_daily.sql"\nknown_future = "known_future.sql"\n\n[[known_future]]\n'
        'name = "budget"\nkind = "money"\nof = "spend"\n\n[[known_future]]\nname = "price"\nkind = "ratio"',
    )


@pytest.mark.spark
def test_plans_reach_the_forecasts_and_what_is_known_later_changes_no_earlier_day(deployment: Deployment) -> None:
    deployment.write_days(FIRST_DAY, 47)
    with_plans(deployment)
    as_of = day(45)
    for stage, arguments in (
        ("stage_sources", ("--from", FIRST_DAY, "--to", day(45))),
        ("build_sequences", ("--date", as_of)),
        ("train", ("--date", as_of)),
        ("score", ("--date", as_of)),
    ):
        status, said = deployment.run(stage, *arguments)
        assert status == 0, said
    staged = deployment.rows("staged.known_future")
    assert staged.filter(advertiser_id="adv3").is_empty()
    assert (staged["for_day"] > staged["ds"]).all()
    validation = deployment.rows("ops.validation")
    assert validation.filter(check="dirt:drop:trial")["found"].sum() > 0
    assert set(validation.filter(check="dirt:repair:price_of_all")["found"]) == {1.0}  # once, though in both buckets
    files = open_sequences(deployment.config, deployment.warehouse, as_of)
    for bucket in (0, 1):
        panel = files.panel(bucket)
        assert (panel.future_NTC[:, :, 0] != NOTHING).any()
        assert (panel.future_NTC[:, :, 1] == to_grid(np.array(2.0))).all()
    forecasts = deployment.rows("marts.forecast_daily")
    # A later evening knows other plans, and is staged; the day before it stays as it was, made anew.
    deployment.edit("buckets = 2", "buckets = 2\nlate_days = 3")
    assert deployment.run("stage_sources", "--date", day(46))[0] == 0
    assert deployment.run("build_sequences", "--date", as_of)[0] == 0
    assert deployment.run("score", "--date", as_of)[0] == 0
    runs = ("run_id", "sequence_snapshot_id")
    assert deployment.rows("marts.forecast_daily").drop(runs).equals(forecasts.drop(runs))


@pytest.mark.spark
def test_a_plan_of_its_own_day_is_refused(deployment: Deployment) -> None:
    deployment.write_days(FIRST_DAY, 2)
    with_plans(deployment, PLANNED.replace("sequence(1, 4)", "sequence(0, 4)"))
    status, said = deployment.run("stage_sources", "--from", FIRST_DAY, "--to", day(1))
    assert status == EXIT_DATA
    assert "staged.known_future ds=2024-01-01" in said
    assert "plan_of_the_past for_day:" in said
    assert "expected for_day after ds" in said
