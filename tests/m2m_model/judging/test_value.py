from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from scipy.stats import rankdata

from m2m_model.config import Task
from m2m_model.data.spec import targets_of
from m2m_model.judging.value import (
    AMOUNT_BINS,
    CHURN_BINS,
    SUMS,
    VALUE_SCHEMA,
    churn,
    ranking,
    reliability,
    size_deciles,
    value_sums,
)

Floats = NDArray[Any]
DAY = date(2024, 5, 1)
SPEND = targets_of([Task("spend", "spend", "sum")], [7])
BOTH = targets_of([Task("spend", "spend", "sum"), Task("clicks", "clicks", "sum")], [7])


def one_task(
    forecast: Any, actual: Any, size: Any = None, p: Any = None, churned: Any = None, scenario: Any = None
) -> pa.Table:
    """One task; what a test does not mention is constant."""
    n = len(forecast)
    size_N, p_N, churned_N = (np.ones(n) if values is None else np.asarray(values) for values in (size, p, churned))
    scenario_N = np.full(n, "a", object) if scenario is None else np.asarray(scenario, object)
    column = [np.asarray(values, np.float64)[:, None] for values in (forecast, actual, size_N)]
    return value_sums(*column, p_N[:, None], churned_N[:, None], scenario_N, SPEND, DAY, "f")


def test_without_probabilities_nothing_is_said_of_leaving() -> None:
    ones = np.ones((3, 1))
    sums = value_sums(ones, ones, ones, None, None, np.full(3, "a", object), SPEND, DAY, "f")
    assert set(sums["figure"].to_pylist()) == {"forecast", "actual", "size"}
    assert len(churn(sums)) == len(reliability(sums)) == 0
    assert churn(sums).column_names == ["forecaster", "n", "rate", "auc", "brier", "brier_base"]


def only(table: pa.Table) -> dict[str, Any]:
    (row,) = table.to_pylist()
    return dict(row)


def exact_gini(forecast_N: Floats, actual_N: Floats) -> float:
    """Of the actuals ranked by forecast; ties share their ranks."""
    n = len(actual_N)
    return float(2 * (rankdata(forecast_N) * actual_N).sum() / (n * actual_N.sum()) - (n + 1) / n)


def exact_capture(forecast_N: Floats, actual_N: Floats) -> float:
    """Of the tenth with the highest forecast; who ties at its border shares evenly."""
    top = len(actual_N) // 10
    border = np.sort(forecast_N)[-top]
    above, at = forecast_N > border, forecast_N == border
    return float((actual_N[above].sum() + (top - above.sum()) * actual_N[at].mean()) / actual_N.sum())


def exact_auc(p_N: Floats, churned_N: Floats) -> float:
    gap = p_N[churned_N][:, None] - p_N[~churned_N]
    return float(((gap > 0) + (gap == 0) / 2).mean())


def heavy_tailed(seed: int, n: int = 3000) -> tuple[Floats, ...]:
    """forecast, actual, size, churn probability, churned: amounts over six decades, 40 and 50 % of them 0."""
    random = np.random.default_rng(seed)
    level_N = np.exp(random.normal(2, 2.5, n))
    forecast_N = np.where(random.random(n) < 0.4, 0, level_N * np.exp(random.normal(0, 0.5, n)))
    actual_N = np.where(random.random(n) < 0.5, 0, level_N * np.exp(random.normal(0, 1, n)))
    p_N = 1 / (1 + np.exp(-random.normal(-4, 2, n)))
    return forecast_N, actual_N, level_N, p_N, random.random(n) < p_N


def test_literal_ranking() -> None:
    # Ranked by forecast the actuals are 0, 4, 2, 10 (2 x 54 / (4 x 16) - 5/4), by themselves 0, 2, 4, 10 (2 x 56).
    # The top tenth of four is 0.4 of a series: the one of 10 in both.
    found = only(ranking(one_task([0, 1, 20, 300], [0, 4, 2, 10])))
    assert found["n"] == 4
    assert found["gini"] == pytest.approx((2 * 54 / 64 - 5 / 4) / (2 * 56 / 64 - 5 / 4))
    assert found["top_decile_capture"] == found["perfect_capture"] == pytest.approx(0.4 * 10 / 16)


def test_rankings_from_perfect_to_reversed() -> None:
    actual = 3.0 ** np.arange(20)
    perfect, reverse = (only(ranking(one_task(forecast, actual))) for forecast in (actual**0.9, 1 / actual**0.3))
    assert perfect["gini"] == pytest.approx(1.0)
    assert perfect["top_decile_capture"] == perfect["perfect_capture"] == pytest.approx(8 / 9, rel=1e-4)
    assert reverse["gini"] < -0.9


