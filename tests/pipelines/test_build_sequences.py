"""The sequence kernel against a brute-force version, and the stage's rules."""

from __future__ import annotations

import re
import shutil
from datetime import date, timedelta
from pathlib import Path
from random import Random

import numpy as np
import polars as pl
import pytest
from deployment import FIRST_DAY, Deployment, rows_of_day
from hypothesis import example, given, settings
from hypothesis import strategies as st

from m2m_model.config import Task
from m2m_model.data.grid import to_grid
from m2m_model.data.panel import Panel
from m2m_model.data.spec import SequenceSpec
from pipelines.kernels.sequences import series_of, week_of
from pipelines.warehouse.sequences import (
    newcomers_since,
    open_sequences,
    panel_of,
    put_together,
    week_days,
    week_ends,
    with_not_begun,
)

TABLE, WEEK_TABLE = "features.advertiser_sequence", "features.sequence_week"
EPOCH = date(1970, 1, 1)
NO_SCENARIO = pl.DataFrame(schema={"scenario_id": pl.String})

LAST_DAY = FIRST_DAY + timedelta(days=20)
SPEC = SequenceSpec(("spend",), ("logins",), (), (), (Task("spend", "spend", "sum"),), (7,), 7)
LISTS = {"day": pl.List(pl.Int32), "behavior_day": pl.List(pl.Int32), "logins": pl.List(pl.Float64)}

_ids, _scenarios = st.sampled_from(["a", "b", "ç|1"]), st.sampled_from(["search", "feed"])
_days = st.integers(0, 20).map(lambda n: FIRST_DAY + timedelta(days=n))
_performance = st.dictionaries(st.tuples(_ids, _scenarios, _days), st.sampled_from([0.0, 1.0, 2.5]), max_size=40)
_counts = st.sampled_from([1.0, 3.0, None])  # null where [checks] severity lets it pass
_behavior = st.dictionaries(st.tuples(_ids, st.none() | _scenarios, _days), _counts, max_size=25)
_profiles = st.dictionaries(_ids, st.none() | _days, max_size=3)


def _frames(performance: dict, behavior: dict, profiles: dict) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    key = {"advertiser_id": pl.String, "scenario_id": pl.String, "ds": pl.Date}
    return (
        pl.DataFrame([(*k, v) for k, v in performance.items()], schema=key | {"spend": pl.Float64}, orient="row"),
        pl.DataFrame([(*k, v) for k, v in behavior.items()], schema=key | {"logins": pl.Float64}, orient="row"),
        pl.DataFrame(
            [(FIRST_DAY, 0, a, d) for a, d in profiles.items()],
            schema={"ds": pl.Date, "bucket": pl.Int32, "advertiser_id": pl.String, "registered_on": pl.Date},
            orient="row",
        ),
    )


def not_begun(performance: dict, profiles: dict, first: date) -> set[tuple[str, str]]:
    """All scenarios of those who registered in the history and have no row in it."""
    begun = {advertiser for advertiser, _, _ in performance}
    waiting = [a for a, registered in profiles.items() if registered and registered >= first and a not in begun]
    return {(advertiser, scenario) for advertiser in waiting for _, scenario, _ in performance}


def brute_force(performance: dict, behavior: dict, profiles: dict, first: date = FIRST_DAY) -> list[dict]:
    """The definition, read aloud: series by series, day by day."""
    sequences = []
    for advertiser, scenario in sorted({(a, s) for a, s, _ in performance} | not_begun(performance, profiles, first)):
        days = sorted(d for a, s, d in performance if (a, s) == (advertiser, scenario))
        totals: dict[date, float | None] = {}
        for (a, s, d), value in behavior.items():
            if a == advertiser and s in (None, scenario):
                known = [count for count in (totals.get(d), value) if count is not None]
                totals[d] = sum(known) if known else None
        registered = profiles.get(advertiser)
        sequences.append(
            {
                "advertiser_id": advertiser,
                "scenario_id": scenario,
                "registered_on": min([*days[:1], *([registered] if registered else [])]),
                "day": [(d - EPOCH).days for d in days],
                "spend": [performance[advertiser, scenario, d] for d in days],
                "behavior_day": [(d - EPOCH).days for d in sorted(totals)],
                "logins": [totals[d] for d in sorted(totals)],
            }
        )
    return sequences


