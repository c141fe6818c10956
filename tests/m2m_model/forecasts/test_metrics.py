from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from m2m_model.config import Task
from m2m_model.data.spec import targets_of
from m2m_model.forecasts.distribution import Distribution
from m2m_model.forecasts.metrics import CELL_SCHEMA, GROUP_SCHEMA, cell_sums, finish, group_sums, mean_over_tasks
from m2m_model.levels import LEVELS

DAY = date(2024, 5, 1)
BOTH = targets_of([Task("spend", "spend", "sum"), Task("clicks", "clicks", "sum")], [7])


def sums(median: list[list[float]], actual: list[list[float]], scenario: list[str], forecaster: str = "f") -> pa.Table:
    median_NM = np.array(median)
    # -2, -1, 0, 1, 2 around the median at 5, 25, 50, 75 and 95 %.
    level_GNM = median_NM + np.interp(LEVELS, (0.05, 0.25, 0.5, 0.75, 0.95), (-2, -1, 0, 1, 2))[:, None, None]
    spread = Distribution(median_NM, median_NM, np.zeros_like(median_NM), level_GNM)
    return cell_sums(spread, np.array(actual), np.array(scenario), BOTH, DAY, forecaster)


def test_literal_rows() -> None:
    # spend: errors 1, 2, 0 on actuals 4, 8, 0; clicks: perfect but for one of two.
    table = sums([[3.0, 1.0], [10.0, 0.0], [0.0, 2.0]], [[4.0, 1.0], [8.0, 0.0], [0.0, 4.0]], ["a", "a", "b"])
    spend, clicks = finish(table, ["task"]).sort_by([("task", "descending")]).to_pylist()
    assert spend["n"] == 3
    assert spend["nmae"] == pytest.approx(3 / 12)
    assert spend["smape"] == pytest.approx((2 / 7 + 4 / 18 + 0) / 3)
    assert spend["bias"] == pytest.approx(13 / 12 - 1)
    assert spend["coverage_50"] == pytest.approx(2 / 3)
    assert spend["coverage_90"] == pytest.approx(1.0)
    assert clicks["nmae"] == pytest.approx(2 / 5)
    # Row 1 of spend, y = 4, quantiles 1, 2, 3, 4, 5 at .05 .25 .5 .75 .95.
    one = finish(sums([[3.0, 1.0]], [[4.0, 1.0]], ["a"]), ["task"]).sort_by([("task", "descending")]).to_pylist()[0]
    assert one["pinball"] == pytest.approx((0.05 * 3 + 0.25 * 2 + 0.5 * 1 + 0 + 0.05 * 1) / 5)


def test_cells_add_up_over_shards() -> None:
    median, actual, scenario = (
        [[3.0, 1.0], [9.0, 0.0], [0.0, 2.0]],
        [[4.0, 1.0], [8.0, 0.0], [0.0, 4.0]],
        ["a", "b", "a"],
    )
    whole = finish(sums(median, actual, scenario), ["scenario_id", "task"])
    parts = pa.concat_tables([sums(median[:1], actual[:1], scenario[:1]), sums(median[1:], actual[1:], scenario[1:])])
    assert finish(parts, ["scenario_id", "task"]).equals(whole)


def test_nothing_happened() -> None:
    good = finish(sums([[0.0, 0.0]], [[0.0, 0.0]], ["a"]), ["task"]).to_pylist()[0]
    assert (good["nmae"], good["smape"], good["bias"]) == (0.0, 0.0, 0.0)
    bad = finish(sums([[1.0, 1.0]], [[0.0, 0.0]], ["a"]), ["task"]).to_pylist()[0]
    assert np.isnan(bad["nmae"])
    assert bad["smape"] == 2.0


def test_mean_over_tasks_ranks_forecasters() -> None:
    table = pa.concat_tables(
        [sums([[3.0, 1.0]], [[4.0, 1.0]], ["a"], "good"), sums([[2.0, 1.0]], [[4.0, 1.0]], ["a"], "bad")]
    )
    ranked = mean_over_tasks(finish(table)).to_pylist()
    assert [(row["forecaster"], row["nmae"]) for row in ranked] == [("bad", 0.25), ("good", 0.125)]


def test_units_are_not_added() -> None:
    with pytest.raises(ValueError, match="must hold task"):
        finish(sums([[3.0, 1.0]], [[4.0, 1.0]], ["a"]), ["forecaster"])


def test_horizons_are_not_added() -> None:
    targets = targets_of([Task("spend", "spend", "sum")], [7, 28])
    point_NM, actual_NM = np.array([[3.0, 10.0]]), np.array([[4.0, 20.0]])
    found = cell_sums(Distribution.point(point_NM), actual_NM, np.array(["a"]), targets, DAY, "f")
    with pytest.raises(ValueError, match="must hold horizon_days"):
        finish(found)
    each = finish(found, ["forecaster", "task", "horizon_days"])
    assert each.select(["horizon_days", "nmae"]).to_pylist() == [
        {"horizon_days": 7, "nmae": 0.25},
        {"horizon_days": 28, "nmae": 0.5},
    ]
    assert mean_over_tasks(each)["nmae"].to_pylist() == [0.375]


def test_empty_in_empty_out() -> None:
    empty = cell_sums(Distribution.point(np.zeros((0, 2))), np.zeros((0, 2)), np.zeros(0, object), BOTH, DAY, "f")
    assert empty.schema == CELL_SCHEMA
    assert finish(empty).num_rows == 0


def test_shares_of_zero_beside_its_probability() -> None:
    spread = Distribution.point(np.array([[0.0], [0.0], [3.0], [1.0]]))
    found = finish(cell_sums(spread, np.array([[0.0], [2.0], [0.0], [0.0]]), np.full(4, "a"), BOTH[:1], DAY, "f"))
    (row,) = found.to_pylist()
    assert (row["zeros"], row["zero_points"], row["p_zero"]) == (0.75, 0.5, 0.5)


def test_groups_of_each_task_add_up_to_the_whole() -> None:
    """A series may be steady in one task and rare in another."""
    rng = np.random.default_rng(0)
    median_NM, actual_NM = rng.gamma(2, 3, (60, 2)), rng.gamma(2, 3, (60, 2))
    group_NM = np.stack([rng.choice([11, 52], 60), rng.choice([11, 23, 53], 60)], 1)
    spread = Distribution.point(median_NM)
    groups = group_sums(spread, actual_NM, group_NM, BOTH, "f")
    assert groups.schema == GROUP_SCHEMA
    assert set(zip(groups["task"].to_pylist(), groups["group"].to_pylist(), strict=True)) == {
        *(("spend", code) for code in (11, 52)),
        *(("clicks", code) for code in (11, 23, 53)),
    }
    whole = cell_sums(spread, actual_NM, np.full(60, "a"), BOTH, DAY, "f")
    for name in finish(whole).column_names[2:]:
        assert finish(groups)[name].to_pylist() == pytest.approx(finish(whole)[name].to_pylist()), name
    steady = finish(groups, ("task", "group")).to_pylist()[2]
    rows = group_NM[:, 1] == 53
    assert (steady["task"], steady["group"], steady["n"]) == ("clicks", 53, rows.sum())
    assert steady["nmae"] == pytest.approx(np.abs(median_NM - actual_NM)[rows, 1].sum() / actual_NM[rows, 1].sum())
    assert len(group_sums(spread[:0], actual_NM[:0], group_NM[:0], BOTH, "f")) == 0
