import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2m_model.config import Task
from m2m_model.data.spec import SequenceSpec, targets_of
from m2m_model.forecasts.blend import WEIGHTS
from m2m_model.forecasts.coherence import binding_days, coherent, larger_targets
from m2m_model.forecasts.distribution import Distribution, decode, pool
from m2m_model.levels import LEVELS, MEDIAN

METRICS = ("impressions", "clicks", "conversions", "spend")
SUMS = tuple(Task(metric, metric, "sum") for metric in METRICS)
DAYS = (Task("active_days", "active", "days"), Task("click_days", "clicks", "days"))
PAIRS = (("conversions", "clicks"), ("clicks", "impressions"))
HORIZON = 7


def spec_of(
    tasks: tuple[Task, ...], not_above: tuple[tuple[str, str], ...] = (), horizons: tuple[int, ...] = (HORIZON,)
) -> SequenceSpec:
    return SequenceSpec(METRICS, (), (), (), tasks, horizons, 28, 28, not_above)


def some(rng: np.random.Generator, rows: int, tasks: int) -> Distribution:
    """Zero-inflated and continuous above, each task on its own; sizes over four decades, some of them nothing."""
    p_zero_NM = np.where(rng.random((rows, tasks)) < 0.2, rng.integers(0, 2, (rows, tasks)), rng.random((rows, tasks)))
    inner = np.clip((LEVELS[:, None, None] - p_zero_NM) / np.maximum(1 - p_zero_NM, 1e-9), 0, 0.999)
    level_GNM = -np.log(1 - inner) * 10 ** rng.uniform(-2, 2, (rows, tasks))
    return Distribution(level_GNM[MEDIAN], level_GNM.mean(0), p_zero_NM, level_GNM)


def mixed(seed: int, tasks: int, rows: int = 12) -> Distribution:
    """What may reach the last step: two forecasters pooled with a weight per task, or one with a point of its own."""
    rng = np.random.default_rng(seed)
    parts = [decode(some(rng, rows, tasks)), some(rng, rows, tasks)]
    weight_NM = np.broadcast_to(rng.choice(WEIGHTS, tasks), (rows, tasks))
    return pool(parts, np.stack([weight_NM, 1 - weight_NM]))


orders = st.permutations([*SUMS, *DAYS]).flatmap(lambda tasks: st.integers(1, 6).map(lambda n: tuple(tasks[:n])))
pairs = st.lists(st.sampled_from([(a, b) for a in METRICS for b in METRICS if a != b]), max_size=4).map(tuple)


horizons_of = st.sets(st.integers(1, 40), min_size=1, max_size=4).map(lambda days: tuple(sorted(days)))


@given(st.integers(0, 10_000), orders, pairs, horizons_of)
def test_whatever_is_mixed_holds_together(
    seed: int, tasks: tuple[Task, ...], not_above: tuple, horizons: tuple[int, ...]
) -> None:
    spec = spec_of(tasks, not_above, horizons)
    targets = spec.targets
    found = coherent(mixed(seed, len(targets)), spec)
    figures = (found.point_NM, found.mean_NM, *found.level_GNM)
    assert all(np.isfinite(figure_NM).all() and (figure_NM >= 0).all() for figure_NM in (*figures, found.p_zero_NM))
    assert (found.p_zero_NM <= 1).all()
    assert (np.diff(found.level_GNM, axis=0) >= 0).all()
    larger = larger_targets(targets, not_above)
    for m, target in enumerate(targets):
        if target.aggregate == "days":
            whole = (found.point_NM[:, m], found.level_GNM[:, :, m])
            assert all((figure == np.round(figure)).all() for figure in whole)
            assert all((figure <= target.horizon_days).all() for figure in (*whole, found.mean_NM[:, m]))
        for k in larger[m]:
            assert all((figure_NM[:, m] <= figure_NM[:, k]).all() for figure_NM in figures)
            assert (found.p_zero_NM[:, m] >= found.p_zero_NM[:, k]).all()
        if target.aggregate == "sum":
            for k in binding_days(targets, m):
                assert all((figure_NM[figure_NM[:, k] == 0, m] == 0).all() for figure_NM in figures)
                assert (found.p_zero_NM[:, m] >= found.p_zero_NM[:, k]).all()
        if m and targets[m - 1].name == target.name:  # a longer horizon
            assert all((figure_NM[:, m] >= figure_NM[:, m - 1]).all() for figure_NM in figures)
            assert (found.p_zero_NM[:, m] <= found.p_zero_NM[:, m - 1]).all()
            if target.aggregate == "days":
                more = target.horizon_days - targets[m - 1].horizon_days
                assert (found.mean_NM[:, m] <= found.mean_NM[:, m - 1] + more + 1e-9).all()