def sequences(
    performance: pl.DataFrame, behavior: pl.DataFrame, advertiser: pl.DataFrame, first: date, last: date
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """As the stage does it, week by week: the series, and their weeks."""
    weeks = []
    for end in week_ends(first, last):
        of_week = pl.col("ds").is_in(week_days(end))
        rows = week_of(performance.filter(of_week), behavior.filter(of_week), ("spend",), ("logins",))
        weeks.append(rows.with_columns(ds=pl.lit(end)))
    days = pl.concat(weeks)
    days_of = days.select("ds", "advertiser_id", "scenario_id", "day")
    series = series_of(days_of, first, last, advertiser, NO_SCENARIO)
    return series, days


@settings(max_examples=150, deadline=None)
@given(_performance, _behavior, _profiles, st.randoms())
def test_weeks_put_together_are_the_definition(
    performance: dict, behavior: dict, profiles: dict, random: object
) -> None:
    frames = _frames(performance, behavior, profiles)
    shuffled = [frame.sample(fraction=1, shuffle=True, seed=random.randrange(10**6)) for frame in frames]  # type: ignore[attr-defined]
    expected = brute_force(performance, behavior, profiles)
    series, weeks = sequences(*shuffled, FIRST_DAY, LAST_DAY)
    columns = ["advertiser_id", "scenario_id", "registered_on", "day", "spend", "behavior_day", "logins"]
    assert put_together(series, weeks, ("spend",), ("logins",)).select(columns).to_dicts() == expected


@settings(max_examples=150, deadline=None)
@given(_performance, _behavior, _profiles, st.integers(0, 10), st.integers(1, 30))
@example({("a", "feed", LAST_DAY): 1.0}, {("a", None, LAST_DAY): None, ("a", "feed", LAST_DAY): 3.0}, {}, 0, 7)
def test_weeks_scattered_into_a_panel_are_those_put_together(
    performance: dict, behavior: dict, profiles: dict, later: int, span: int
) -> None:
    """Whatever day of a week the history begins on, and whether the panel is shorter or longer."""
    first = FIRST_DAY + timedelta(days=later)
    series, weeks = sequences(*_frames(performance, behavior, profiles), first, LAST_DAY)
    found = panel_of(series, weeks, SPEC, LAST_DAY, span, first)
    begun = {k: v for k, v in performance.items() if k[2] >= first}
    acted = {k: v for k, v in behavior.items() if k[2] >= first}
    rows = pl.DataFrame(brute_force(begun, acted, profiles, first), schema_overrides=LISTS)
    if not rows.height:
        assert not len(found)
        return
    expected = Panel.from_sequences(rows.to_arrow(), SPEC, LAST_DAY, span)
    for name in ("performance_XP", "behavior_XF", "daily_XM", "registered_N"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    assert found.keys.equals(expected.keys)


@settings(max_examples=150, deadline=None)
@given(_performance, _profiles, st.integers(0, 10))
def test_training_sees_what_newcomers_did_not_begin(performance: dict, profiles: dict, later: int) -> None:
    """Before its first row, a newcomer has every scenario: those that it begins in, and those that it never will."""
    first = FIRST_DAY + timedelta(days=later)
    series, weeks = sequences(*_frames(performance, {}, profiles), first, LAST_DAY)
    found = with_not_begun(series, weeks, SPEC, newcomers_since(first, LAST_DAY))
    rows = {key for key in performance if key[2] >= first}
    scenarios = {scenario for _, scenario, _ in rows}
    expected = {(row["advertiser_id"], row["scenario_id"]): row["registered_on"] for row in series.to_dicts()}
    for advertiser, registered in profiles.items():
        # The first week may hold days before the history: who was there then is no newcomer.
        begun = [d for a, _, d in performance if a == advertiser and d >= week_days(week_ends(first, LAST_DAY)[0])[0]]
        if registered and registered >= first and all(day > registered for day in begun):
            expected |= {(advertiser, scenario): registered for scenario in scenarios}
    assert {(row["advertiser_id"], row["scenario_id"]): row["registered_on"] for row in found.to_dicts()} == expected
    assert found.select("advertiser_id", "scenario_id").rows() == sorted(expected)


def test_behavior_of_all_scenarios_reaches_series_that_do_not_stand_together() -> None:
    performance = {(a, s, FIRST_DAY): 1.0 for a in ("a", "b") for s in ("feed", "search")}
    behavior = {("a", None, FIRST_DAY): 3.0, ("b", None, FIRST_DAY): 1.0}
    series, weeks = sequences(*_frames(performance, behavior, {}), FIRST_DAY, LAST_DAY)
    apart = series.sort("scenario_id", "advertiser_id")
    panel = panel_of(apart, weeks, SPEC, LAST_DAY, 21, FIRST_DAY)
    assert panel.behavior_NTF[:, 0, 0].tolist() == to_grid(np.array([3.0, 1.0, 3.0, 1.0])).tolist()


def rows_of(deployment: Deployment, as_of: date) -> pl.DataFrame:
    """Every sequence as of a day, as a reader gets it."""
    files = open_sequences(deployment.config, deployment.warehouse, as_of)
    return pl.concat(files.rows(bucket) for bucket in files.buckets).sort("advertiser_id", "scenario_id")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.spark
def test_any_order_of_arrival_gives_the_same_files(deployment: Deployment, seed: int) -> None:
    """Days come late, in any order, some are restated, and sequences are built in between; in the end the history is
    that of one load of the final days, to the byte."""
    deployment.edit("[checks]", '[checks]\nseverity = { day_completeness = "warning", volume = "warning" }')
    random, days = Random(seed), [FIRST_DAY + timedelta(days=i) for i in range(10)]  # a week, and a part of one
    final = {day: rows_of_day(day, 6 + random.randrange(4)) for day in days}
    arrivals = [(day, final[day]) for day in random.sample(days, len(days))]
    for day in random.sample(days, 3):  # what came first was wrong
        arrivals.insert(0, (day, rows_of_day(day, 3)))
    for number, (day, rows) in enumerate(arrivals):
        deployment.write_day(day, rows)
        assert deployment.run("stage_sources", "--date", day)[0] == 0
        if number % 4 == 3:
            deployment.run("build_sequences", "--date", day)
    status, said = deployment.run("build_sequences", "--date", days[-1])
    assert status == 0, said
    found, files = rows_of(deployment, days[-1]), contents(deployment, days[-1])

    for table in ("staged.performance_daily", WEEK_TABLE, TABLE):
        stored = deployment.warehouse.table(table)
        deployment.warehouse.catalog.drop_table(stored.name())
        shutil.rmtree(stored.location().removeprefix("file://"))
    assert deployment.run("stage_sources", "--from", days[0], "--to", days[-1])[0] == 0
    status, said = deployment.run("build_sequences", "--date", days[-1])
    assert status == 0, said
    assert rows_of(deployment, days[-1]).equals(found)
    assert contents(deployment, days[-1]) == files


def contents(deployment: Deployment, as_of: date) -> dict[tuple[date, int], bytes]:
    """The bytes of every file of the sequences as of a day."""
    files = open_sequences(deployment.config, deployment.warehouse, as_of)
    return {
        (file.ds, bucket): Path(file.path.removeprefix("file://")).read_bytes()
        for of_bucket in (files.weeks, files.files)
        for bucket, parts in of_bucket.items()
        for file in parts
    }


@pytest.mark.spark
def test_a_restated_day_touches_its_week_and_its_buckets_alone(deployment: Deployment) -> None:
    last = deployment.write_days(FIRST_DAY, 17)
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)[0] == 0
    assert "6 of 6 parts made" in deployment.run("build_sequences", "--date", last)[1]
    assert "0 of 6 parts made" in deployment.run("build_sequences", "--date", last)[1]
    then, snapshot = rows_of(deployment, last), deployment.warehouse.snapshot_id(TABLE)

    day = FIRST_DAY + timedelta(days=8)
    late = pl.when(pl.col("who") == "adv4").then(pl.col("cost") + 1).otherwise(pl.col("cost")).alias("cost")
    deployment.write_day(day, rows_of_day(day).with_columns(late))
    said = deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)[1]
    assert "restated since: 1 of 17 days: 2024-01-09 (1 of 34 files)" in said
    assert rows_of(deployment, last).equals(then)  # as it was built, until it is built again
    assert "1 of 6 parts made" in deployment.run("build_sequences", "--date", last)[1]
    now = rows_of(deployment, last)
    changed = now.filter(~pl.struct(pl.all()).is_in(then.select(pl.struct(pl.all())).to_series().implode()))
    assert set(changed["advertiser_id"]) == {"adv4"}
    assert changed["spend"].list.sum().sum() == then.filter(advertiser_id="adv4")["spend"].list.sum().sum() + 2

    files = open_sequences(deployment.config, deployment.warehouse, last, snapshot)
    known_then = pl.concat(files.rows(bucket) for bucket in files.buckets).sort("advertiser_id", "scenario_id")
    assert known_then.equals(then)


