"""Several horizons through the whole chain: one network, a row a horizon, and none that falls with it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise

import polars as pl
import pytest
from deployment import AS_OF, FIRST_DAY, Deployment, seventy_days
from pyspark.sql import SparkSession

from pipelines.chain import CHALLENGER, CHAMPION
from pipelines.life.registry import Registry

pytestmark = pytest.mark.spark

HORIZONS = (1, 7, 14)
SERIES = ["advertiser_id", "scenario_id"]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Iterator[Deployment]:
    """Seventy days and their sequences; the data set has one horizon until the first test is over."""
    with seventy_days(tmp_path_factory.mktemp("horizons") / "tiny", lambda: spark) as deployment:
        yield deployment


def forecasts(chain: Deployment) -> pl.DataFrame:
    return chain.rows("marts.forecast_daily").filter(ds=AS_OF)


def whole(chain: Deployment, rows: pl.DataFrame) -> None:
    """A row for every series, task and horizon, and nothing less in a longer one."""
    series = chain.rows("features.advertiser_sequence").height
    assert dict(rows.group_by("horizon_days").len().iter_rows()) == dict.fromkeys(HORIZONS, 2 * series)
    of = [rows.filter(horizon_days=days).sort(*SERIES, "task") for days in HORIZONS]
    for shorter, longer in pairwise(of):
        for name in ("point", "mean", "p05", "p25", "median", "p75", "p95"):
            assert (shorter[name] <= longer[name]).all(), name
        assert (shorter["p_zero"] >= longer["p_zero"]).all()
    paths = chain.rows("marts.forecast_path").filter(ds=AS_OF)
    assert paths.height == series * 2 * HORIZONS[-1]
    ends = paths.with_columns(horizon_days=(pl.col("day") - pl.col("ds")).dt.total_days().cast(pl.Int32))
    both = rows.join(ends, on=[*SERIES, "task", "horizon_days"])
    assert both.height == rows.height
    for total, sums in (("mean", "cumulated"), ("p05", "cumulated_p05"), ("p95", "cumulated_p95")):
        assert both[sums].equals(both[total]), total
    days = rows.filter(task="active_days")
    assert (days["p95"] <= days["horizon_days"]).all()


def test_1_a_home_of_one_horizon_goes_on_with_several(chain: Deployment) -> None:
    assert chain.run("score", "--date", AS_OF)[0] == 0
    one = forecasts(chain)
    assert set(one["horizon_days"]) == {7}
    assert set(chain.rows("marts.churn_risk")["horizon_days"]) == {7}
    chain.edit("buckets = 2", f"buckets = 2\nhorizons_days = {list(HORIZONS)}")
    assert chain.run("score", "--date", AS_OF)[0] == 0
    rows = forecasts(chain)
    assert rows["method"].str.starts_with("baseline:").all()
    whole(chain, rows)


def test_2_one_training_forecasts_them_all(chain: Deployment) -> None:
    status, text = chain.run("train", "--date", AS_OF)
    assert status == 0, text
    version = Registry(chain.config).get(CHALLENGER)
    assert version is not None
    metrics = Registry(chain.config).client.get_run(version.run_id).data.metrics
    assert {f"validation_nmae/search/spend {days}d" for days in HORIZONS} <= metrics.keys()


def test_3_backtest_and_gate_look_at_each(chain: Deployment) -> None:
    status, text = chain.run("backtest", "--date", AS_OF)
    assert status == 0, text
    rows = chain.rows("marts.backtest")
    # The longest horizon decides which cutoffs have labels.
    assert set(rows["cutoff"].drop_nulls()) == {AS_OF - timedelta(days=14), AS_OF - timedelta(days=21)}
    assert set(rows.group_by("cutoff", "forecaster", "scenario_id", "task").len()["len"]) == {3}
    assert rows.group_by("cutoff", "scenario_id", "task").agg(pl.col("n").n_unique())["n"].max() == 1
    leaving = chain.rows("marts.backtest_value").filter(figure="churn_rate", scenario_id="*", forecaster=CHALLENGER)
    assert leaving["horizon_days"].to_list() == list(HORIZONS)
    assert leaving["value"].is_sorted(descending=True)  # who did nothing for two weeks did nothing in the first
    version = Registry(chain.config).get(CHALLENGER)
    assert version is not None
    metrics = Registry(chain.config).client.get_run(version.run_id).data.metrics
    each = [metrics[f"backtest_nmae/challenger/{days}d"] for days in HORIZONS]
    assert metrics["backtest_nmae/challenger"] == pytest.approx(sum(each) / 3)
    assert "backtest_nmae/challenger/all/spend 14d" in metrics
    status, text = chain.run("promote", "--date", AS_OF)
    assert status == 0, text
    reason = chain.rows("ops.promotion")["reason"].to_list()[-1]
    assert all(f"{days}-day NMAE" in reason for days in HORIZONS)
    assert Registry(chain.config).version_of(CHAMPION) == version.version


def test_4_the_champion_serves_every_horizon_twice_the_same(chain: Deployment) -> None:
    status, text = chain.run("score", "--date", AS_OF)
    assert status == 0, text
    rows = forecasts(chain)
    assert rows["model_version"].null_count() == 0
    whole(chain, rows)
    risk = chain.rows("marts.churn_risk")
    leaving = rows.filter(task="active_days").sort(*SERIES, "horizon_days")
    assert risk.sort(*SERIES, "horizon_days")["probability"].to_list() == leaving["p_zero"].to_list()
    platform = chain.rows("marts.forecast_total").filter(ds=AS_OF, level="platform").sort("task", "horizon_days")
    assert platform["horizon_days"].to_list() == [*HORIZONS] * 2
    parts = rows.group_by("task", "horizon_days").agg(pl.sum("mean")).sort("task", "horizon_days")
    assert platform["mean"].to_list() == pytest.approx(parts["mean"].to_list())
    assert chain.run("score", "--date", AS_OF)[0] == 0
    assert forecasts(chain).drop("run_id").equals(rows.drop("run_id"))


def totals(chain: Deployment, days: int) -> pl.DataFrame:
    """Spend of each series in so many days after ``AS_OF``, by hand."""
    after = pl.col("ds").is_between(AS_OF, AS_OF + timedelta(days=days), closed="right")
    return chain.rows("staged.performance_daily").filter(after).group_by(SERIES).agg(pl.sum("spend").alias("actual"))


def test_5_monitor_judges_each_horizon(chain: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    chain.capture = lambda: "".join(capsys.readouterr())
    last = AS_OF + timedelta(days=14)
    for number in range(77, 84):
        chain.write_day(FIRST_DAY + timedelta(days=number))
    assert chain.run("stage_sources", "--from", AS_OF + timedelta(days=1), "--to", last)[0] == 0
    for days in HORIZONS:  # each when it is over, with those before it
        status, text = chain.run("monitor", "--date", AS_OF + timedelta(days=days))
        assert status == 0, text
        over = {other for other in HORIZONS if other <= days}
        assert set(chain.rows("marts.forecast_quality").filter(ds=AS_OF)["horizon_days"]) == over
        assert ("7-day spend: NMAE" in text) == (days >= 7)
    judged = chain.rows("marts.forecast_quality").drop("run_id")
    assert chain.run("monitor", "--date", last)[0] == 0
    assert chain.rows("marts.forecast_quality").drop("run_id").equals(judged)
    rows = chain.rows("marts.forecast_quality").filter(method="*", scenario_id="*", task="spend")
    assert dict(rows.select("horizon_days", "matured_on").iter_rows()) == {
        days: AS_OF + timedelta(days=days) for days in HORIZONS
    }
    for days, nmae in rows.select("horizon_days", "nmae").iter_rows():
        said = forecasts(chain).filter(task="spend", horizon_days=days)
        both = said.join(totals(chain, days), on=SERIES, how="left").with_columns(pl.col("actual").fill_null(0.0))
        error = (both["actual"] - both["point"]).abs().sum()
        assert nmae == pytest.approx(error / both["actual"].sum()), days


def test_6_a_champion_of_other_horizons_steps_back_for_the_baseline(
    chain: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    chain.capture = lambda: "".join(capsys.readouterr())
    chain.edit("[1, 7, 14]", "[7, 14]")
    status, text = chain.run("score", "--date", AS_OF)
    assert status == 0, text
    assert "was trained with other horizons_days; the best baseline serves" in text
    assert set(forecasts(chain)["horizon_days"]) == {7, 14}
    # What was published for more days than are waited for now is judged as far as it is over.
    chain.edit("[7, 14]", "[1, 7]")
    text = chain.run("monitor", "--date", AS_OF + timedelta(days=7))[1]
    assert "are for 14 days, of which [dataset] horizon_days = 7 have passed" in text
    assert set(chain.rows("marts.forecast_quality").filter(ds=AS_OF)["horizon_days"]) == {7}
