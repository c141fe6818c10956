"""The grid of levels on which every distribution is told, from the network's output to the published quantiles."""

from __future__ import annotations

import numpy as np

from m2m_model.arrays import Floats

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # the published ones; all of them are levels of the grid
LEVELS: Floats = np.concatenate([[0.005, 0.01], np.arange(1, 40) / 40, [0.99, 0.995]])
PUBLISHED = tuple(int(np.argmin(np.abs(LEVELS - level))) for level in QUANTILES)
MEDIAN = PUBLISHED[2]
