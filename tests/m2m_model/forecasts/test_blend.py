import json

import numpy as np

from m2m_model.forecasts.blend import Blend, Share
from m2m_model.forecasts.distribution import Distribution
from m2m_model.forecasts.methods import without_weight

RNG = np.random.default_rng(0)
ROWS, CUTOFFS = 1200, 4
CUTOFF_N = np.arange(ROWS) % CUTOFFS
SCENARIO_N = np.where(np.arange(ROWS) % 2 == 0, "a", "b").astype(object)
ACTUAL_NM = RNG.gamma(2, 5, (ROWS, 1))


def noisy(deviation: float, bias_N: np.ndarray | float = 1.0) -> np.ndarray:
    return np.maximum(ACTUAL_NM * np.reshape(bias_N, (-1, 1)) + RNG.normal(0, deviation, (ROWS, 1)), 0)


def test_a_better_network_serves_alone_and_a_worse_one_not_at_all() -> None:
    good, poor = noisy(1.0), noisy(8.0)
    assert Blend.fit(good, {"x": poor}, ACTUAL_NM, SCENARIO_N, CUTOFF_N).tasks[0].network >= 0.9
    assert Blend.fit(poor, {"x": good}, ACTUAL_NM, SCENARIO_N, CUTOFF_N).tasks[0].network <= 0.1


def test_the_anchor_is_what_validation_would_have_chosen() -> None:
    found = Blend.fit(noisy(8.0), {"far": noisy(6.0), "near": noisy(1.0)}, ACTUAL_NM, SCENARIO_N, CUTOFF_N)
    assert found.tasks[0].anchor == "near"
    assert found.anchors == ("near",)


def test_a_gain_on_one_cutoff_out_of_four_is_not_believed() -> None:
    steady = noisy(2.0, 1.2)
    lucky = noisy(2.0, np.where(CUTOFF_N == 0, 1.0, 1.22))
    assert Blend.fit(lucky, {"x": steady}, ACTUAL_NM, np.full(ROWS, "a", object), CUTOFF_N).tasks[0].network <= 0.5


def test_of_equal_absolute_errors_the_one_that_says_zero_serves() -> None:
    actual_NM = np.where(RNG.random((ROWS, 1)) < 0.6, 0.0, 10.0)
    says_zero = np.where(actual_NM == 0, 0.0, 8.0)
    never_zero = np.where(actual_NM == 0, 0.5, 9.0)
    one_place = np.full(ROWS, "a", object)
    assert Blend.fit(says_zero, {"x": never_zero}, actual_NM, one_place, CUTOFF_N).tasks[0].network >= 0.5
    far_off = np.where(actual_NM == 0, 0.0, 2.0)
    assert Blend.fit(far_off, {"x": never_zero}, actual_NM, one_place, CUTOFF_N).tasks[0].network == 0


def test_few_rows_of_one_cutoff_are_believed_less_than_many() -> None:
    network, anchor, first = noisy(2.0, 1.05), noisy(2.0, 1.2), np.zeros(ROWS)
    one_place = np.full(ROWS, "a", object)
    many = Blend.fit(network, {"x": anchor}, ACTUAL_NM, one_place, first)
    few = Blend.fit(network[:12], {"x": anchor[:12]}, ACTUAL_NM[:12], one_place[:12], first[:12])
    assert few.tasks[0].network <= 0.4 < 0.6 <= many.tasks[0].network


def test_each_large_scenario_has_its_own_share() -> None:
    in_a = (SCENARIO_N == "a")[:, None]
    network = np.where(in_a, noisy(1.0), noisy(9.0))
    found = Blend.fit(network, {"x": noisy(4.0)}, ACTUAL_NM, SCENARIO_N, CUTOFF_N)
    assert found.scenarios["a"][0].network >= 0.8
    assert found.scenarios["b"][0].network <= 0.3


def test_a_scenario_where_nothing_is_sure_keeps_to_what_serves_all() -> None:
    """Nearly nothing happens in b: no forecast surely wins there, and last week's luck must not be served."""
    in_b = (SCENARIO_N == "b")[:, None]
    rare = np.where(RNG.random((ROWS, 1)) < 0.03, 10.0, 0.0)
    actual_NM = np.where(in_b, rare, ACTUAL_NM)
    network = np.where(in_b, 0.0, noisy(1.0))
    elsewhere = np.where(RNG.random((ROWS, 1)) < 0.02, 10.0, 0.0)
    lucky = np.where((CUTOFF_N == 0)[:, None], rare, elsewhere)  # right on one cutoff, and wrong on three
    anchor = np.where(in_b, lucky, noisy(4.0))
    found = Blend.fit(network, {"x": anchor}, actual_NM, SCENARIO_N, CUTOFF_N)
    assert found.tasks[0].network >= 0.9
    assert found.scenarios == {}


