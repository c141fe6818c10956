"""The whole chain on a small deployment: train, backtest, promote, score, monitor, and each of them twice."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import mlflow
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deployment import AS_OF, FIRST_DAY, Deployment, rows_of_day, seventy_days
from openlineage_rules import refuse_unpublished
from pyspark.sql import SparkSession

from m2m_model.data.panel import Panel
from m2m_model.data.targets import targets_Nm
from m2m_model.forecasts.baselines import BASELINES
from m2m_model.forecasts.distribution import Distribution
from m2m_model.forecasts.forecaster import Forecaster
from m2m_model.forecasts.methods import without_weight
from m2m_model.forecasts.metrics import cell_sums, finish
from m2m_model.judging.value import churn, ranking, reliability, size_deciles, value_sums
from m2m_model.levels import LEVELS, QUANTILES
from m2m_model.rivals import NAMES as RIVALS
from pipelines.chain import CHAIN, CHALLENGER
from pipelines.life.registry import Registry
from pipelines.reports.page import number
from pipelines.stages.maintain import apply, ending, plan
from pipelines.warehouse.files import write_file
from pipelines.warehouse.sequences import open_sequences

pytestmark = pytest.mark.spark

MATURED = AS_OF + timedelta(days=7)
# Days without a row, as numbers; the held-out cutoffs are days 55 and 62.
AWAY = {
    "adv7": range(10, 24),
    "adv8": range(20, 34),
    "adv9": range(30, 44),
    "adv10": range(58, 99),
    "adv11": range(51, 99),
}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Iterator[Deployment]:
    """Seventy days staged, sequences built, baseline forecasts made, a model trained, measured and promoted."""

    def rows(ds: date) -> pl.DataFrame:
        away = [who for who, days in AWAY.items() if (ds - FIRST_DAY).days in days]
        return rows_of_day(ds).filter(~pl.col("who").is_in(away))

    with seventy_days(tmp_path_factory.mktemp("chain") / "tiny", lambda: spark, rows) as deployment:
        yield deployment


def _forecasts(deployment: Deployment, ds: date = AS_OF) -> pl.DataFrame:
    return deployment.rows("marts.forecast_daily").filter(ds=ds)


def test_1_without_a_champion_the_best_baseline_serves_and_says_so(chain: Deployment) -> None:
    assert chain.run("score", "--date", AS_OF)[0] == 0
    rows = _forecasts(chain)
    assert rows.height == chain.rows("features.advertiser_sequence").height * 2
    assert rows["method"].str.starts_with("baseline:").all()
    assert rows["model_version"].null_count() == rows.height
    assert (rows["p05"] <= rows["p95"]).all()
    assert (rows["p05"] < rows["p95"]).any()  # the baseline has an interval too


def test_1_who_may_leave_and_with_how_much_is_read_from_the_forecasts(chain: Deployment) -> None:
    key = ["advertiser_id", "scenario_id"]
    forecasts = _forecasts(chain).sort(key)
    leaving, money = (forecasts.filter(task=task) for task in ("active_days", "spend"))
    rows = chain.rows("marts.churn_risk").sort(key)
    assert rows.select("ds", "bucket", *key).equals(leaving.select("ds", "bucket", *key))
    assert rows["probability"].equals(leaving["p_zero"])
    assert rows["value_at_risk"].equals(leaving["p_zero"] * money["mean"])
    assert (rows["probability"] > 0).any()
    assert chain.run("score", "--date", AS_OF)[0] == 0
    assert chain.rows("marts.churn_risk").sort(key).drop("run_id").equals(rows.drop("run_id"))


def _totals_of(chain: Deployment) -> pl.DataFrame:
    """The day's totals, after proving them against the day's forecasts."""
    forecasts, totals = _forecasts(chain), chain.rows("marts.forecast_total").filter(ds=AS_OF)
    part = pl.sum("mean")
    for level, column in (("platform", None), ("scenario", "scenario_id"), ("advertiser", "advertiser_id")):
        value = pl.col(column) if column else pl.lit(None, pl.String)
        parts = forecasts.group_by(value.alias("value"), "task").agg(part, series=pl.len().cast(pl.Int64))
        found = totals.filter(level=level).select("value", "task", "mean", "series")
        both = parts.join(found, on=["value", "task"], how="full", nulls_equal=True, coalesce=True)
        assert both["series"].equals(both["series_right"].alias("series"))
        assert both["mean"].to_list() == pytest.approx(both["mean_right"].to_list())
    of_attributes = totals.filter(level="attribute").group_by("name", "task").agg(part)
    whole = totals.filter(level="platform").select("task", whole="mean")
    both = of_attributes.join(whole, on="task")
    assert both["mean"].to_list() == pytest.approx(both["whole"].to_list())
    assert totals.select("model_version").unique().rows() == forecasts.select("model_version").unique().rows()
    assert (totals["p05"] <= totals["p95"]).all()
    return totals


def test_1_totals_are_what_the_forecasts_come_to(chain: Deployment) -> None:
    key = ["level", "name", "value", "task"]
    totals = _totals_of(chain).sort(key)
    assert chain.run("score", "--date", AS_OF)[0] == 0
    assert _totals_of(chain).sort(key).drop("run_id", "bucket").equals(totals.drop("run_id", "bucket"))
    assert not list(chain.warehouse.folder("marts.forecast_total", "").local.parent.rglob("*.arrow"))
    assert chain.run("show", "marts.forecast_total", "--date", AS_OF)[0] == 0


def test_1_paths_lead_to_the_forecasts(chain: Deployment) -> None:
    key = ["advertiser_id", "scenario_id", "task"]
    paths, forecasts = chain.rows("marts.forecast_path").filter(ds=AS_OF).sort(*key, "day"), _forecasts(chain)
    days = [AS_OF + timedelta(days=n) for n in range(1, 8)]
    of_series = paths.group_by(*key, maintain_order=True).agg(
        "day", pl.sum("expected"), pl.last("^cumulated.*$"), pl.first("bucket")
    )
    assert of_series["day"].to_list() == [days] * forecasts.height
    both = of_series.join(forecasts, on=[*key, "bucket"], how="inner")
    assert both.height == forecasts.height
    assert both["expected"].to_list() == pytest.approx(both["mean"].to_list(), rel=1e-6)
    for total, found in (("mean", "cumulated"), *((n, f"cumulated_{n}") for n in ("p05", "p95"))):
        assert both[found].equals(both[total])
    assert both["cumulated_p50"].equals(both["median"])
    of_weekday = paths.filter(pl.col("task") != "active_days").group_by("day").agg(pl.sum("expected"))
    assert of_weekday["expected"].max() > 1.02 * of_weekday["expected"].min()  # type: ignore[operator]
    assert set(chain.rows("ops.validation").filter(table="marts.forecast_path")["passed"]) == {True}
    assert chain.run("score", "--date", AS_OF)[0] == 0
    again = chain.rows("marts.forecast_path").filter(ds=AS_OF).sort(*key, "day")
    assert again.drop("run_id").equals(paths.drop("run_id"))
    assert chain.run("show", "marts.forecast_path", "--date", AS_OF)[0] == 0


def _replayed(chain: Deployment, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit status, and what was said."""
    capsys.readouterr()
    status, _ = chain.run("replay", *arguments, spark=False)
    said = capsys.readouterr()
    return status, said.out + said.err