def test_horizons_that_contradict_each_other_meet_in_the_middle_and_what_rises_stays() -> None:
    spec = spec_of(SUMS[:2], horizons=(1, 7, 28))
    found = coherent(Distribution.point(np.array([[1.0, 5.0, 9.0, 4.0, 2.0, 6.0]])), spec)
    assert found.point_NM.tolist() == [[1, 5, 9, 3, 3, 6]]
    np.testing.assert_array_equal(found.mean_NM, found.point_NM)
    assert len(coherent(found[:0], spec)) == 0


def test_levels_that_differ_in_their_last_digit_do_not_cross_when_rounded() -> None:
    """Averages of 6 and 7 in two orders of adding: 6.5 + 9e-16 and 6.5, which round to 7 and 6."""
    level_GNM = np.full((len(LEVELS), 1, 1), 6.5)
    level_GNM[::2] += 9e-16
    before = Distribution(level_GNM[MEDIAN], level_GNM[MEDIAN], np.zeros((1, 1)), level_GNM)
    assert (np.diff(np.round(before.level_GNM), axis=0) < 0).any()
    found = coherent(before, spec_of(DAYS[:1]))
    assert (np.diff(found.level_GNM, axis=0) >= 0).all()
    assert found.point_NM[0, 0] in (6, 7)


def test_totals_of_pairs_by_other_forecasters_are_brought_in_order() -> None:
    """6,345 clicks by last week on 56 impressions by the network."""
    point_NM = np.array([[56.0, 6345.0, 7.0], [0.0, 3.0, 0.0], [10.0, 5.0, 2.0]])
    found = coherent(Distribution.point(point_NM), spec_of(SUMS[:3], PAIRS))
    assert found.point_NM.tolist() == [[56, 56, 7], [0, 0, 0], [10, 5, 2]]
    np.testing.assert_array_equal(found.mean_NM, found.point_NM)
    np.testing.assert_array_equal(found.level_GNM[0], found.point_NM)
    assert found.p_zero_NM[1].tolist() == [1, 1, 1]


def test_a_pair_holds_through_a_metric_that_is_no_task() -> None:
    tasks = (SUMS[2], SUMS[0])
    assert larger_targets(targets_of(tasks, [7]), PAIRS) == [[1], []]
    found = coherent(Distribution.point(np.array([[5.0, 2.0]])), spec_of(tasks, PAIRS))
    assert found.point_NM.tolist() == [[2, 2]]


def test_a_day_of_anything_is_an_active_day() -> None:
    found = coherent(Distribution.point(np.array([[2.0, 5.0, 8.0]])), spec_of((*DAYS, SUMS[1])))
    assert found.point_NM.tolist() == [[2, 2, 8]]


def test_days_are_whole_in_the_point_too() -> None:
    tasks = (SUMS[3], DAYS[0])
    found = coherent(Distribution.point(np.array([[9.0, 3.4], [9.0, 0.4], [0.0, 7.6]])), spec_of(tasks))
    assert found.point_NM.tolist() == [[9, 3], [0, 0], [0, 7]]


def test_without_active_days_each_days_task_binds_its_own_metric() -> None:
    tasks = (SUMS[3], SUMS[1], Task("spend_days", "spend", "days"))
    before = some(np.random.default_rng(3), 40, 3)
    found = coherent(before, spec_of(tasks))
    assert (found.level_GNM[:, :, 0][found.level_GNM[:, :, 2] == 0] == 0).all()
    np.testing.assert_array_equal(found.level_GNM[:, :, 1], before.level_GNM[:, :, 1])


def test_pairs_bind_what_is_published_and_no_model_that_was_learned_before_them() -> None:
    """A champion trained before a pair was declared goes on serving, and the pair holds."""
    old, new = spec_of(SUMS), spec_of(SUMS, PAIRS)
    assert old == new
    assert SequenceSpec.from_dict(new.to_dict()).not_above == PAIRS
    stored = {key: value for key, value in old.to_dict().items() if key != "not_above"}
    assert SequenceSpec.from_dict(stored) == new
    with pytest.raises(ValueError, match='not_above: "taps" is not one of impressions'):
        spec_of(SUMS, (("taps", "clicks"),))
