"""What must hold within and between the tasks of one series, whatever made the figures. N series, M tasks, G levels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from m2m_model.arrays import Floats
from m2m_model.config import ACTIVE, Task
from m2m_model.data.spec import SequenceSpec
from m2m_model.forecasts.distribution import Distribution, uncrossed, zero_below
from m2m_model.levels import LEVELS

_EDGE: Floats = np.concatenate([[0.0], LEVELS, [1.0]])


def coherent(distribution: Distribution, spec: SequenceSpec) -> Distribution:
    """The same where each holds in the point, the mean, the zero mass and at each level: quantiles do not cross; days
    are whole and at most the horizon; without an active day there is no total; what is not above another metric
    (``not_above``, and a day of anything is an active day) is not above it here.

    Without a task of ``metric = active``, each ``days`` task binds the sum of its own metric. Of two figures that
    contradict each other the smaller is believed.
    """
    tasks, horizon_days = spec.tasks, spec.horizon_days
    # Averages of equal levels differ in their last digit, which rounding to whole days would make a day.
    level_GNM = uncrossed(np.maximum(distribution.level_GNM, 0))
    p_zero_NM, mean_NM, point_NM = (
        figure_NM.copy() for figure_NM in (distribution.p_zero_NM, distribution.mean_NM, distribution.point_NM)
    )
    for m in (m for m, task in enumerate(tasks) if task.aggregate == "days"):
        level_GNM[:, :, m] = np.round(np.minimum(level_GNM[:, :, m], horizon_days))
        point_NM[:, m] = np.round(np.clip(point_NM[:, m], 0, horizon_days))
        mean_NM[:, m] = np.clip(mean_NM[:, m], 0, horizon_days)
        # Rounding decides what zero is: the mass that the whole numbers leave to it.
        count_N = (level_GNM[:, :, m] == 0).sum(0)
        p_zero_NM[:, m] = np.clip(p_zero_NM[:, m], _EDGE[count_N], _EDGE[np.minimum(count_N + 1, len(_EDGE) - 1)])
    larger = larger_tasks(tasks, spec.not_above)
    # Days before the sums that they bind, and of each kind the larger first: what one bound changes, the next one sees.
    # Twice, for two metrics that are each declared not to be above the other.
    for m in 2 * sorted(range(len(tasks)), key=lambda m: (tasks[m].aggregate == "sum", len(larger[m]))):
        for k in larger[m]:
            for figure_xM in (level_GNM, mean_NM, point_NM):
                figure_xM[..., m] = np.minimum(figure_xM[..., m], figure_xM[..., k])
            p_zero_NM[:, m] = np.maximum(p_zero_NM[:, m], p_zero_NM[:, k])
        if tasks[m].aggregate == "sum":
            for k in binding_days(tasks, m):
                p_zero_NM[:, m] = np.maximum(p_zero_NM[:, m], p_zero_NM[:, k])
                for figure_NM in (mean_NM, point_NM):
                    figure_NM[figure_NM[:, k] == 0, m] = 0
    return Distribution(point_NM, mean_NM, p_zero_NM, zero_below(p_zero_NM, level_GNM))


def binding_days(tasks: Sequence[Task], m: int) -> list[int]:
    """The ``days`` tasks whose zero is a zero of this sum: of active days, or of its own metric."""
    return [k for k, task in enumerate(tasks) if task.aggregate == "days" and task.metric in (ACTIVE, tasks[m].metric)]


def larger_tasks(tasks: Sequence[Task], not_above: Iterable[tuple[str, str]]) -> list[list[int]]:
    """For each task, those whose total it is not above: the same aggregate, of a metric that its own is not above."""
    above: dict[str, set[str]] = {}
    for small, large in not_above:
        above.setdefault(small, set()).add(large)
    for _ in above:  # what is not above b is not above what b is not above; a chain has no more links than metrics
        for found in above.values():
            found |= {larger for middle in found for larger in above.get(middle, ())}
    return [
        [
            k
            for k, other in enumerate(tasks)
            if other.aggregate == task.aggregate
            and other.metric != task.metric
            and (other.metric == ACTIVE or other.metric in above.get(task.metric, ()))
        ]
        for task in tasks
    ]