@pytest.mark.spark
def test_a_daily_run_notices_what_came_late(deployment: Deployment) -> None:
    deployment.edit("buckets = 2", "buckets = 2\nlate_days = 3")
    last = deployment.write_days(FIRST_DAY, 11)
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last - timedelta(days=1))[0] == 0
    for back in (2, 4):  # the second is older than late_days
        day = last - timedelta(days=back)
        deployment.write_day(day, rows_of_day(day, 11))
    status, said = deployment.run("stage_sources", "--date", last)
    assert status == 0, said
    assert f"restated since: 1 of 3 days: {last - timedelta(days=2)} (" in said
    assert f"rows of {last - timedelta(days=3)}..{last}" in said
    days = deployment.warehouse.days("staged.performance_daily")
    assert days[last - timedelta(days=2)] < days[last - timedelta(days=3)]


@pytest.mark.spark
def test_days_that_were_never_staged_are_no_late_days(deployment: Deployment) -> None:
    deployment.edit("buckets = 2", "buckets = 2\nlate_days = 3")
    last = deployment.write_days(FIRST_DAY, 6)
    assert deployment.run("stage_sources", "--date", last - timedelta(days=2))[0] == 0
    assert f"rows of {last}..{last}" in deployment.run("stage_sources", "--date", last)[1]