def test_without_the_network_the_anchor_comes_back_whole() -> None:
    anchor = Distribution.point(noisy(1.0))
    found = Blend.fit(noisy(20.0), {"x": anchor.point_NM}, ACTUAL_NM, SCENARIO_N, CUTOFF_N)
    served = found.apply(Distribution.point(np.zeros((ROWS, 1))), {"x": anchor}, SCENARIO_N)
    np.testing.assert_allclose(served.point_NM, anchor.point_NM)
    np.testing.assert_allclose(served.level_GNM, anchor.level_GNM)


def test_survives_json() -> None:
    found = Blend.fit(noisy(3.0), {"x": noisy(3.0)}, ACTUAL_NM, SCENARIO_N, CUTOFF_N)
    assert Blend.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_a_row_is_named_after_who_makes_it() -> None:
    cells = {"a": (Share("last_h_days", 0.0), Share("tsb", 1.0), Share("cold_start", 0.0))}
    found = Blend((Share("mean_28", 0.4), Share("mean_28", 0.7), Share("cold_start", 0.5)), cells)
    method_NM = found.methods(np.array(["a", "b", "unseen"], object))
    others = ["blend:mean_28@0.4", "blend:mean_28@0.7", "blend:cold_start@0.5"]
    assert method_NM.tolist() == [["baseline:last_h_days", "m2m", "cold_start"], others, others]
    assert [without_weight(name) for name in method_NM[0]] == method_NM[0].tolist()
    assert [without_weight(name) for name in others] == ["blend:mean_28", "blend:mean_28", "blend:cold_start"]


def test_days_are_judged_as_they_are_published() -> None:
    """Of 3 by the network and 2 by the anchor a part of 0.6 is published as 3, and is right where the actual is 3."""
    network, anchor, actual = np.full((ROWS, 1), 3.0), np.full((ROWS, 1), 2.0), np.full((ROWS, 1), 3.0)
    rounded = Blend.fit(network, {"x": anchor}, actual, SCENARIO_N, CUTOFF_N, [True])
    assert rounded.tasks[0].network == 0.6
    assert Blend.fit(network, {"x": anchor}, actual, SCENARIO_N, CUTOFF_N).tasks[0].network == 1


def test_a_learned_baseline_is_the_anchor_where_it_surely_wins() -> None:
    one_place = np.full(ROWS, "a", object)
    rows = ({"x": noisy(4.0)}, ACTUAL_NM, one_place, CUTOFF_N)
    better = Blend.fit(noisy(8.0), *rows, learned={"far": noisy(6.0), "near": noisy(1.0)})
    assert (better.tasks[0].anchor, better.targets_with("near"), better.targets_with("far")) == (
        "near",
        {0},
        frozenset(),
    )
    assert better.tasks[0].network <= 0.1
    alike = Blend.fit(noisy(8.0), *rows, learned={"near": noisy(3.99)})
    assert alike.tasks[0].anchor == "x"  # as good is not enough: it would have to be kept and loaded
    lucky = noisy(4.0, np.where(CUTOFF_N == 0, 1.0, 1.3))
    assert Blend.fit(noisy(9.0), *rows, learned={"near": lucky}).tasks[0].anchor == "x"


def test_where_the_network_alone_serves_no_learned_baseline_is_kept() -> None:
    found = Blend.fit(noisy(0.1), {"x": noisy(6.0)}, ACTUAL_NM, SCENARIO_N, CUTOFF_N, learned={"near": noisy(5.0)})
    assert found.tasks[0].method == "m2m"
    assert found.anchors == ()


def test_of_learned_baselines_no_nmae_is_bought_with_zeros() -> None:
    """A little less absolute error, and no zero said any more."""
    actual_NM = np.where(RNG.random((ROWS, 1)) < 0.6, 0.0, 10.0)
    says_zero, never_zero = np.where(actual_NM == 0, 0.0, 8.0), np.where(actual_NM == 0, 0.1, 8.3)
    one_place = np.full(ROWS, "a", object)
    found = Blend.fit(noisy(30.0), {"x": says_zero}, actual_NM, one_place, CUTOFF_N, learned={"near": never_zero})
    assert found.tasks[0].anchor == "x"
