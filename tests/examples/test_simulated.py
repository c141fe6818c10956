"""The simulator: the same seed gives the same rows however they are made, and what README.md says of the process holds
in the rows."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from deployment import Deployment
from pyspark.sql import SparkSession

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "simulated"))

import simulation
from generate import daily_table, generate, write_group
from simulation import BLOCK, NEVER, SCENARIOS, Rows, Simulation, World, delivered, simulate, simulate_block

from pipelines.config import load_config
from pipelines.sources.views import register_sources
from pipelines.spark.sql_files import run_sql

FOLDER = Path(simulation.__file__).parent
SETTINGS = Simulation(advertisers=BLOCK, seed=3)
SCENARIO = {scenario.name: index for index, scenario in enumerate(SCENARIOS)}
ACT_DAYS = 10  # how long an act's response is looked at


@pytest.fixture(scope="module")
def world() -> World:
    return simulate(SETTINGS)


def equal(one: Rows, other: Rows) -> bool:
    return list(one) == list(other) and all(np.array_equal(one[name], other[name]) for name in one)


def dense_NST(rows: Rows, name: str) -> np.ndarray:
    """A column as advertiser x scenario x day, 0 where there is no row."""
    made = np.zeros((SETTINGS.advertisers, len(SCENARIOS), SETTINGS.days))
    made[rows["advertiser"], rows["scenario"], rows["day"]] = rows[name]
    return made


def responses(world: World, act: str) -> np.ndarray:
    """Per scenario: how much more the log of impressions changes over the days after an act than without one.

    Series of the same week with at least 10 impressions on every day looked at.
    """
    shown_NST = np.log(np.maximum(dense_NST(world.performance, "impressions"), 1e-9))
    own = {name: column[world.behavior["scenario"] >= 0] for name, column in world.behavior.items()}
    acts_NST = dense_NST(own, act)
    lifts = np.zeros(len(SCENARIOS))
    for s in range(len(SCENARIOS)):
        changes = {True: [], False: []}
        for day in range(50, SETTINGS.days - 14, 7):
            before, after = shown_NST[:, s, day - 6 : day + 1], shown_NST[:, s, day + 8 : day + 15]
            alive = (shown_NST[:, s, day - 6 : day + 15] > np.log(10)).all(1)
            acted = acts_NST[:, s, day] > 0
            for which in (True, False):
                changes[which].append((after.mean(1) - before.mean(1))[alive & (acted == which)])
        lifts[s] = np.concatenate(changes[True]).mean() - np.concatenate(changes[False]).mean()
    return lifts


def test_same_seed_same_rows_and_another_seed_others(world: World) -> None:
    again, other = simulate_block(SETTINGS, 0), simulate_block(replace(SETTINGS, seed=4), 0)
    day = {name: column[world.performance["day"] == 40] for name, column in world.performance.items()}
    assert equal({name: day[name] for name in again.performance[40]}, again.performance[40])
    assert not np.array_equal(again.performance[40]["impressions"], other.performance[40]["impressions"])


def test_plans_work_on_the_days_that_they_are_for_as_known_the_evening_before() -> None:
    planned = replace(SETTINGS, planned_share=0.5, days=60)
    world = simulate(planned)
    rows = world.plans
    ahead = rows["for_day"] - rows["day"]
    assert (ahead.min(), ahead.max()) == (1, simulation.AHEAD)
    # What was known the evening before, beside what was known nine days earlier: a fifth of the weeks is changed late.
    made = np.zeros((2, planned.advertisers, len(SCENARIOS), planned.days + simulation.AHEAD + 1))
    for n, when in enumerate((1, simulation.AHEAD)):
        of = ahead == when
        made[n, rows["advertiser"][of], rows["scenario"][of], rows["for_day"][of]] = rows["planned_budget"][of]
    last_NST, first_NST = made[:, :, :, 20:60]
    both = (last_NST > 0) & (first_NST > 0)
    assert 0.05 < (last_NST != first_NST)[both].mean() < 0.2
    # Impressions of days that are planned higher or lower, beside the usual budget of the same series.
    shown_NST = np.zeros((planned.advertisers, len(SCENARIOS), planned.days))
    shown_NST[world.performance["advertiser"], world.performance["scenario"], world.performance["day"]] = (
        world.performance["impressions"]
    )
    usual_NS1 = np.median(np.where(last_NST > 0, last_NST, np.nan), axis=2, keepdims=True)
    change_NST = np.log(np.maximum(last_NST, 1e-9)) - np.log(usual_NS1)
    log_NST = np.log(np.maximum(shown_NST[:, :, 20:60], 1e-9))
    busy_NS1 = (both & (shown_NST[:, :, 20:60] > 20)).all(2, keepdims=True)
    x, y = ((of - of.mean(2, keepdims=True))[np.broadcast_to(busy_NS1, both.shape)] for of in (change_NST, log_NST))
    assert (x @ y) / (x @ x) == pytest.approx(planned.plan_effect, abs=0.1)


def test_nothing_is_planned_unless_asked_for(world: World) -> None:
    assert len(world.plans["day"]) == 0


def test_an_advertiser_stays_the_same_when_others_are_added() -> None:
    few = replace(SETTINGS, advertisers=BLOCK + 100, days=10)
    many = replace(few, advertisers=2 * BLOCK)
    few_rows, many_rows = simulate_block(few, 1), simulate_block(many, 1)
    among = many_rows.performance[5]["advertiser"] < few.advertisers
    assert equal(few_rows.performance[5], {name: c[among] for name, c in many_rows.performance[5].items()})
    among = many_rows.behavior[5]["advertiser"] < few.advertisers
    assert equal(few_rows.behavior[5], {name: c[among] for name, c in many_rows.behavior[5].items()})


def test_files_hold_the_same_rows_however_blocks_are_grouped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "BLOCK", 500)
    settings = Simulation(advertisers=1_700, days=3, dirt_rate=0.05, late_rate=0.05)
    assert settings.blocks == 4
    found = []
    for group in (1, 3):
        folder = tmp_path / str(group)
        for name in ("advertiser", *(f"{k}/2024-01-0{d}" for k in ("performance", "behavior") for d in (1, 2, 3))):
            (folder / name).mkdir(parents=True)
        for number in range(-(-settings.blocks // group)):
            write_group(settings, number, group, folder)
        names = ("performance/2024-01-02", "behavior/2024-01-02", "advertiser")
        tables = [pl.read_parquet(folder / name / "*.parquet") for name in names]
        found.append([table.sort(table.columns) for table in tables])
    assert all(one.equals(other) for one, other in zip(*found, strict=True))
    assert len(found[0][2]) == settings.advertisers


def test_about_a_quarter_of_the_cells_has_a_row(world: World) -> None:
    rows = len(world.performance["day"])
    assert 0.20 < rows / (SETTINGS.advertisers * len(SCENARIOS) * SETTINGS.days) < 0.35
    key = np.stack([world.performance[name] for name in ("day", "advertiser", "scenario")])
    assert len(np.unique(key, axis=1).T) == rows


def test_rows_are_possible(world: World) -> None:
    rows = world.performance
    assert (rows["impressions"] > 0).all()
    assert (rows["conversions"] <= rows["clicks"]).all()
    assert (rows["clicks"] <= rows["impressions"]).all()
    assert (rows["spend"][rows["clicks"] == 0] == 0).all()
    assert (rows["day"] >= world.profiles["registered"][rows["advertiser"]]).all()


def test_a_budget_raise_lifts_and_a_cut_lowers_the_days_after_it_as_the_scenario_says(world: World) -> None:
    raised, cut = responses(world, "budget_raised"), responses(world, "budget_cut")
    assert (raised > 0.05).all()
    assert (cut < -0.03).all()
    assert raised[SCENARIO["feed"]] > raised[SCENARIO["search"]] + 0.05
    assert raised[SCENARIO["search"]] > raised[SCENARIO["display"]] + 0.05
    bid = responses(world, "bid_changed")
    assert bid[SCENARIO["search"]] > 0.1
    assert bid[SCENARIO["display"]] < -0.1


def test_the_two_alike_scenarios_respond_alike(world: World) -> None:
    assert SCENARIOS[SCENARIO["feed"]].response == SCENARIOS[SCENARIO["video"]].response
    assert len({scenario.response for scenario in SCENARIOS}) == 3
    raised = responses(world, "budget_raised")
    assert abs(raised[SCENARIO["feed"]] - raised[SCENARIO["video"]]) < 0.08


def test_identical_scenarios_are_identical_but_for_names() -> None:
    same = simulate(replace(SETTINGS, identical_scenarios=True))
    rows = np.bincount(same.performance["scenario"])
    assert rows.max() / rows.min() < 1.05
    raised = responses(same, "budget_raised")
    assert np.ptp(raised) < 0.15  # a third of what it is where they differ
    assert [s.name for s in replace(SETTINGS, identical_scenarios=True).process] == [s.name for s in SCENARIOS]


def test_no_row_before_a_scenario_opens(world: World) -> None:
    for rows in (world.performance, world.behavior):
        days = rows["day"][rows["scenario"] == SCENARIO["video"]]
        assert days.min() >= SETTINGS.days // 2
    assert (world.performance["scenario"] == SCENARIO["video"]).sum() > 10_000


def test_churn_ends_a_series_and_fewer_logins_announce_it(world: World) -> None:
    churned_N = world.profiles["churned"]
    assert 0.1 < (churned_N < NEVER).mean() < 0.4
    for rows in (world.performance, world.behavior):
        assert (rows["day"] <= churned_N[rows["advertiser"]]).all()
    logins_NT = np.zeros((SETTINGS.advertisers, SETTINGS.days))
    everywhere = world.behavior["scenario"] < 0
    where = world.behavior["advertiser"][everywhere], world.behavior["day"][everywhere]
    np.add.at(logins_NT, where, world.behavior["login"][everywhere])
    gone = np.flatnonzero((churned_N > 60) & (churned_N < NEVER) & (world.profiles["registered"] < 0))
    last_week = np.mean([logins_NT[n, churned_N[n] - 6 : churned_N[n] + 1].mean() for n in gone])
    weeks_before = np.mean([logins_NT[n, churned_N[n] - 55 : churned_N[n] - 42].mean() for n in gone])
    assert last_week < 0.5 * weeks_before


def test_who_churned_for_a_while_comes_back(world: World) -> None:
    present_NT = np.zeros((SETTINGS.advertisers, SETTINGS.days), bool)
    present_NT[world.behavior["advertiser"], world.behavior["day"]] = True
    present_NT[world.performance["advertiser"], world.performance["day"]] = True
    silent = ~present_NT[:, 30:44].any(1)
    assert (silent & present_NT[:, :30].any(1) & present_NT[:, 44:].any(1)).sum() > 100


def test_a_top_up_starts_again_what_an_empty_balance_had_stopped(world: World) -> None:
    active_NT = np.zeros((SETTINGS.advertisers, SETTINGS.days), bool)
    active_NT[world.performance["advertiser"], world.performance["day"]] = True
    topped_NT = np.zeros_like(active_NT)
    filled = world.behavior["top_up"] > 0
    topped_NT[world.behavior["advertiser"][filled], world.behavior["day"][filled]] = True
    stopped_NT = active_NT[:, :-4] & ~active_NT[:, 1:-3] & ~active_NT[:, 2:-2]
    topped = topped_NT[:, 2:-2]
    again_NT = active_NT[:, 3:-1]
    assert again_NT[stopped_NT & topped].mean() > 0.9
    assert again_NT[stopped_NT & ~topped].mean() < 0.6


def test_changes_follow_a_login_of_the_day_before(world: World) -> None:
    rows = world.behavior
    logins = set(zip(rows["advertiser"][rows["login"] > 0], rows["day"][rows["login"] > 0], strict=True))
    changed = (rows["budget_raised"] + rows["budget_cut"] + rows["bid_changed"]) > 0
    changes = list(zip(rows["advertiser"][changed], rows["day"][changed], strict=True))
    assert len(changes) > 10_000
    assert all((advertiser, day - 1) in logins for advertiser, day in changes)


def test_sizes_have_a_heavy_tail_and_days_many_zeros(world: World) -> None:
    rows = world.performance
    spend_N = np.sort(np.bincount(rows["advertiser"], rows["spend"], SETTINGS.advertisers))[::-1]
    assert spend_N[:100].sum() > 0.25 * spend_N.sum()
    assert (rows["spend"] == 0).mean() > 0.3


def test_weekends_differ_from_weekdays_as_the_scenario_says(world: World) -> None:
    rows = world.performance
    weekend = np.array([(SETTINGS.first_day.toordinal() + d - 1) % 7 >= 5 for d in range(SETTINGS.days)])
    for name, higher in (("search", False), ("feed", True)):
        of = rows["scenario"] == SCENARIO[name]
        median = [np.median(rows["impressions"][of & (weekend[rows["day"]] == w)]) for w in (False, True)]
        assert (median[1] > median[0]) == higher


def test_dirt_is_as_much_as_was_asked_for_and_changes_nothing_else() -> None:
    clean = simulate_block(replace(SETTINGS, days=20), 0).performance[15]
    settings = replace(SETTINGS, days=20, dirt_rate=0.08, late_rate=0.03, restated_rate=0.02)
    assert equal(simulate_block(settings, 0).performance[15], clean)
    rows = delivered(settings, 0, 15, clean)
    size = len(clean["advertiser"])
    late = rows["delay_days"] > 0
    assert late.sum() == pytest.approx(0.05 * size, rel=0.3)
    assert set(rows["delay_days"]) == {0, 1, 2, 3}
    assert (rows["advertiser"] < 0).sum() == pytest.approx(0.02 * 0.97 * size, rel=0.4)
    assert ((rows["clicks"] > rows["impressions"]) & (rows["spend"] >= 0)).sum() > 0
    assert (rows["spend"] < 0).sum() > 0
    untouched = delivered(replace(settings, dirt_rate=0, late_rate=0, restated_rate=0), 0, 15, clean)
    assert equal({name: untouched[name] for name in clean}, clean)


def test_an_empty_day_makes_an_empty_table_of_the_same_columns() -> None:
    block = simulate_block(replace(SETTINGS, advertisers=5, days=2), 0)
    full = daily_table(SETTINGS, 0, delivered(SETTINGS, 0, 0, block.performance[0]), 0, ["a"] * 5)
    none = {name: column[:0] for name, column in block.performance[0].items()}
    assert daily_table(SETTINGS, 0, delivered(SETTINGS, 0, 0, none), 0, ["a"] * 5).schema == full.schema


def test_the_data_sets_sql_reads_what_was_generated_and_counts_the_dirt(
    spark: SparkSession, deployment: Deployment, tmp_path: Path
) -> None:
    config = load_config(FOLDER / "pipeline.toml")
    settings = Simulation(advertisers=400, days=6, dirt_rate=0.2, late_rate=0.1, restated_rate=0.1)
    folder = config.home / "raw"
    generate(settings, folder)
    assert generate(settings, folder) is None, "a simulation that is there is not made again"
    truth = simulate(settings).performance

    first, last = date(2024, 1, 1), date(2024, 1, 6)
    assert not [view.findings for view in register_sources(spark, config, first, last) if view.findings]
    staged = run_sql(spark, FOLDER / "sql" / "performance_daily.sql", from_ds=first, to_ds=last).toPandas()
    rules = staged["dirt"].value_counts()
    assert set(rules.index) == {
        "drop:no_advertiser",
        "drop:restated",
        "drop:duplicate_row",
        "repair:impressions_below_clicks",
        "repair:spend_sign",
    }
    kept = staged[~staged["dirt"].fillna("").str.startswith("drop:")]
    assert not kept.duplicated(["ds", "advertiser_id", "scenario_id"]).any()
    # Day 1 has all its deliveries by day 6. What is lost is what has no advertiser.
    day = truth["day"] == 0
    kept = kept[kept["ds"] == first]
    lost = day.sum() - len(kept)
    assert 0 < lost <= (rules["drop:no_advertiser"])
    spend = dict(
        zip(zip(truth["advertiser"][day], truth["scenario"][day], strict=True), truth["spend"][day], strict=True)
    )
    for row in kept.itertuples():
        key = int(row.advertiser_id[1:]), SCENARIO[row.scenario_id]
        assert row.spend == spend[key]

    with pytest.raises(FileExistsError, match="expected nothing or an earlier simulation"):
        generate(settings, FOLDER)


def test_planned_budgets_are_staged_as_the_readme_says(deployment: Deployment, spark: SparkSession) -> None:
    snippet = (FOLDER / "README.md").read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    toml = (
        (FOLDER / "pipeline.toml")
        .read_text(encoding="utf-8")
        .replace("[staging]\n", '[staging]\nknown_future = "sql/known_future.sql"\n')
    )
    deployment.toml.write_text(toml + "\n" + snippet)
    shutil.copytree(FOLDER / "sql", deployment.folder / "sql")
    settings = Simulation(advertisers=400, days=3, planned_share=0.5)
    generate(settings, deployment.config.home / "raw")
    status, said = deployment.run("stage_sources", "--from", date(2024, 1, 1), "--to", date(2024, 1, 3))
    assert status == 0, said
    truth = simulate(settings).plans
    staged = deployment.rows("staged.known_future")
    assert staged.height == len(truth["day"])
    assert staged["planned_budget"].sum() == pytest.approx(truth["planned_budget"].sum())
