import numpy as np

from m2m_model.forecasts.distribution import Distribution, decode, levels_of, pool
from m2m_model.levels import LEVELS, MEDIAN, QUANTILES


def some(seed: int, rows: int = 40) -> Distribution:
    """Zero-inflated, continuous above; each task on its own."""
    rng = np.random.default_rng(seed)
    p_zero_NM = rng.random((rows, 3))
    inner = np.clip((LEVELS[:, None, None] - p_zero_NM) / (1 - p_zero_NM), 0, 0.999)
    level_GNM = -np.log(1 - inner) * rng.gamma(1, 5, (rows, 3))
    return Distribution(level_GNM[MEDIAN], level_GNM.mean(0), p_zero_NM, level_GNM)


def test_published_quantiles_are_levels_of_the_grid() -> None:
    assert np.isin(np.round(QUANTILES, 9), np.round(LEVELS, 9)).all()
    spread = some(0)
    np.testing.assert_array_equal(spread.median_NM, spread.level_GNM[MEDIAN])
    assert (np.diff(np.stack(spread.quantiles), axis=0) >= 0).all()


def test_decoding_calls_a_likely_zero_zero_and_gives_little_absolute_error_away() -> None:
    spread = some(1, 400)
    found = decode(spread)
    assert (found.point_NM[spread.p_zero_NM > 0.55] == 0).all()
    assert (found.point_NM[spread.p_zero_NM < 0.3] > 0).all()
    sample_GNM = spread.level_GNM[2:-2]
    error_NM, least_NM = (np.abs(sample_GNM - point_NM).mean(0) for point_NM in (found.point_NM, spread.median_NM))
    assert (error_NM <= 1.06 * least_NM + 1e-6).all()

    def smape(point_NM: np.ndarray) -> float:
        size = sample_GNM + point_NM
        return float(np.divide(2 * np.abs(sample_GNM - point_NM), size, out=np.zeros_like(size), where=size > 0).mean())

    assert smape(found.point_NM) < smape(spread.median_NM)


def test_a_pool_of_one_is_itself_and_of_two_lies_between() -> None:
    one, other = some(1), some(2)
    ones, zeros = np.ones((40, 3)), np.zeros((40, 3))
    alone = pool([one, other], np.stack([ones, zeros]))
    np.testing.assert_allclose(alone.level_GNM, one.level_GNM)
    half = pool([one, other], np.stack([ones / 2, ones / 2]))
    low, high = np.minimum(one.level_GNM, other.level_GNM), np.maximum(one.level_GNM, other.level_GNM)
    assert (half.level_GNM <= high + 1e-9).all()
    assert ((half.level_GNM >= low - 1e-9) | (half.level_GNM == 0)).all()
    np.testing.assert_allclose(half.p_zero_NM, (one.p_zero_NM + other.p_zero_NM) / 2)
    assert (np.diff(half.level_GNM, axis=0) >= 0).all()


def test_levels_of_actuals_on_a_literal_distribution() -> None:
    # 40 % zero, then uniform over 0..10.
    level_GNM = np.clip((LEVELS - 0.4) / 0.6, 0, 1)[:, None, None] * 10
    spread = Distribution(level_GNM[MEDIAN], level_GNM.mean(0), np.array([[0.4]]), level_GNM)
    low, high = levels_of(spread, np.array([[0.0]]))
    assert (low[0, 0], high[0, 0]) == (0.0, 0.4)
    low, high = levels_of(spread, np.array([[5.1]]))
    assert low[0, 0] < 0.4 + 0.6 * 0.51 < high[0, 0]
    low, high = levels_of(spread, np.array([[11.0]]))
    assert low[0, 0] >= 0.99
    assert high[0, 0] == 1.0
