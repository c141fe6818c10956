"""The sequence kernel against a brute-force version, and the stage's rules."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl
from deployment import FIRST_DAY, Deployment, rows_of_day
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.build_sequences import sequences_of

TABLE = "features.advertiser_sequence"
EPOCH = date(1970, 1, 1)
NO_SCENARIO = pl.DataFrame(schema={"scenario_id": pl.String})

_ids, _scenarios = st.sampled_from(["a", "b", "ç|1"]), st.sampled_from(["search", "feed"])
_days = st.integers(0, 20).map(lambda n: FIRST_DAY + timedelta(days=n))
_performance = st.dictionaries(st.tuples(_ids, _scenarios, _days), st.sampled_from([0.0, 1.0, 2.5]), max_size=40)
_behavior = st.dictionaries(st.tuples(_ids, st.none() | _scenarios, _days), st.sampled_from([1.0, 3.0]), max_size=25)
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


def brute_force(performance: dict, behavior: dict, profiles: dict) -> list[dict]:
    """The definition, read aloud: series by series, day by day."""
    sequences = []
    for advertiser, scenario in sorted({(a, s) for a, s, _ in performance}):
        days = sorted(d for a, s, d in performance if (a, s) == (advertiser, scenario))
        totals: dict[date, float] = {}
        for (a, s, d), value in behavior.items():
            if a == advertiser and s in (None, scenario):
                totals[d] = totals.get(d, 0) + value
        registered = profiles.get(advertiser)
        sequences.append(
            {
                "advertiser_id": advertiser,
                "scenario_id": scenario,
                "registered_on": min([days[0], registered] if registered else [days[0]]),
                "day": [(d - EPOCH).days for d in days],
                "spend": [performance[advertiser, scenario, d] for d in days],
                "behavior_day": [(d - EPOCH).days for d in sorted(totals)],
                "logins": [totals[d] for d in sorted(totals)],
            }
        )
    return sequences


@settings(max_examples=150, deadline=None)
@given(_performance, _behavior, _profiles, st.randoms())
def test_the_kernel_is_the_definition(performance: dict, behavior: dict, profiles: dict, random: object) -> None:
    frames = _frames(performance, behavior, profiles)
    shuffled = [frame.sample(fraction=1, shuffle=True, seed=random.randrange(10**6)) for frame in frames]  # type: ignore[attr-defined]
    expected = brute_force(performance, behavior, profiles)
    found = sequences_of(*shuffled, NO_SCENARIO, ("spend",), ("logins",))
    columns = ["advertiser_id", "scenario_id", "registered_on", "day", "spend", "behavior_day", "logins"]
    assert found.select(columns).to_dicts() == expected


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
    rows = deployment.rows(TABLE).filter(scenario_id="search")
    first = (FIRST_DAY - EPOCH).days
    adv0, adv3 = (rows.row(by_predicate=pl.col("advertiser_id") == name, named=True) for name in ("adv0", "adv3"))
    assert (adv0["day"], adv0["spend"]) == (
        [first, first + 2, first + 3],
        [1.5, 0.0, 4.5],
    )  # day 1 is missing, day 2 a zero
    assert adv3["registered_on"] == FIRST_DAY + timedelta(days=1)
    assert adv3["day"][0] == first + 1  # the day before is not registered


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


def test_a_range_in_one_pass_is_the_same_as_day_by_day(deployment: Deployment) -> None:
    last = deployment.write_days(FIRST_DAY, 5)
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)[0] == 0
    whole = deployment.rows("staged.performance_daily")
    for i in range(5):
        assert deployment.run("stage_sources", "--date", FIRST_DAY + timedelta(days=i))[0] == 0
    assert deployment.rows("staged.performance_daily").equals(whole)


def test_a_day_that_was_never_staged_is_named_with_the_command_that_mends_it(deployment: Deployment) -> None:
    last = deployment.write_days(FIRST_DAY, 9)
    deployment.run("stage_sources", "--from", FIRST_DAY, "--to", FIRST_DAY + timedelta(days=5))
    deployment.run("stage_sources", "--from", FIRST_DAY + timedelta(days=8), "--to", last)
    status, said = deployment.run("build_sequences", "--date", last)
    assert status == 3
    assert "day_completeness" in said
    assert "--from 2024-01-07 --to 2024-01-08" in said
    assert deployment.warehouse.days(TABLE) == {}


def test_a_new_advertiser_and_a_new_scenario_are_normal(deployment: Deployment) -> None:
    last = deployment.write_days(FIRST_DAY, 10)
    new = pl.concat(
        [rows_of_day(last), rows_of_day(last, 3, ("video",)), rows_of_day(last, 1).with_columns(who=pl.lit("new"))]
    )
    deployment.write_day(last, new)
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)[0] == 0
    assert deployment.run("build_sequences", "--date", last)[0] == 0
    rows = deployment.rows(TABLE)
    assert (
        rows.filter(scenario_id="video")["day"].list.len().to_list()
        == [1, 1, 1][: rows.filter(scenario_id="video").height]
    )
    assert rows.filter(advertiser_id="new")["registered_on"].unique().to_list() == [last]


def test_history_is_cut_at_keep_days(deployment: Deployment) -> None:
    deployment.edit("keep_days = 60", "keep_days = 14")
    last = deployment.write_days(FIRST_DAY, 20)
    deployment.run("stage_sources", "--from", FIRST_DAY, "--to", last)
    assert deployment.run("build_sequences", "--date", last)[0] == 0
    oldest = deployment.rows(TABLE)["day"].list.min().min()
    assert EPOCH + timedelta(days=int(oldest)) >= last - timedelta(days=13)  # type: ignore[call-overload]