@pytest.mark.spark
def test_a_short_range_of_past_days_only_warns_of_volume(deployment: Deployment) -> None:
    last = deployment.write_days(FIRST_DAY, 10)
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last - timedelta(days=1))[0] == 0
    deployment.write_day(last, rows_of_day(last, 3))
    assert deployment.run("stage_sources", "--from", last - timedelta(days=1), "--to", last)[0] == 0
    assert deployment.run("stage_sources", "--date", last)[0] == 3
    assert deployment.run("stage_sources", "--from", last, "--to", last)[0] == 3


@pytest.mark.spark
def test_a_week_in_which_a_bucket_only_acted_is_a_week(deployment: Deployment) -> None:
    behavior = "select day as ds, who as advertiser_id, cast(null as string) as scenario_id, 1D as logins from raw_day"
    (deployment.folder / "behavior_daily.sql").write_text(f"{behavior} where place = 'login'")
    sql = deployment.folder / "performance_daily.sql"
    sql.write_text(sql.read_text().replace("from raw_day", "from raw_day where place <> 'login'"))
    deployment.edit(
        'performance_daily = "performance_daily.sql"',
        'performance_daily = "performance_daily.sql"\nbehavior_daily = "behavior_daily.sql"\n\n'
        '[[behavior]]\nname = "logins"',
    )
    deployment.edit("[checks]", '[checks]\nseverity = { volume = "warning" }')
    sunday = deployment.write_days(FIRST_DAY, 7)
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", sunday)[0] == 0
    staged = deployment.rows("staged.performance_daily")
    one, other = (staged.filter(bucket=bucket)["advertiser_id"].unique() for bucket in (0, 1))
    monday = sunday + timedelta(days=1)
    performed = rows_of_day(monday).filter(pl.col("who").is_in(one.implode()))
    acted = rows_of_day(monday).filter(pl.col("who").is_in(other.implode())).unique("who")
    deployment.write_day(monday, pl.concat([performed, acted.with_columns(place=pl.lit("login"))]))
    assert deployment.run("stage_sources", "--date", monday)[0] == 0
    status, said = deployment.run("build_sequences", "--date", monday)
    assert status == 0, said
    rows = rows_of(deployment, monday).filter(pl.col("advertiser_id").is_in(acted["who"].implode()))
    assert rows["behavior_day"].to_list() == [[(monday - EPOCH).days]] * rows.height
    assert rows.height == 2 * acted.height  # a login counts in both scenarios


