"""The error that a forecast expects of itself, from what is published of it: no actual is needed.

E|Y - p| = E[Y] - p + 2 E[(p - Y)+], and E[(p - Y)+] is the integral of Y's distribution function up to p. The point p
mostly lies among the published quantiles, where that function is known well; what is above them counts through the mean
alone, which is published too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m2m_model.arrays import Floats
from m2m_model.levels import QUANTILES


def expected_error(point_x: Floats, mean_x: Floats, p_zero_x: Floats, quantiles: Sequence[Floats]) -> Floats:
    """E|Y - p| of each forecast; ``quantiles`` in the order of ``QUANTILES``. Between known levels the distribution
    function is a straight line; what is below the first ends within twice the way from it to the next."""
    at_x, (first_x, second_x) = np.asarray(p_zero_x, np.float64), quantiles[:2]
    low_x = np.where(at_x < QUANTILES[0], np.maximum(first_x - 2 * (second_x - first_x), 0), 0.0)
    below_x = at_x * np.minimum(low_x, point_x)
    for level, quantile_x in zip(QUANTILES, quantiles, strict=True):
        high_x, to_x = np.maximum(quantile_x, low_x), np.maximum(level, at_x)
        below_x += _under(point_x - low_x, high_x - low_x, at_x, to_x)
        low_x, at_x = high_x, np.where(high_x > 0, to_x, at_x)
    beyond_x = np.maximum(point_x - low_x, 0)
    below_x += beyond_x * (1 + at_x) / 2
    return np.asarray(np.maximum(mean_x - point_x + 2 * below_x, np.abs(mean_x - point_x)))


def _under(wanted_x: Floats, width_x: Floats, from_x: Floats, to_x: Floats) -> Floats:
    """The area under a line from ``from_x`` to ``to_x`` over ``width_x``, of its first ``wanted_x`` alone."""
    taken_x = np.clip(wanted_x, 0, width_x)
    slope_x = np.divide(to_x - from_x, width_x, out=np.zeros_like(width_x), where=width_x > 0)
    return np.asarray(taken_x * (from_x + slope_x * taken_x / 2))