def test_1_what_a_baseline_served_is_replayed(chain: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = _replayed(chain, capsys, "--date", AS_OF)
    assert (status, said.count("identical: 48 forecasts by baseline ")) == (0, 1), said
    assert "to the last bit" in said


def test_2_training_registers_a_challenger_with_its_whole_story(chain: Deployment) -> None:
    assert chain.run("train", "--date", AS_OF)[0] == 0
    registry = Registry(chain.config)
    version = registry.get("challenger")
    assert version is not None
    run = registry.client.get_run(version.run_id)
    assert run.data.tags["m2m.input.features.advertiser_sequence"] == str(
        chain.warehouse.snapshot_id("features.advertiser_sequence")
    )
    assert run.data.tags["m2m.config-hash"] == chain.config.hash
    assert run.data.tags["m2m.code-version"]
    assert run.data.params["ModelConfig.width"] == "8"
    assert run.data.params["TrainConfig.seed"] == "1"
    epochs = registry.client.get_metric_history(version.run_id, "validation_nmae")
    assert [metric.step for metric in epochs] == sorted(metric.step for metric in epochs)
    assert epochs[0].timestamp < epochs[-1].timestamp  # they came while it trained
    (learned_from,) = run.inputs.dataset_inputs
    source = json.loads(learned_from.dataset.source)
    assert (source["table"], source["ds"]) == ("features.advertiser_sequence", str(AS_OF))
    assert source["snapshot_id"] == run.data.tags["m2m.input.features.advertiser_sequence"]
    assert "validation_nmae/search/spend" in run.data.metrics
    artifacts = Path(mlflow.artifacts.download_artifacts(run_id=version.run_id))
    names = {str(path.relative_to(artifacts)) for path in artifacts.rglob("*") if path.is_file()}
    assert {"config/pipeline.toml", "environment.txt", "plots/loss.png", "plots/validation_nmae.png"} <= names
    logged = {path.name for path in version.folder.parents[1].rglob("*")}
    assert {"weights.safetensors", "config.json", "MLmodel", "requirements.txt"} <= logged
    assert not [name for name in logged if name.endswith((".pkl", ".pt", ".pth"))]
    assert {name.split("-")[0] for name in logged if name.startswith("lightgbm")} == rivals_that_serve(version.folder)
    assert {"rivals/rivals.json", "rivals/lightgbm_l1-0.txt"} <= names
    assert not list((chain.config.home / "training").iterdir())  # nothing is left to resume


def rivals_that_serve(model: Path) -> set[str]:
    """The learned baselines that a model's blend uses."""
    blend = Forecaster.load(model).blend
    return set(blend.anchors if blend else ()) & set(RIVALS)


def test_3_the_same_seed_gives_the_same_weights(chain: Deployment) -> None:
    registry = Registry(chain.config)
    first = registry.get("challenger")
    assert chain.run("train", "--date", AS_OF, "--from-scratch")[0] == 0
    second = registry.get("challenger")
    assert first is not None
    assert second is not None
    assert first.version != second.version
    weights = [(version.folder / "weights.safetensors").read_bytes() for version in (first, second)]
    assert weights[0] == weights[1]


def test_4_backtest_judges_every_forecaster_on_the_same_series(chain: Deployment) -> None:
    assert chain.run("backtest", "--date", AS_OF)[0] == 0
    rows = chain.rows("marts.backtest")
    assert set(rows["forecaster"]) == {"challenger", *BASELINES, *RIVALS}
    assert set(rows["cutoff"].drop_nulls()) == {AS_OF - timedelta(days=7), AS_OF - timedelta(days=14)}
    per_cell = rows.group_by("cutoff", "scenario_id", "task").agg(pl.col("n").n_unique())
    assert per_cell["n"].max() == 1
    assert rows.filter(pl.col("nmae").is_not_null(), forecaster="mean_28").height > 0
    value = chain.rows("marts.backtest_value")
    assert chain.run("backtest", "--date", AS_OF)[0] == 0
    assert chain.rows("marts.backtest").drop("run_id").equals(rows.drop("run_id"))
    assert chain.rows("marts.backtest_value").drop("run_id").equals(value.drop("run_id"))


def test_4_backtest_says_what_forecasts_are_worth_as_the_model_package_defines_it(chain: Deployment) -> None:
    rows = chain.rows("marts.backtest_value")
    assert set(rows["ds"]) == {AS_OF}
    points_only = rows.filter(pl.col("forecaster").is_in(list(RIVALS)))
    assert set(points_only.filter(pl.col("figure").str.starts_with("churn"))["figure"]) == set()
    assert {"gini", "size_nmae"} <= set(points_only["figure"])

    sums = _valued_by_hand(chain)
    search = sums.filter(pc.equal(sums["scenario_id"], "search"))
    for scenario, part in (("*", sums), ("search", search)):
        mart = rows.filter(scenario_id=scenario, forecaster=CHALLENGER)
        for task in ("spend", "active_days"):
            one = part.filter(pc.equal(part["task"], task))
            _same(mart.filter(task=task), ranking(one), "", None)
            _same(mart.filter(task=task), size_deciles(one), "size_", "decile")
        _same(mart.filter(task="active_days"), churn(part), "churn_", None)
        _same(mart.filter(task="active_days"), reliability(part), "churn_", "bin")
    assert mart.filter(figure="churn_rate")["value"].item() == 3 / 24  # adv11 at both cutoffs, adv10 at the later

    version = Registry(chain.config).get(CHALLENGER)
    assert version is not None
    logged = Registry(chain.config).client.get_run(version.run_id).data.metrics
    for scenario, shown in (("*", "all"), ("search", "search")):
        for figure, task in (("gini", "spend"), ("churn_auc", "active_days"), ("churn_brier", "active_days")):
            (value,) = rows.filter(scenario_id=scenario, forecaster=CHALLENGER, task=task, figure=figure)["value"]
            assert logged[f"backtest_{figure}/{CHALLENGER}/{shown}/{task}"] == value
    plots = Path(mlflow.artifacts.download_artifacts(run_id=version.run_id, artifact_path="plots"))
    for name in ("reliability.png", "error_by_size.png"):
        assert (plots / name).stat().st_size > 0


@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_4_a_damaged_lightgbm_stops_no_backtest_and_is_named(
    chain: Deployment, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    version = Registry(chain.config).get(CHALLENGER)
    assert version is not None
    artifacts = Registry(chain.config).client.get_run(version.run_id).info.artifact_uri
    file = Path(url2pathname(urlparse(artifacts).path)) / "rivals" / "lightgbm_tweedie-1.txt"
    judged = chain.rows("marts.backtest")
    written = file.read_bytes()
    try:
        if damage == "gone":
            file.unlink()
        else:
            file.write_bytes(written[:-9] + bytes([written[-9] ^ 1]) + written[-8:])
        status = chain.run("backtest", "--date", AS_OF)[0]
    finally:
        file.write_bytes(written)
    printed = capfd.readouterr().out
    assert status == 0, printed
    assert f"warning: the rivals of version {version.version} cannot be opened" in printed
    assert file.name in printed
    rows, rival = chain.rows("marts.backtest"), pl.col("forecaster").is_in(list(RIVALS))
    assert rows.drop("run_id").equals(judged.filter(~rival).drop("run_id"))
    assert chain.run("backtest", "--date", AS_OF)[0] == 0
    assert chain.rows("marts.backtest").drop("run_id").equals(judged.drop("run_id"))


def _valued_by_hand(chain: Deployment) -> pa.Table:
    """The challenger's sums at both cutoffs, all series at once."""
    version = Registry(chain.config).get(CHALLENGER)
    assert version is not None
    sequences = open_sequences(chain.config, chain.warehouse, AS_OF)
    rows = pl.concat(sequences.rows(bucket) for bucket in sequences.buckets).to_arrow()
    panel = Panel.from_sequences(rows, sequences.spec, AS_OF, sequences.days)
    parts = []
    for cutoff in (AS_OF - timedelta(days=7), AS_OF - timedelta(days=14)):
        day, forecasts = panel.index_of(cutoff), Forecaster.load(version.folder).predict(panel, cutoff)
        actual_NM, spread = targets_Nm(panel, day, forecasts.series_N), forecasts.distribution
        leaving = spread.p_zero_NM[:, 1:], actual_NM[:, 1:] == 0
        size_NM = BASELINES["mean_28"](panel, day, forecasts.series_N)
        parts.append(
            value_sums(
                spread.mean_NM,
                actual_NM,
                size_NM,
                *leaving,
                forecasts.scenario_N,
                sequences.spec.targets,
                cutoff,
                "mine",
            )
        )
    return pa.concat_tables(parts)


def _same(mart: pl.DataFrame, expected: pa.Table, prefix: str, part: str | None) -> None:
    """The mart's long rows hold the figures of a finished table, and no part more."""
    names = [name for name in expected.column_names if name not in ("forecaster", "task", "n", part)]
    for name in names:
        found = mart.filter(figure=prefix + name).sort("part")
        assert found["value"].fill_null(float("nan")).to_list() == pytest.approx(
            expected[name].to_pylist(), nan_ok=True
        ), name
        assert found["n"].to_list() == pytest.approx(expected["n"].to_pylist())
        assert found["part"].to_list() == (expected[part].to_pylist() if part else [None])


def test_5_a_dry_run_only_records_and_a_promotion_moves_the_alias(chain: Deployment) -> None:
    registry = Registry(chain.config)
    assert chain.run("promote", "--date", AS_OF, "--dry-run")[0] == 0
    assert registry.get("champion") is None
    assert chain.run("promote", "--date", AS_OF)[0] == 0
    champion, challenger = registry.get("champion"), registry.get("challenger")
    assert champion is not None
    assert champion == challenger
    ledger = chain.rows("ops.promotion").sort("decided_at")
    assert ledger["dry_run"].to_list() == [True, False]
    assert ledger["promoted"].to_list() == [False, True]
    assert ledger["reason"].str.contains("of best baseline").all()
    version = registry.client.get_model_version(registry.name, champion.version)
    card = Path(mlflow.artifacts.download_artifacts(run_id=champion.run_id, artifact_path="model_card.md")).read_text()
    assert version.description == card
    backtest = chain.rows("marts.backtest").filter(pl.col("cutoff").is_null(), forecaster="challenger")
    for task, nmae, n in backtest.filter(scenario_id="*").select("task", "nmae", "n").iter_rows():
        assert f"| {task} | {n:,} | {nmae:.3f} |" in card


def test_5_a_person_promotes_with_a_reason_that_the_ledger_keeps(
    chain: Deployment, capfd: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(chain.config)
    champion = registry.version_of("champion")
    assert champion is not None
    assert chain.run("promote", "--to", "77", "--reason", "x")[0] == 2
    assert "m2m_tiny has no version 77; it has 1" in capfd.readouterr().err
    assert chain.run("promote", "--to", champion)[0] == 2  # no reason
    assert chain.run("promote", "--to", champion, "--reason", "x")[0] == 0
    assert "is champion already" in capfd.readouterr().out
    registry.client.delete_registered_model_alias(registry.name, "champion")
    assert chain.run("promote", "--to", champion, "--reason", "the gate was too strict")[0] == 0
    assert registry.version_of("champion") == champion
    line = chain.rows("ops.promotion").sort("decided_at").row(-1, named=True)
    assert (line["challenger"], line["champion"], line["promoted"]) == (champion, None, True)
    assert line["ds"] == AS_OF  # of its data, whenever somebody promoted it
    assert line["reason"].startswith("by hand, ")
    assert line["reason"].endswith(": the gate was too strict")


def test_6_the_champion_serves_and_twice_gives_the_same_rows(chain: Deployment) -> None:
    assert chain.run("score", "--date", AS_OF)[0] == 0
    rows = _forecasts(chain)
    assert rows["method"].str.contains(r"^(m2m|blend:\w+@0\.\d|baseline:\w+)$").all()
    # The task's share of the blend is that of every row of a scenario.
    assert rows.group_by("scenario_id", "task").agg(pl.n_unique("method"))["method"].to_list() == [1] * 4
    assert set(rows["model_version"]) == {Registry(chain.config).get("champion").version}  # type: ignore[union-attr]
    assert (rows.filter(task="active_days")["p95"] <= 7).all()
    assert chain.run("score", "--date", AS_OF)[0] == 0
    assert _forecasts(chain).drop("run_id").equals(rows.drop("run_id"))


def test_6_a_day_takes_few_spark_jobs(chain: Deployment, spark: SparkSession) -> None:
    """A pass over the data is a job: another count, another look at what was written would show here."""
    scheduler = spark.sparkContext._jsc.sc().dagScheduler()  # type: ignore[union-attr]

    def jobs() -> int:
        return int(scheduler.numTotalJobs())  # what the pages of Spark keep is no more than a thousand

    found = {}
    for stage in ("stage_sources", "build_sequences", "score"):
        before = jobs()
        assert chain.run(stage, "--date", AS_OF)[0] == 0
        found[stage] = jobs() - before
    assert found == {"stage_sources": 2, "build_sequences": 1, "score": 1}


def test_6_what_moved_and_who_may_leave_is_explained(chain: Deployment) -> None:
    """Against the day before, by the model that served on both; twice the same."""
    assert chain.run("explain", "--date", FIRST_DAY)[0] == 3  # nothing was forecast then
    yesterday = AS_OF - timedelta(days=1)
    for stage, ds in (("build_sequences", yesterday), ("score", yesterday), ("explain", yesterday), ("explain", AS_OF)):
        assert chain.run(stage, "--date", ds)[0] == 0
    changes, why = chain.rows("marts.forecast_change"), chain.rows("marts.forecast_reason")
    assert set(changes["ds"]) == {AS_OF}  # before the first there is nothing to compare with
    assert set(changes["compared_with"]) == {yesterday}
    causes = ["by_restated", "by_new_days", "by_model", "by_calibration"]
    moved = (changes["after"] - changes["before"]).to_list()
    assert changes.select(pl.sum_horizontal(causes)).to_series().to_list() == pytest.approx(moved)
    assert changes.select(pl.col(causes[0], *causes[2:]).abs().max()).row(0) == (0, 0, 0)
    assert changes["note"].null_count() == changes.height
    key = ["advertiser_id", "scenario_id", "task", "horizon_days"]
    means = {ds: _forecasts(chain, ds).select(*key, pl.col("mean").alias(str(ds))) for ds in (yesterday, AS_OF)}
    both = (
        means[AS_OF]
        .join(means[yesterday], on=key)
        .with_columns(size=(pl.col(str(AS_OF)) - pl.col(str(yesterday))).abs())
    )
    most = both.filter(pl.col("size") > 0).sort("size", descending=True)
    for task in ("spend", "active_days"):
        ranked = changes.filter(task=task).sort("rank")
        expected = most.filter(task=task)
        assert ranked.height == expected.height
        assert (ranked["after"] - ranked["before"]).abs().to_list() == pytest.approx(expected["size"].to_list())
    valuable = chain.rows("marts.churn_risk").filter(pl.col("value_at_risk") > 0)
    explained = why.filter(kind="mover").select(*key).unique().sort(key)
    assert explained.join(changes, on=key, how="anti").is_empty()
    assert explained.height > changes.height / 2
    at_risk = why.filter(kind="at_risk")
    assert at_risk.join(valuable, on=["ds", *key[:2], "horizon_days"], how="anti").is_empty()
    assert why.filter(rank=1)["words"].str.contains(r"\(.* a day .*\): .* (higher|lower)$|^It is in scenario").all()
    assert chain.run("explain", "--date", AS_OF)[0] == 0
    assert chain.rows("marts.forecast_reason").drop("run_id").equals(why.drop("run_id"))
    assert chain.rows("marts.forecast_change").drop("run_id").equals(changes.drop("run_id"))
    said = chain.warehouse.pin("marts.forecast_reason").lineage()[AS_OF]
    assert said["m2m.input.marts.forecast_daily"] == str(chain.warehouse.snapshot_id("marts.forecast_daily"))
    assert said["m2m.input.model.champion"] == Registry(chain.config).version_of("champion")


def test_6_a_published_day_is_replayed_to_the_last_bit(chain: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    champion = Registry(chain.config).version_of("champion")
    there = f"there is {AS_OF - timedelta(days=1)}..{AS_OF}"
    same = f"forecasts by version {champion}, to the last bit\n"
    status, said = _replayed(chain, capsys, "--from", FIRST_DAY, "--to", AS_OF)
    assert (status, said.count(f"identical: 48 {same}")) == (0, 2), said
    only = ("--advertiser", "adv3", "--task", "spend")
    assert _replayed(chain, capsys, "--date", AS_OF, *only) == (0, f"replay {AS_OF}: identical: 2 {same}")
    for wrong, words in (
        (("--date", FIRST_DAY), f"never forecast; {there}"),
        (
            ("--from", FIRST_DAY, "--to", FIRST_DAY + timedelta(days=3)),
            f"there is {AS_OF - timedelta(days=1)}..{AS_OF}",
        ),
        (("--date", AS_OF, "--advertiser", "adv33"), 'has no advertiser_id "adv33"; did you mean "adv3'),
        (("--date", AS_OF, "--task", "cpa"), 'has no task "cpa"; known are active_days, spend'),
        (("--date", AS_OF, "--scenario", "fed"), 'has no scenario_id "fed"; did you mean "feed"?'),
    ):
        status, said = _replayed(chain, capsys, *wrong)
        assert status == 2
        assert words in said


def test_6_what_is_not_as_it_was_published_is_named(chain: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    def replayed() -> str:
        status, said = _replayed(chain, capsys, "--date", AS_OF)
        assert status == 3
        assert "identical" not in said
        return said

    warehouse, table = chain.warehouse, "marts.forecast_daily"
    files = warehouse.files(table, AS_OF)
    path = Path(files[0].path.removeprefix("file://"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert f"different, rows: {files[0].rows} of 48 forecasts cannot be read as they were published: " in replayed()
    path.write_bytes(whole)

    version = Registry(chain.config).get("champion")
    assert version is not None
    weights = version.folder / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "weights.safetensors in" in (said := replayed())
    assert "different, model: " in said
    weights.write_bytes(whole)
    moved = version.folder.rename(version.folder.with_name("moved"))
    assert "different, model: " in replayed()
    moved.rename(version.folder)

    rows = _forecasts(chain)
    raised = rows.with_columns(pl.when(task="spend", advertiser_id="adv3").then(pl.col("mean") * 2).otherwise("mean"))
    lineage = {key.removeprefix("m2m."): value for key, value in warehouse.lineage(table)[AS_OF].items()}
    raised = raised.sort(*warehouse.declared(table).key)
    new = [
        write_file(part, warehouse.arrow_schema(table), warehouse.folder(table, "hand"), AS_OF, bucket)
        for (bucket,), part in raised.group_by("bucket", maintain_order=True)
    ]
    warehouse.commit(table, [AS_OF], new, lineage)
    said = replayed()
    assert "different, values: mean of 2 of 48 forecasts, by up to 50.00%: (adv3, " in said
    assert said.count("different") == 1
    warehouse.forget(table, {new[0].path})
    said = replayed()
    assert "different, rows: 1 of the 2 files that score-" in said
    assert f"{new[0].rows} of 48 forecasts are made again and not published any more: (adv" in said
    assert chain.run("score", "--date", AS_OF)[0] == 0
    assert _replayed(chain, capsys, "--date", AS_OF)[0] == 0


def test_7_mlflows_own_loader_gives_the_published_forecasts(chain: Deployment) -> None:
    registry = Registry(chain.config)
    model = mlflow.pyfunc.load_model(f"models:/{registry.name}@champion")
    files = open_sequences(chain.config, chain.warehouse, AS_OF)
    sequences = pl.concat(files.rows(bucket) for bucket in files.buckets)
    sequences = sequences.sort("advertiser_id", "scenario_id").to_pandas()
    sequences["registered_on"] = sequences["registered_on"].astype("datetime64[ns]")
    found = pl.from_pandas(model.predict(sequences, params={"as_of": str(AS_OF)}))
    key = ["advertiser_id", "scenario_id", "task"]
    published = _forecasts(chain).select(*key, "point", "p95").sort(key)
    assert found.select(*key, "point", "p95").sort(key).equals(published)


def test_7_a_version_forecasts_where_nothing_but_its_requirements_is(chain: Deployment, tmp_path: Path) -> None:
    version = Registry(chain.config).get("champion")
    assert version is not None
    folder = version.folder.parents[1]
    required = (folder / "requirements.txt").read_text().split()
    names = {line.split("==")[0] for line in required}
    boosted = {"lightgbm"} if rivals_that_serve(version.folder) else set()
    assert names == {"mlflow", "torch", "numpy", "scipy", "pyarrow", "safetensors"} | boosted
    assert not [line for line in required if "+" in line]  # a local version is in no index
    files = open_sequences(chain.config, chain.warehouse, AS_OF)
    files.rows(files.buckets[0]).write_parquet(tmp_path / "sequences.parquet")
    ours = ["pipelines", "pyspark", "polars", "pyiceberg", "great_expectations", "airflow", *({"lightgbm"} - boosted)]
    script = f"""
import sys
sys.modules.update(dict.fromkeys({ours}))  # importing them fails
import mlflow, pandas
model = mlflow.pyfunc.load_model({str(folder)!r})
rows = pandas.read_parquet("sequences.parquet")
rows["registered_on"] = pandas.to_datetime(rows["registered_on"])
print(len(model.predict(rows, params={{"as_of": "{AS_OF}"}})))
import m2m_model
assert m2m_model.__file__.startswith({str(folder)!r}), m2m_model.__file__
"""
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) == files.rows(files.buckets[0]).height * 2


def test_8_matured_forecasts_are_judged_as_the_model_package_defines_it(chain: Deployment) -> None:
    assert chain.run("monitor", "--date", AS_OF)[0] == 0  # nothing matured is no error
    assert chain.rows("marts.forecast_quality").is_empty()
    assert chain.run("monitor", "--date", MATURED)[0] == 3  # the days since were never staged
    assert chain.run("stage_sources", "--from", AS_OF + timedelta(days=1), "--to", MATURED)[0] == 0
    assert chain.run("monitor", "--date", MATURED)[0] == 0
    rows = chain.rows("marts.forecast_quality")
    assert set(rows["ds"]) == {AS_OF}
    assert set(rows["matured_on"]) == {MATURED}
    expected = _judged_by_hand(chain)
    assert set(rows["method"]) == {"*", *(without_weight(method) for method in _forecasts(chain)["method"])}
    overall = rows.filter(method="*", scenario_id="*").sort("task")
    for column in ("n", "nmae", "smape", "pinball", "coverage_50", "coverage_90", "bias"):
        assert overall[column].to_list() == pytest.approx(expected[column].to_pylist()), column
    assert chain.run("monitor", "--date", MATURED)[0] == 0
    assert chain.rows("marts.forecast_quality").drop("run_id").equals(rows.drop("run_id"))


def test_8_the_report_tells_what_the_tables_have_and_mlflow_keeps_it_once(chain: Deployment) -> None:
    page = chain.config.home / "reports" / f"{AS_OF}.html"
    for _ in range(2):
        status, said = chain.run("report", "--date", AS_OF)
        assert status == 0, said
    told = html.unescape(re.sub("<[^>]*>", " ", page.read_text(encoding="utf-8")))
    spend = chain.rows("marts.forecast_total").filter(ds=AS_OF, level="platform", task="spend")
    version = Registry(chain.config).version_of("champion")
    for words in (
        f"{_forecasts(chain).height:,} forecasts",
        f"spend of the next 7 days {number(spend['mean'].item())} eur",
        f"model version {version}",
        f"marts.forecast_daily: {_forecasts(chain).height:,} rows",
        f"Of {chain.rows('marts.churn_risk').filter(ds=AS_OF).height} series",
    ):
        assert words in told
    runs = mlflow.search_runs(
        experiment_names=[f"m2m_{chain.config.dataset.name}"], filter_string="tags.`m2m.kind` = 'daily'"
    )
    assert [runs["tags.m2m.ds"].item(), runs["status"].item()] == [str(AS_OF), "FINISHED"]
    assert runs["metrics.forecasts"].item() == _forecasts(chain).height
    assert runs["metrics.wall_s/score"].item() > 0
    folder = Path(url2pathname(urlparse(runs["artifact_uri"].item()).path)) / "report"
    assert [path.read_bytes() for path in folder.iterdir()] == [page.read_bytes()]

    assert chain.run("report", "--date", MATURED)[0] == 0
    later = html.unescape(re.sub("<[^>]*>", " ", (page.parent / f"{MATURED}.html").read_text(encoding="utf-8")))
    assert f"Incomplete: features.advertiser_sequence has no {MATURED}; marts.forecast_daily has no {MATURED}" in later
    quality = chain.rows("marts.forecast_quality").filter(method="*", scenario_id="*", task="spend")
    assert f"Forecasts as of {AS_OF}, against what came." in later
    assert number(quality["nmae"].item()) in later


def test_8_forecasts_are_judged_over_their_own_horizon(chain: Deployment) -> None:
    before = chain.toml.read_text()
    rows = chain.rows("marts.forecast_quality").drop("run_id")
    try:
        chain.edit("buckets = 2", "buckets = 2\nhorizon_days = 14")
        later = AS_OF + timedelta(days=14)
        for number in range(77, 84):
            chain.write_day(FIRST_DAY + timedelta(days=number))
        assert chain.run("stage_sources", "--from", MATURED + timedelta(days=1), "--to", later)[0] == 0
        assert chain.run("monitor", "--date", later)[0] == 0
        assert chain.rows("marts.forecast_quality").drop("run_id").equals(rows)
        chain.toml.write_text(before.replace("buckets = 2", "buckets = 2\nhorizon_days = 5"))
        assert chain.run("monitor", "--date", AS_OF + timedelta(days=5))[0] == 0
        # Five of seven days are no test of seven: what was judged before stays.
        assert chain.rows("marts.forecast_quality").drop("run_id").equals(rows)
    finally:
        chain.toml.write_text(before)
    assert chain.run("monitor", "--date", MATURED)[0] == 0
    assert chain.rows("marts.forecast_quality").drop("run_id").equals(rows)


def test_8_drift_of_the_day_is_kept_and_told_with_the_error_that_is_expected(
    chain: Deployment, capfd: pytest.CaptureFixture[str]
) -> None:
    """And the error that forecasts expect stands beside the one that came. The last day is then delivered in cents."""
    for _ in range(2):
        assert chain.run("drift", "--date", AS_OF)[0] == 0
    expected, forecasts = chain.rows("marts.forecast_expected"), _forecasts(chain)
    whole = expected.filter(method="*", scenario_id="*").sort("task")
    assert whole["sum_mean"].to_list() == pytest.approx(
        forecasts.group_by("task").agg(pl.sum("mean")).sort("task")["mean"]
    )
    assert set(expected["method"]) == {"*", *(without_weight(method) for method in forecasts["method"])}
    assert expected["expected_nmae"].is_between(0, 2).all()
    rows = chain.rows("ops.drift")
    assert set(rows["scenario_id"]) == {"*", "feed", "search"}
    assert rows.filter(verdict="critical").is_empty()

    cents = rows_of_day(MATURED).with_columns(cost=pl.col("cost") * pl.when(place="feed").then(100).otherwise(1))
    chain.write_day(MATURED, cents)
    for stage in ("stage_sources", "build_sequences", "drift"):
        assert chain.run(stage, "--date", MATURED)[0] == 0
    assert "warning: drift in scenario feed: level of spend:" in capfd.readouterr().out
    late = chain.rows("ops.drift").filter(ds=MATURED)
    critical = late.filter(verdict="critical")
    assert set(critical["scenario_id"]) == {"feed"}
    assert set(critical["signal"]) == {"level of spend", "level of spend beside other metrics"}
    quality = chain.rows("marts.forecast_quality").filter(method="*", scenario_id="feed", task="spend")
    (told,) = late.filter(scenario_id="feed", signal="error over expected of spend")["found"]
    of_spend = expected.filter(method="*", scenario_id="feed", task="spend")
    assert told == pytest.approx(quality["nmae"].item() / of_spend["expected_nmae"].item())

    assert chain.run("incidents", "--date", MATURED, spark=False)[0] == 0
    said = capfd.readouterr().out
    assert f"drift in scenario feed: 2 signals; since {MATURED}" in said
    assert "what to do: docs/operations.md#data-drift" in said
    chain.write_day(MATURED)
    assert chain.run("stage_sources", "--date", MATURED)[0] == 0


def _judged_by_hand(chain: Deployment) -> pa.Table:
    """The figures of m2m_model.forecasts.metrics, from the tables, with totals added up here."""
    after = chain.rows("staged.performance_daily").filter(pl.col("ds").is_between(AS_OF, MATURED, closed="right"))
    active = pl.any_horizontal(pl.col("views", "taps", "spend") > 0)
    totals = after.group_by("advertiser_id", "scenario_id").agg(
        pl.sum("spend"), active.sum().cast(pl.Float64).alias("active_days")
    )
    actual = totals.unpivot(["spend", "active_days"], index=["advertiser_id", "scenario_id"], variable_name="task")
    key = ["advertiser_id", "scenario_id", "task"]
    both = _forecasts(chain).join(actual, on=key, how="left").with_columns(pl.col("value").fill_null(0.0))
    sums = []
    for (task,), part in both.group_by("task"):
        point, mean, p_zero = (part[name].to_numpy().reshape(-1, 1) for name in ("point", "mean", "p_zero"))
        published = part.select("p05", "p25", "median", "p75", "p95").to_numpy()
        levels = np.stack([np.interp(LEVELS, QUANTILES, row) for row in published], 1)[:, :, None]
        sums.append(
            cell_sums(
                Distribution(point, mean, p_zero, levels),
                part["value"].to_numpy().reshape(-1, 1),
                part["scenario_id"].to_numpy(),
                [target for target in chain.config.sequence_spec.targets if target.name == task],
                AS_OF,
                "x",
            )
        )
    return finish(pa.concat_tables(sums), ("task",))


def test_9_a_champion_of_other_tasks_steps_back_for_the_baseline(
    chain: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    before = chain.toml.read_text()
    chain.edit("[history]", '[[task]]\nname = "taps"\nmetric = "taps"\naggregate = "sum"\n\n[history]')
    try:
        assert chain.run("score", "--date", AS_OF)[0] == 0
        rows = _forecasts(chain)
        assert set(rows["task"]) == {"spend", "active_days", "taps"}
        assert rows["method"].str.starts_with("baseline:").all()
        assert chain.run("promote", "--date", AS_OF)[0] == 0
        then = chain.config.hash
    finally:
        chain.toml.write_text(before)
    status, said = _replayed(chain, capsys, "--date", AS_OF)  # with the configuration that is kept
    assert status == 0
    assert f"(configuration {then}, of then, was used; now other: [[task]] taps (there, now not there))" in said
    (Path(chain.warehouse.configurations.uri.removeprefix("file://")) / f"{then}.json").unlink()
    status, said = _replayed(chain, capsys, "--date", AS_OF)
    assert status == 3
    assert f"different, configuration: configuration {then}, of then, is not kept; {chain.config.hash}" in said
    assert "different, rows: 24 of 72 forecasts are published and not made again: (adv" in said


def test_9_training_on_what_was_known_then_is_not_moved_by_what_was_restated_since(
    chain: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    def weights(*options: str) -> bytes:
        assert chain.run("train", "--date", AS_OF, *options)[0] == 0
        version = Registry(chain.config).get(CHALLENGER)
        assert version is not None
        return (version.folder / "weights.safetensors").read_bytes()

    then = weights()
    run_id = chain.warehouse.lineage("features.advertiser_sequence")[AS_OF]["m2m.run-id"]
    restated = FIRST_DAY + timedelta(days=30)
    chain.write_day(restated, rows_of_day(restated).with_columns(pl.col("cost") * 3))
    assert chain.run("stage_sources", "--date", restated)[0] == 0
    assert chain.run("build_sequences", "--date", AS_OF)[0] == 0
    assert weights("--snapshot", run_id) == then
    assert weights() != then
    assert chain.run("train", "--date", AS_OF, "--snapshot", "no-such-run")[0] == 2
    assert "features.advertiser_sequence: no snapshot of run no-such-run" in capsys.readouterr().err


def _lineage(chain: Deployment, capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    assert chain.run("lineage", *arguments, "--json", spark=False)[0] == 0
    return json.loads(capsys.readouterr().out)


def test_9_a_source_file_is_followed_to_all_that_it_reached(
    chain: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the test above: the day was staged twice, by a run of many days and alone."""
    restated, of_day = FIRST_DAY + timedelta(days=30), [[str(AS_OF), str(AS_OF)]]
    both = [[str(AS_OF - timedelta(days=1)), str(AS_OF)]]
    capsys.readouterr()
    told = _lineage(chain, capsys, "--source", f"raw/ds={restated}")
    now = told["reached"]["now"]
    assert now["staged.performance_daily"] == [[str(restated), str(restated)]]
    assert now["marts.forecast_daily"] == both
    assert both[0] in now["features.advertiser_sequence"]
    versions = Registry(chain.config).client.search_model_versions(f"name = '{Registry(chain.config).name}'")
    assert {one["model_version"] for one in told["model_versions"]} == {str(one.version) for one in versions}
    assert f"--from {restated} --to {restated}" in told["to_mend"][0]
    later = _lineage(chain, capsys, "--source", f"raw/ds={MATURED}")["reached"]["now"]
    assert "marts.forecast_daily" not in later
    assert later["marts.forecast_quality"] == of_day
    first = next(line.split()[3].rstrip(",") for line in told["asked"] if "staged by run" in line)
    as_it_was = _lineage(chain, capsys, "--source", f"raw/ds={restated}", "--run", first)["reached"]
    assert as_it_was["mended"]["staged.performance_daily"] == [[str(restated), str(restated)]]
    assert of_day[0] in as_it_was["mended"]["features.advertiser_sequence"]  # built again since
    assert as_it_was["now"]["marts.forecast_daily"] == both
    whole = _lineage(chain, capsys, "staged.performance_daily", "--date", restated, "--forward")
    assert whole["reached"]["now"] == now
    assert chain.run("lineage", "--source", "raw/ds=1999", spark=False)[0] == 2
    assert 'no day that is known was staged from a source file with "raw/ds=1999"' in capsys.readouterr().err


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for child in node.get("made_from", []):
        yield from _nodes(child)


def test_9_a_figure_leads_back_to_its_source_files_and_its_model(
    chain: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    tree = list(_nodes(_lineage(chain, capsys, "marts.forecast_daily", "--date", AS_OF, "--advertiser", "adv3")))
    assert len(tree[0]["data_files"]) == 1
    files = {path for node in tree for _, path, *_ in node.get("files", [])}
    days = chain.config.history.keep_days
    assert files == {f"raw/ds={AS_OF - timedelta(days=n)}.parquet" for n in range(days)}
    judged = list(_nodes(_lineage(chain, capsys, "marts.backtest", "--date", AS_OF)))
    models = [node for node in judged if "model_version" in node]
    assert models
    assert all(node["ds"] == str(AS_OF) and node["mlflow_run"] for node in models)
    assert any(child["table"] == "features.advertiser_sequence" for child in models[0]["made_from"])
    assert chain.run("lineage", "marts.forecast_daily", "--date", AS_OF, spark=False)[0] == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"marts.forecast_daily {AS_OF}"
    assert chain.run("lineage", "marts.forecast_daily", "--date", FIRST_DAY, spark=False)[0] == 2
    assert f"no day {FIRST_DAY}; the days that it has are" in capsys.readouterr().err


def test_9_every_stage_has_told_of_itself_as_openlineage_publishes_it(chain: Deployment) -> None:
    told = [
        json.loads(line)
        for file in sorted((chain.config.home / "openlineage").iterdir())
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    for event in told:
        refuse_unpublished(event)
    stages = {event["job"]["name"].removeprefix("tiny.") for event in told}
    assert stages == {stage.name for stage in CHAIN if stage.dag}
    runs: dict[str, list[str]] = {}
    for event in told:
        runs.setdefault(event["run"]["runId"], []).append(event["eventType"])
    assert {tuple(kinds) for kinds in runs.values()} == {("START", "COMPLETE"), ("START", "FAIL")}
    ended = {event["job"]["name"]: event for event in told if event["eventType"] == "COMPLETE"}
    inputs, outputs = (
        {stage: {one["name"] for one in ended[f"tiny.{stage}"][side]} for stage in stages}
        for side in ("inputs", "outputs")
    )
    assert outputs["train"] == {"m2m_tiny"}
    assert outputs["score"] >= {"tiny_marts.forecast_daily", "tiny_marts.churn_risk"}
    assert inputs["stage_sources"] == {str(chain.folder / "raw/ds={ds}.parquet")}
    assert inputs["build_sequences"] == {"tiny_staged.performance_daily", "tiny_features.sequence_week"}


def test_10_every_day_replays_until_house_keeping_says_that_it_ends(
    chain: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in ("score", "explain"):  # the newest run of a stage is kept, with what it has read
        assert chain.run(stage, "--date", AS_OF)[0] == 0
    assert chain.run("maintain", "--apply")[0] == 0
    days = ("--from", AS_OF - timedelta(days=1), "--to", AS_OF)
    status, said = _replayed(chain, capsys, *days)
    assert (status, said.count("identical")) == (0, 2), said
    warehouse, now = chain.warehouse, time.time() + timedelta(days=40).total_seconds()
    plans = plan(warehouse, {}, now)
    assert ending(warehouse, plans) == [AS_OF - timedelta(days=1)]
    read = int(warehouse.lineage("marts.forecast_daily")[AS_OF]["m2m.input.features.advertiser_sequence"])
    apply(warehouse, plans, now)
    assert ending(chain.warehouse, plan(chain.warehouse, {}, now)) == []
    status, said = _replayed(chain, capsys, *days)
    assert (status, said.count("different, commit expired: "), said.count("identical")) == (3, 1, 1), said
    assert chain.run("build_sequences", "--date", AS_OF - timedelta(days=1))[0] == 0
    chain.warehouse.table("features.advertiser_sequence").maintenance.expire_snapshots().by_ids([read]).commit()
    status, said = _replayed(chain, capsys, "--date", AS_OF)
    assert status == 3
    assert f"different, input expired: it was made from snapshot {read} of features.advertiser_sequence" in said