@pytest.mark.spark
def test_zero_missing_and_not_registered_are_kept_apart(deployment: Deployment) -> None:
    last = FIRST_DAY + timedelta(days=3)
    for i in range(4):
        day = FIRST_DAY + timedelta(days=i)
        rows = rows_of_day(day)
        if i == 2:  # adv0 has a row of zeros on day 2 and none on day 1
            rows = rows.with_columns(pl.when(pl.col("who") == "adv0").then(0.0).otherwise(pl.col("cost")).alias("cost"))
        if i < 1:
            rows = rows.filter(pl.col("who") != "adv3")  # adv3 joins on day 1
        deployment.write_day(day, rows)
    deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)
    assert deployment.run("build_sequences", "--date", last)[0] == 0
    rows = rows_of(deployment, last).filter(scenario_id="search")
    first = (FIRST_DAY - EPOCH).days
    adv0, adv3 = (rows.row(by_predicate=pl.col("advertiser_id") == name, named=True) for name in ("adv0", "adv3"))
    assert (adv0["day"], adv0["spend"]) == (
        [first, first + 2, first + 3],
        [1.5, 0.0, 4.5],
    )  # day 1 is missing, day 2 a zero
    assert adv3["registered_on"] == FIRST_DAY + timedelta(days=1)
    assert adv3["day"][0] == first + 1  # the day before is not registered


@pytest.mark.spark
def test_the_same_date_twice_gives_the_same_rows_and_one_more_snapshot(deployment: Deployment) -> None:
    last = deployment.write_days(FIRST_DAY, 12)
    for stage, arguments in (
        ("stage_sources", ("--from", FIRST_DAY, "--to", last)),
        ("build_sequences", ("--date", last)),
    ):
        table = {"stage_sources": "staged.performance_daily", "build_sequences": TABLE}[stage]
        assert deployment.run(stage, *arguments)[0] == 0
        before, snapshot = deployment.rows(table), deployment.warehouse.snapshot_id(table)
        assert deployment.run(stage, *arguments)[0] == 0
        assert deployment.rows(table).equals(before)
        assert deployment.warehouse.snapshot_id(table) != snapshot


@pytest.mark.spark
def test_a_range_in_one_pass_is_the_same_as_day_by_day(deployment: Deployment) -> None:
    last = deployment.write_days(FIRST_DAY, 5)
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)[0] == 0
    whole = deployment.rows("staged.performance_daily")
    for i in range(5):
        assert deployment.run("stage_sources", "--date", FIRST_DAY + timedelta(days=i))[0] == 0
    assert deployment.rows("staged.performance_daily").equals(whole)


@pytest.mark.spark
def test_a_day_that_was_never_staged_is_named_with_the_command_that_mends_it(deployment: Deployment) -> None:
    last = deployment.write_days(FIRST_DAY, 9)
    deployment.run("stage_sources", "--from", FIRST_DAY, "--to", FIRST_DAY + timedelta(days=5))
    deployment.run("stage_sources", "--from", FIRST_DAY + timedelta(days=8), "--to", last)
    status, said = deployment.run("build_sequences", "--date", last)
    assert status == 3
    assert "day_completeness" in said
    assert "--from 2024-01-07 --to 2024-01-08" in said
    assert deployment.warehouse.days(TABLE) == {}


@pytest.mark.spark
def test_a_new_advertiser_and_a_new_scenario_are_normal(deployment: Deployment) -> None:
    last = deployment.write_days(FIRST_DAY, 10)
    new = pl.concat(
        [rows_of_day(last), rows_of_day(last, 3, ("video",)), rows_of_day(last, 1).with_columns(who=pl.lit("new"))]
    )
    deployment.write_day(last, new)
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)[0] == 0
    assert deployment.run("build_sequences", "--date", last)[0] == 0
    rows = rows_of(deployment, last)
    assert (
        rows.filter(scenario_id="video")["day"].list.len().to_list()
        == [1, 1, 1][: rows.filter(scenario_id="video").height]
    )
    assert rows.filter(advertiser_id="new")["registered_on"].unique().to_list() == [last]


