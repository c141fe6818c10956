from datetime import date

import numpy as np
import pyarrow as pa

from m2m_model.config import Task
from m2m_model.data.activity import GROUPS, activity_NM, stratum_name, stratum_NM
from m2m_model.data.panel import Panel
from m2m_model.data.spec import SequenceSpec

DAYS = 60
SPEC = SequenceSpec(
    ("views", "clicks"),
    (),
    (),
    (),
    (Task("clicks", "clicks", "sum"), Task("active_days", "active", "days")),
    (7,),
    28,
)


def panel_of(active_days: list[list[int]], registered: list[int]) -> Panel:
    """Series that click once on the named days, and are shown every day since they registered."""
    performance_NTP = np.full((len(active_days), DAYS, 2), np.nan, np.float32)
    for n, (days, first) in enumerate(zip(active_days, registered, strict=True)):
        performance_NTP[n, max(first, 0) :, 0] = 1
        performance_NTP[n, max(first, 0) :, 1] = 0
        performance_NTP[n, days, 1] = 1
    names = [f"a{n}" for n in range(len(active_days))]
    keys = pa.table({"advertiser_id": names, "scenario_id": ["s"] * len(names)})
    empty = np.zeros((len(names), DAYS, 0), np.float32)
    return Panel.of_values(SPEC, date(2024, 2, 29), performance_NTP, empty, np.array(registered, np.int32), keys)


def test_groups_by_the_share_of_days_above_zero() -> None:
    day, last_28 = 49, range(22, 50)
    habits = [[], [30, 40], list(last_28)[::7], list(last_28)[::2], list(last_28)[:20], list(last_28), [21]]
    panel = panel_of(habits, [-10] * len(habits))
    found_NM = activity_NM(panel, day, np.arange(len(habits)))
    # 0, 2, 4, 14, 20 and 28 of 28 days; and a day that lies 29 days back.
    assert found_NM[:, 0].tolist() == [1, 1, 2, 4, 4, 5, 1]
    assert (found_NM[:, 1] == GROUPS - 1).all()  # shown every day: each task by its own metric


def test_one_day_is_no_habit_and_two_weeks_are() -> None:
    panel = panel_of([[49], [43], [47, 48, 49], list(range(36, 50))], [49, 44, 43, 36])
    # Under a week old, twice; three of seven days, counted as of fourteen; every day.
    assert activity_NM(panel, 49, np.arange(4))[:, 0].tolist() == [0, 0, 2, 5]


def test_nothing_after_the_day_is_read() -> None:
    panel = panel_of([[30, 55], [30]], [-1, -1])
    assert activity_NM(panel, 49, np.arange(2))[:, 0].tolist() == [1, 1]
    assert activity_NM(panel, 3, np.arange(2)).shape == (2, 2)
    assert activity_NM(panel, 49, np.zeros(0, np.int64)).shape == (0, 2)


def test_strata_by_age_activity_and_size() -> None:
    panel = panel_of([[49], [49], list(range(22, 50)), [30]], [48, -1, -1, -1])
    scale_M = np.array([7.0, 7.0])  # a mean series clicks every day
    found = stratum_NM(panel, 49, np.arange(4), scale_M)
    # Once in two registered days and young; once in 28; every day; once, of a series far below the mean.
    assert found[:, 0].tolist() == [2, 11, 53, 11]
    assert found[:, 1].tolist() == [3, 53, 53, 53]
    names = [stratum_name(code) for code in (2, 11, 53)]
    assert names == ["under 7 days old, middle", "0..10 % of days, small", "75..100 % of days, large"]
