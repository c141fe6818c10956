"""What must hold between the tasks of one series."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m2m_model.config import ACTIVE, Task
from m2m_model.forecasts.distribution import Distribution, zero_below
from m2m_model.levels import LEVELS


def coherent(distribution: Distribution, tasks: Sequence[Task], horizon_days: int) -> Distribution:
    """What must hold between tasks: no active day means no total, and days are whole and at most the horizon.

    At each level, active days of 0 imply a total of 0: the zero mass of ``metric = active`` is the least of any sum's.
    Without such a task, each ``days`` task binds the sum of its own metric.
    """
    p_zero_NM, level_GNM = distribution.p_zero_NM.copy(), distribution.level_GNM.copy()
    mean_NM, point_NM = distribution.mean_NM.copy(), distribution.point_NM.copy()
    for m, task in enumerate(tasks):
        if task.aggregate == "days":
            level_GNM[:, :, m] = np.round(np.clip(level_GNM[:, :, m], 0, horizon_days))
            mean_NM[:, m] = np.clip(mean_NM[:, m], 0, horizon_days)
            point_NM[:, m] = np.clip(point_NM[:, m], 0, horizon_days)
            # Rounding decides what zero is: the mass that the whole numbers leave to it.
            count_N = (level_GNM[:, :, m] == 0).sum(0)
            edge = np.concatenate([[0.0], LEVELS, [1.0]])
            p_zero_NM[:, m] = np.clip(p_zero_NM[:, m], edge[count_N], edge[np.minimum(count_N + 1, len(edge) - 1)])
    for m, task in enumerate(tasks):
        binding = [
            k
            for k, other in enumerate(tasks)
            if other.aggregate == "days" and other is not task and other.metric in (ACTIVE, task.metric)
        ]
        if binding:
            p_zero_NM[:, m] = np.maximum(p_zero_NM[:, m], p_zero_NM[:, binding].max(1))
            point_NM[(point_NM[:, binding] == 0).any(1), m] = 0
    return Distribution(point_NM, mean_NM, p_zero_NM, zero_below(p_zero_NM, level_GNM))