@pytest.mark.spark
def test_who_registered_and_has_no_row_yet_is_forecast_in_every_scenario(deployment: Deployment) -> None:
    last = deployment.write_days(FIRST_DAY, 30)
    deployment.write_profiles()
    profiles = deployment.folder / "advertiser.sql"
    joined = last - timedelta(days=2)
    profiles.write_text(f"{profiles.read_text()} union all select 'new', date '{joined}', 'gold'")
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)[0] == 0
    assert deployment.run("build_sequences", "--date", last)[0] == 0
    listed = deployment.rows(TABLE).filter(advertiser_id="new").sort("scenario_id")
    assert listed.select("scenario_id", "registered_on", "tier", "form").rows() == [
        ("feed", joined, "gold", "text"),
        ("search", joined, "gold", "text"),
    ]
    assert rows_of(deployment, last).filter(advertiser_id="new")["day"].to_list() == [[], []]
    status, said = deployment.run("score", "--date", last)
    assert status == 0, said
    found = deployment.rows("marts.forecast_daily").filter(advertiser_id="new")
    assert set(found.select("scenario_id", "method").rows()) == {("feed", "cold_start"), ("search", "cold_start")}
    assert found.filter(pl.col("mean") < 0).is_empty()


@pytest.mark.spark
def test_history_is_cut_at_keep_days(deployment: Deployment) -> None:
    deployment.edit("buckets = 2", "buckets = 2\neligible_days = 14")
    deployment.edit("keep_days = 60", "keep_days = 14")
    last = deployment.write_days(FIRST_DAY, 20)
    deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)
    assert deployment.run("build_sequences", "--date", last)[0] == 0
    files = open_sequences(deployment.config, deployment.warehouse, last)
    assert min(file.ds for parts in files.weeks.values() for file in parts) >= last - timedelta(days=13)
    assert deployment.rows(TABLE)["registered_on"].min() == last - timedelta(days=13)
    assert rows_of(deployment, last)["day"].list.min().min() == (last - timedelta(days=13) - EPOCH).days


@pytest.mark.spark
def test_a_day_before_any_profile_says_so_and_knows_only_what_was_past(deployment: Deployment) -> None:
    """A range stages profiles for its last day alone; what they say then must not reach the features of days before."""
    deployment.write_profiles()
    last = deployment.write_days(FIRST_DAY, 10)
    before = last - timedelta(days=3)
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)[0] == 0
    assert "attributes_known" not in deployment.run("build_sequences", "--date", last)[1]
    status, said = deployment.run("build_sequences", "--date", before)
    assert status == 0
    rows = deployment.rows(TABLE).filter(ds=before)
    assert f"attributes_known staged.advertiser: found {rows.height}; expected no series without attributes" in said
    assert f"attributes_known staged.scenario: found {rows.height}; " in said
    assert f"the oldest is of {last}, registered_on alone is taken from it" in said
    assert set(rows["registered_on"]) == {date(2023, 1, 1)}
    assert rows["tier"].null_count() == rows["form"].null_count() == rows.height
    ledger = deployment.rows("ops.validation").filter(check="attributes_known", ds=before)
    assert ledger.select("passed", "severity", "found").unique().rows() == [(False, "warning", float(rows.height))]
    assert "stale:" not in deployment.run("status", "--date", last)[1]

    deployment.write_profiles(tier="silver")  # as known on that day
    (command,) = set(re.findall(r"python -m pipelines.stage_sources --config \S+ (--from \S+ --to \S+)", said))
    assert deployment.run("stage_sources", *command.split())[0] == 0
    status, said = deployment.run("status", "--date", last)
    assert status == 4
    assert f"stale: {before}. {before}: staged.advertiser {before} was written since" in said
    status, said = deployment.run("build_sequences", "--date", before)
    assert (status, "attributes_known" in said) == (0, False)
    tiers = deployment.rows(TABLE).group_by("ds").agg(pl.col("tier").unique()).sort("ds").rows()
    assert tiers == [(before, ["silver"]), (last, ["gold"])]


@pytest.mark.spark
def test_profiles_that_were_never_staged_are_no_secret(deployment: Deployment) -> None:
    """The data set got its profiles after its history was loaded."""
    last = deployment.write_days(FIRST_DAY, 3)
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)[0] == 0
    deployment.write_profiles()
    deployment.edit("[checks]", '[checks]\nseverity = { attributes_known = "critical" }')
    status, said = deployment.run("build_sequences", "--date", last)
    assert status == 3
    assert f"stage the day with: python -m pipelines.stage_sources --config {deployment.toml} --from {last}" in said
    assert "staged.advertiser: there is none;" in said
    assert deployment.warehouse.days(TABLE) == {}
