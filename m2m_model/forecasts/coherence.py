"""What must hold within and between the targets of one series, whatever made the figures.

N series, M targets, G levels, H horizons, x any axes, k tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from m2m_model.arrays import Floats
from m2m_model.config import ACTIVE
from m2m_model.data.spec import SequenceSpec, Target
from m2m_model.forecasts.distribution import Distribution, uncrossed, zero_below
from m2m_model.levels import LEVELS

_EDGE: Floats = np.concatenate([[0.0], LEVELS, [1.0]])


def coherent(distribution: Distribution, spec: SequenceSpec) -> Distribution:
    """The same where each holds in the point, the mean, the zero mass and at each level: quantiles do not cross; a
    longer horizon has no less; days are whole and at most the horizon, and a longer horizon expects no more of
    them than it has days more; without an active day there is no total; what is
    not above another metric (``not_above``, and a day of anything is an active day) is not above it here.

    Without a task of ``metric = active``, each ``days`` task binds the sum of its own metric. Of two figures that
    contradict each other the smaller is believed; of two horizons, neither.
    """
    targets = spec.targets
    # Averages of equal levels differ in their last digit, which rounding to whole days would make a day.
    level_GNM = uncrossed(np.maximum(distribution.level_GNM, 0))
    p_zero_NM, mean_NM, point_NM = (
        figure_NM.copy() for figure_NM in (distribution.p_zero_NM, distribution.mean_NM, distribution.point_NM)
    )
    if (horizons := len(spec.horizons_days)) > 1:
        # First: each rule below treats all horizons of a task alike, so that what rises goes on rising.
        level_GNM, mean_NM, point_NM = (rising(figure_xM, horizons) for figure_xM in (level_GNM, mean_NM, point_NM))
        p_zero_NM = 1 - rising(1 - p_zero_NM, horizons)
    for m in reversed(range(len(targets))):
        target = targets[m]
        if target.aggregate != "days":
            continue
        most = target.horizon_days
        level_GNM[:, :, m] = np.round(np.minimum(level_GNM[:, :, m], most))
        point_NM[:, m] = np.round(np.clip(point_NM[:, m], 0, most))
        mean_NM[:, m] = np.clip(mean_NM[:, m], 0, most)
        if (m + 1) % horizons:
            mean_NM[:, m] = np.maximum(mean_NM[:, m], mean_NM[:, m + 1] - (targets[m + 1].horizon_days - most))
        # Rounding decides what zero is: the mass that the whole numbers leave to it.
        count_N = (level_GNM[:, :, m] == 0).sum(0)
        p_zero_NM[:, m] = np.clip(p_zero_NM[:, m], _EDGE[count_N], _EDGE[np.minimum(count_N + 1, len(_EDGE) - 1)])
    larger = larger_targets(targets, spec.not_above)
    # Days before the sums that they bind, and of each kind the larger first: what one bound changes, the next one sees.
    # Twice, for two metrics that are each declared not to be above the other.
    for m in 2 * sorted(range(len(targets)), key=lambda m: (targets[m].aggregate == "sum", len(larger[m]))):
        for k in larger[m]:
            for figure_xM in (level_GNM, mean_NM, point_NM):
                figure_xM[..., m] = np.minimum(figure_xM[..., m], figure_xM[..., k])
            p_zero_NM[:, m] = np.maximum(p_zero_NM[:, m], p_zero_NM[:, k])
        if targets[m].aggregate == "sum":
            for k in binding_days(targets, m):
                p_zero_NM[:, m] = np.maximum(p_zero_NM[:, m], p_zero_NM[:, k])
                for figure_NM in (mean_NM, point_NM):
                    figure_NM[figure_NM[:, k] == 0, m] = 0
    return Distribution(point_NM, mean_NM, p_zero_NM, zero_below(p_zero_NM, level_GNM))


def rising(figure_xM: Floats, horizons: int) -> Floats:
    """The same where a longer horizon of a task has no less: in the middle between the least that rises and is never
    below the figures, and the most that rises and is never above them."""
    figure_xkH = figure_xM.reshape(*figure_xM.shape[:-1], figure_xM.shape[-1] // horizons, horizons)
    if not (figure_xkH[..., 1:] < figure_xkH[..., :-1]).any():
        return figure_xM
    above_xkH = np.maximum.accumulate(figure_xkH, -1)
    below_xkH = np.minimum.accumulate(figure_xkH[..., ::-1], -1)[..., ::-1]
    # The sum of two that are equal is not changed by halving it: what rose already stays as it is.
    return np.asarray(((above_xkH + below_xkH) / 2).reshape(figure_xM.shape))


def binding_days(targets: Sequence[Target], m: int) -> list[int]:
    """The ``days`` targets whose zero is a zero of this sum: of active days, or of its own metric, over its horizon."""
    return [
        k
        for k, target in enumerate(targets)
        if target.aggregate == "days"
        and target.horizon_days == targets[m].horizon_days
        and target.metric in (ACTIVE, targets[m].metric)
    ]


def larger_targets(targets: Sequence[Target], not_above: Iterable[tuple[str, str]]) -> list[list[int]]:
    """For each target, those that it is not above: the same aggregate over the same horizon, of a metric that its own
    is not above."""
    above: dict[str, set[str]] = {}
    for small, large in not_above:
        above.setdefault(small, set()).add(large)
    for _ in above:  # what is not above b is not above what b is not above; a chain has no more links than metrics
        for found in above.values():
            found |= {larger for middle in found for larger in above.get(middle, ())}
    return [
        [
            k
            for k, other in enumerate(targets)
            if other.aggregate == target.aggregate
            and other.horizon_days == target.horizon_days
            and other.metric != target.metric
            and (other.metric == ACTIVE or other.metric in above.get(target.metric, ()))
        ]
        for target in targets
    ]
