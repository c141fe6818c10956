"""Values as points of a logarithmic grid: what the network reads of a value is its bin, and all edges of bins lie here.

A point is the exponent of a float32 and the first four bits of its mantissa, 16 points per doubling. So a panel is made
once, before anyone knows the bins, and a bin is looked up. Point 0 is zero (and whatever is below it).
"""

from __future__ import annotations

import numpy as np

from m2m_model.arrays import Floats, Ints

SHIFT = 19  # bits of a float32 that are left out
NOTHING = 0x7F800000 >> SHIFT  # no row, or no value in it: the point after the last
LARGEST = 1e30  # larger values are cut here: float32 sums stay finite


def to_grid(value_x: Floats) -> Ints:
    """The point of each value, int16; NaN is ``NOTHING``."""
    bits_x = np.clip(value_x, 0, LARGEST).astype(np.float32).view(np.uint32) & 0x7FFFFFFF
    return np.asarray(np.minimum(bits_x >> SHIFT, NOTHING).astype(np.int16))


def from_grid(point_x: Ints) -> Floats:
    """The least value of each point, float32."""
    return np.asarray(point_x.astype(np.uint32) << SHIFT).view(np.float32)
