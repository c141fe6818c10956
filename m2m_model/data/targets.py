"""What a window is to forecast: task totals over each horizon after its cutoff. M targets."""

from __future__ import annotations

import numpy as np

from m2m_model.arrays import Floats, Ints
from m2m_model.data.panel import Panel


def targets_Nm(panel: Panel, cutoff: int, series: Ints | None = None) -> Floats:
    """Task totals over the days cutoff+1 .. cutoff+h of each target's h, float64.

    Raises:
        ValueError: the longest horizon ends after the panel.
    """
    end = cutoff + 1 + panel.spec.horizon_days
    if not 0 <= cutoff < end <= panel.days:
        raise ValueError(
            f"cutoff {panel.day_of(cutoff)}: its horizon must lie in {panel.first_day} .. {panel.last_day}"
        )
    block_NHM = panel.daily_NTM[slice(None) if series is None else series, cutoff + 1 : end]
    return panel.spec.by_horizon(lambda days: np.asarray(block_NHM[:, :days].sum(1, dtype=np.float64)))


def targets_at(panel: Panel, series_X: Ints, cutoff_X: Ints) -> Floats:
    """``targets_Nm`` for windows with cutoffs of their own."""
    day_XH = cutoff_X[:, None] + 1 + np.arange(panel.spec.horizon_days)
    block_XHM = panel.daily_NTM[series_X[:, None], day_XH]
    return panel.spec.by_horizon(lambda days: np.asarray(block_XHM[:, :days].sum(1, dtype=np.float64)))