def test_literal_size_deciles() -> None:
    # 20 series of sizes that never share a bin: two a decile, whatever their order.
    order = np.random.default_rng(0).permutation(20)
    actual, forecast = np.arange(20.0), np.arange(20.0) + 1
    table = size_deciles(one_task(forecast[order], actual[order], (2.0 ** np.arange(20))[order]))
    assert table["decile"].to_pylist() == list(range(1, 11))
    assert table["n"].to_pylist() == [2.0] * 10
    np.testing.assert_allclose(table["nmae"], [2 / (4 * d + 1) for d in range(10)])
    np.testing.assert_allclose(table["bias"], table["nmae"])
    np.testing.assert_allclose(table["actual_share"], [(4 * d + 1) / 190 for d in range(10)])


def test_a_bin_over_a_border_is_split_in_proportion() -> None:
    # 14 without a size and one just above it fill five deciles; in the other bin, too, nobody is told apart.
    table = size_deciles(one_task([2.0] * 30, [1.0] * 15 + [3.0] * 15, [0] * 14 + [0.001] + [7] * 15))
    np.testing.assert_allclose(table["n"], 3.0)
    np.testing.assert_allclose(table["nmae"], [1.0] * 5 + [1 / 3] * 5)
    # Four of ten tie for the top tenth, and one of them spent.
    assert only(ranking(one_task([0] * 6 + [5] * 4, [0] * 6 + [0, 8, 0, 0])))["top_decile_capture"] == 0.25


def test_literal_churn() -> None:
    # Pairs (churned, stayed): .9 beats .2 and .5; .5 beats .2 and ties with .5: 3.5 of 4.
    table = one_task([1] * 4, [1] * 4, p=[0.9, 0.5, 0.5, 0.2], churned=[True, True, False, False])
    found = only(churn(table))
    assert (found["n"], found["rate"], found["auc"]) == (4, 0.5, 3.5 / 4)
    assert found["brier"] == pytest.approx((0.01 + 0.25 + 0.25 + 0.04) / 4)
    assert found["brier_base"] == 0.25
    rows = [(row["n"], row["predicted"], row["observed"]) for row in reliability(table).to_pylist()]
    assert rows == [(1, 0.2, 0.0), (2, 0.5, 0.5), (1, 0.9, 1.0)]


@pytest.mark.parametrize("seed", range(5))
def test_bins_cost_what_is_stated(seed: int) -> None:
    forecast_N, actual_N, size_N, p_N, churned_N = heavy_tailed(seed)
    table = one_task(forecast_N, actual_N, size_N, p_N, churned_N)
    found, leavers = only(ranking(table)), only(churn(table))
    gini = exact_gini(forecast_N, actual_N) / exact_gini(actual_N, actual_N)
    assert found["gini"] == pytest.approx(gini, abs=0.0005)
    assert found["top_decile_capture"] == pytest.approx(exact_capture(forecast_N, actual_N), abs=0.003)
    assert found["perfect_capture"] == pytest.approx(exact_capture(actual_N, actual_N), abs=0.0005)
    assert leavers["brier"] == pytest.approx(((p_N - churned_N) ** 2).mean(), rel=1e-12)

    bins = reliability(table)
    churned_B, n_B = np.multiply(bins["observed"], bins["n"]), bins["n"].to_numpy()
    share = (churned_B * (n_B - churned_B)).sum() / (churned_N.sum() * (~churned_N).sum())
    auc = exact_auc(p_N, churned_N)
    assert leavers["auc"] == pytest.approx(auc, abs=0.003)
    assert abs(leavers["auc"] - auc) <= share / 2

    error = size_deciles(table)
    order = np.argsort(size_N).reshape(10, -1)
    exact = np.abs(forecast_N - actual_N)[order].sum(1) / actual_N[order].sum(1)
    np.testing.assert_allclose(error["nmae"], exact, rtol=0.1)
    np.testing.assert_allclose(error["actual_share"], actual_N[order].sum(1) / actual_N.sum(), rtol=0.1)


