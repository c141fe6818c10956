"""How steadily a series is active: what its intervals are learned from and judged by. N series, M tasks."""

from __future__ import annotations

import numpy as np

from m2m_model.arrays import Ints
from m2m_model.data.panel import Panel
from m2m_model.data.served_by import history_days
from m2m_model.data.spec import daily_totals

ACTIVITY_DAYS = 28
HABIT_DAYS = 14  # a younger series counts as this old: one active day out of one is no habit
EDGES = (0.1, 0.25, 0.5, 0.75)  # of the share of active days; the last group is active nearly every day
GROUPS = len(EDGES) + 1


def activity_NM(panel: Panel, day: int, series: Ints) -> Ints:
    """The group of each series and task, 0 = hardly ever active .. ``GROUPS`` - 1, by its share of days above 0 among
    the last ``ACTIVITY_DAYS`` registered ones. Reads nothing after ``day`` (an index in T)."""
    recent_NTP = panel.performance_NTP[:, max(0, day + 1 - ACTIVITY_DAYS) : day + 1][series]
    age_N1 = np.clip(history_days(panel, day)[series, None], HABIT_DAYS, ACTIVITY_DAYS)
    return np.asarray(np.digitize((daily_totals(recent_NTP, panel.spec) > 0).sum(1) / age_N1, EDGES))
