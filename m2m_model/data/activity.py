"""How steadily a series is active, and how large it is: what its intervals are learned from and judged by. N series, M
targets."""

from __future__ import annotations

import numpy as np

from m2m_model.arrays import Floats, Ints
from m2m_model.data.panel import Panel
from m2m_model.data.served_by import COLD_START_DAYS, history_days

ACTIVITY_DAYS = 28
HABIT_DAYS = 14  # a younger series counts as this old: one active day out of one is no habit
EDGES = (0.1, 0.25, 0.5, 0.75)  # of the share of active days; the last group is active nearly every day
GROUPS = len(EDGES) + 2
YOUNG = 0  # the group of those too young to have a habit
SIZE_EDGES = (0.1, 1.0)  # of the recent level over the mean series of training: small, middle, large


def activity_NM(panel: Panel, day: int, series: Ints) -> Ints:
    """The group of each series and target: 0 = under COLD_START_DAYS of history, 1 = hardly ever active .. ``GROUPS`` -
    1 = nearly every day, by its share of days above 0 among the last ``ACTIVITY_DAYS`` registered ones. Reads nothing
    after ``day`` (an index in T)."""
    group_NM = _activity_NM(_recent_NTM(panel, day, series), history_days(panel, day)[series])
    return panel.spec.by_horizon(lambda days: group_NM)


def stratum_NM(panel: Panel, day: int, series: Ints, scale_M: Floats) -> Ints:
    """A code of activity and size: 10 x the activity group + size (1 = small .. 3 = large). ``scale_M`` is the mean
    series' total over a horizon, as in ``Inputs.target_scales``."""
    recent_NTM, age_N = _recent_NTM(panel, day, series), history_days(panel, day)[series]
    rate_NM, group_NM = recent_NTM.sum(1) / np.clip(age_N[:, None], 1, ACTIVITY_DAYS), _activity_NM(recent_NTM, age_N)
    level_NM = panel.spec.by_horizon(lambda days: rate_NM * days)
    active_NM = panel.spec.by_horizon(lambda days: group_NM)
    return np.asarray(10 * active_NM + 1 + np.digitize(level_NM / scale_M, SIZE_EDGES))


def stratum_name(code: int) -> str:
    """What a code of ``stratum_NM`` says, for people."""
    active, size = divmod(code, 10)
    bounds = [0, *(round(100 * edge) for edge in EDGES), 100]
    habit = f"{bounds[active - 1]}..{bounds[active]} % of days" if active else f"under {COLD_START_DAYS} days old"
    return f"{habit}, {('small', 'middle', 'large')[size - 1]}"


def _recent_NTM(panel: Panel, day: int, series: Ints) -> Floats:
    return np.asarray(panel.daily_NTM[series, max(0, day + 1 - ACTIVITY_DAYS) : day + 1], np.float64)


def _activity_NM(recent_NTM: Floats, age_N: Ints) -> Ints:
    age_N1 = age_N[:, None]
    share_NM = (recent_NTM > 0).sum(1) / np.clip(age_N1, HABIT_DAYS, ACTIVITY_DAYS)
    return np.where(age_N1 < COLD_START_DAYS, 0, 1 + np.digitize(share_NM, EDGES))
