"""The error that a forecast expects, from what is published of it, beside that of its whole distribution."""

from __future__ import annotations

import numpy as np
import pytest

from m2m_model.arrays import Floats
from m2m_model.forecasts.distribution import Distribution, decode
from m2m_model.forecasts.expected import expected_error
from m2m_model.levels import LEVELS


def forecasts(draw_XN: Floats) -> Distribution:
    """Distributions of which these are draws, with the points that would be published."""
    level_GNM = np.quantile(draw_XN, LEVELS, axis=0)[:, :, None]
    mean_NM, p_zero_NM = draw_XN.mean(0)[:, None], (draw_XN == 0).mean(0)[:, None]
    return decode(
        Distribution(level_GNM[20], mean_NM, p_zero_NM, np.where(LEVELS[:, None, None] <= p_zero_NM, 0.0, level_GNM))
    )


def worlds() -> dict[str, Floats]:
    random = np.random.default_rng(1)
    size_N = np.exp(random.normal(3, 1.5, 200))
    shape = (4000, 200)
    heavy = np.exp(random.normal(0, 1.2, shape)) * size_N
    return {
        "lognormal": np.exp(random.normal(0, 0.6, shape)) * size_N,
        "heavy, a third zero": np.where(random.random(shape) < 0.33, 0.0, heavy),
        "two thirds zero": np.where(random.random(shape) < 0.67, 0.0, heavy),
        "days of a week": random.binomial(7, random.random(200), shape).astype(float),
        "few orders": random.poisson(random.random(200) * 3, shape).astype(float),
    }


# Between whole numbers the published levels leave open how much lies where.
@pytest.mark.parametrize(
    ("name", "within"), [(name, 0.16 if name in ("days of a week", "few orders") else 0.05) for name in worlds()]
)
def test_the_expected_nmae_is_that_of_the_draws(name: str, within: float) -> None:
    draw_XN = worlds()[name]
    made = forecasts(draw_XN)
    point_N = made.point_NM[:, 0]
    expected_N = expected_error(point_N, made.mean_NM[:, 0], made.p_zero_NM[:, 0], [q[:, 0] for q in made.quantiles])
    true = np.abs(draw_XN - point_N).mean(0).sum() / draw_XN.mean(0).sum()
    assert expected_N.sum() / made.mean_NM.sum() == pytest.approx(true, rel=within)
    assert (expected_N >= np.abs(made.mean_NM[:, 0] - point_N) - 1e-9).all()  # Jensen


@pytest.mark.parametrize("point", [0.0, 3.0, 12.0, 500.0])
def test_any_point_has_its_error_even_far_beyond_the_quantiles(point: float) -> None:
    draw_X1 = np.where(np.arange(1000) % 4 == 0, 0.0, np.linspace(1, 20, 1000))[:, None]
    made = forecasts(draw_X1)
    expected = expected_error(
        np.array([point]), made.mean_NM[:, 0], made.p_zero_NM[:, 0], [q[:, 0] for q in made.quantiles]
    )
    assert expected[0] == pytest.approx(np.abs(draw_X1 - point).mean(), rel=0.06)


def test_what_is_certain_expects_no_error_and_nothing_is_not_negative() -> None:
    certain = np.array([0.0, 5.0])
    assert expected_error(certain, certain, (certain == 0).astype(float), [certain] * 5).tolist() == [0, 0]