def test_tables_add_up_over_shards() -> None:
    rows = heavy_tailed(7)
    scenario = np.random.default_rng(7).choice(["a", "b", "c"], 3000)
    shard = np.random.default_rng(8).integers(0, 4, 3000)
    whole = one_task(*rows, scenario)
    parts = [one_task(*(column[shard == k] for column in rows), scenario[shard == k]) for k in range(4)]
    keys = [name for name in VALUE_SCHEMA.names if name not in SUMS]
    added = pa.concat_tables(parts).group_by(keys).aggregate([(name, "sum") for name in SUMS])
    added = added.rename_columns(VALUE_SCHEMA.names).cast(VALUE_SCHEMA)
    assert len(added) == len(whole) <= 3 * (3 * AMOUNT_BINS + CHURN_BINS)
    for finish, by in ((ranking, ["task"]), (size_deciles, ["task"]), (churn, ["forecaster"]), (reliability, ["task"])):
        for keys in (by, ["scenario_id", *by]):
            expected = finish(whole, keys)
            for table in (added, pa.concat_tables(parts)):
                found = finish(table, keys)
                assert found.select(keys) == expected.select(keys)
                for name in expected.column_names[len(keys) :]:
                    np.testing.assert_allclose(found[name], expected[name], rtol=1e-9)


def test_groups_are_apart() -> None:
    # Beside itself, a scenario's figures are those it has alone, whatever the tasks beside it.
    forecast_N, actual_N, size_N, p_N, churned_N = heavy_tailed(3, 600)
    amounts = [np.stack([values_N, values_N[::-1]], 1) for values_N in (forecast_N, actual_N, size_N)]
    scenario_N = np.array(["a", "b", "b"] * 200)
    both = value_sums(*amounts, p_N[:, None], churned_N[:, None], scenario_N, BOTH, DAY, "f")
    rows = scenario_N == "b"
    alone = one_task(*(values[rows] for values in (forecast_N, actual_N, size_N, p_N, churned_N)), scenario_N[rows])
    for finish, last in ((ranking, "spend"), (size_deciles, "spend"), (churn, "churn"), (reliability, "churn")):
        found = [row for row in finish(both, ["scenario_id", "task"]).to_pylist() if row["scenario_id"] == "b"]
        assert [row for row in found if row["task"] == last] == finish(alone, ["scenario_id", "task"]).to_pylist()


def test_nothing_happened() -> None:
    found = only(ranking(one_task([1.0, 2.0], [0.0, 0.0])))
    assert all(np.isnan(found[name]) for name in ("gini", "top_decile_capture", "perfect_capture"))
    assert np.isnan(size_deciles(one_task([1.0, 2.0], [0.0, 0.0]))["nmae"]).all()
    assert not np.any(size_deciles(one_task([0.0, 0.0], [0.0, 0.0]))["nmae"])


def test_equal_forecasts_rank_nothing() -> None:
    found = only(ranking(one_task([5.0] * 10, np.arange(10.0))))
    assert found["gini"] == pytest.approx(0, abs=1e-12)
    assert found["top_decile_capture"] == pytest.approx(0.1)
    assert np.isnan(only(ranking(one_task([1.0, 2.0], [3.0, 3.0])))["gini"])


@pytest.mark.parametrize("everyone", [True, False])
def test_one_class_has_no_auc(everyone: bool) -> None:
    table = one_task([1, 1], [1, 1], p=[0.0, 1.0], churned=[everyone] * 2)
    assert reliability(table)["bin"].to_pylist() == [0, CHURN_BINS - 1]
    found = only(churn(table))
    assert np.isnan(found["auc"])
    assert (found["rate"], found["brier"], found["brier_base"]) == (float(everyone), 0.5, 0.0)


def test_zero_is_apart_from_the_least_amount() -> None:
    assert only(ranking(one_task([1e-6, 0.0], [1.0, 0.0])))["gini"] == pytest.approx(1.0)


def test_amounts_beyond_the_bins_still_count() -> None:
    found = only(ranking(one_task([1e30, 1.0], [1e12, 1.0])))
    assert found["gini"] == pytest.approx(1.0)


def test_empty_in_empty_out() -> None:
    empty = one_task([], [])
    assert empty.schema == VALUE_SCHEMA
    for table in (empty, ranking(empty), size_deciles(empty), churn(empty), reliability(empty)):
        assert table.num_rows == 0


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"churn probability: 2 of 3 are NaN or not within 0..1"):
        one_task([1] * 3, [1] * 3, p=[np.nan, 0.5, 1.5])
    assert only(churn(one_task([1], [1], p=np.array([1 + 1e-7], np.float32))))["brier"] == 0
    with pytest.raises(ValueError, match="forecast: 1 of 2 are negative or not finite"):
        one_task([np.nan, 0], [1, 1])
    with pytest.raises(ValueError, match="size: 2 of 2 are negative or not finite"):
        one_task([1, 0], [1, 1], [-1, np.inf])
    for finish in (ranking, size_deciles):
        with pytest.raises(ValueError, match="must hold task"):
            finish(one_task([1], [1]), ["forecaster"])
