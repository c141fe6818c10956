"""Forecasts that need no training: what the model has to beat, and the rules for series that it does not serve.

N series, M targets (of daily totals: tasks), D days.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from m2m_model.arrays import Floats, Ints
from m2m_model.data.panel import Panel, recent
from m2m_model.data.served_by import history_days
from m2m_model.forecasts.methods import COLD_START, SILENT

Baseline = Callable[[Panel, int, Ints], Floats]


def last_h_days(panel: Panel, cutoff: int, series: Ints) -> Floats:
    """The last horizon_days once more. ``cutoff`` is a day index, ``series`` row indices; (N, M) totals come back."""
    recent_NDM = recent(panel, cutoff, series, panel.spec.horizon_days)
    return panel.spec.by_horizon(lambda days: np.asarray(recent_NDM[:, -days:].sum(1)))


def mean_28(panel: Panel, cutoff: int, series: Ints) -> Floats:
    """The daily mean of 28 days (of the registered ones, when younger) x horizon_days."""
    days_N = np.clip(history_days(panel, cutoff)[series], 1, 28)
    rate_NM = recent(panel, cutoff, series, 28).sum(1) / days_N[:, None]
    return panel.spec.by_horizon(lambda days: np.asarray(rate_NM * days))


def same_weekdays(panel: Panel, cutoff: int, series: Ints) -> Floats:
    """For each day ahead, the mean of that weekday in the last 4 weeks (registered ones); summed over the horizon."""
    recent_NWDM = recent(panel, cutoff, series, 28).reshape(len(series), 4, 7, len(panel.spec.tasks))
    age_N = np.maximum(history_days(panel, cutoff)[series], 0)
    # The k-th day of a week that ends at the cutoff lies 7w + 6 - k days back.
    back_WD = 7 * np.arange(3, -1, -1)[:, None] + np.arange(6, -1, -1)
    weeks_ND = (back_WD < age_N[:, None, None]).sum(1)
    weekday_NDM = recent_NWDM.sum(1) / np.maximum(weeks_ND, 1)[:, :, None]
    return panel.spec.by_horizon(lambda days: np.asarray(weekday_NDM[:, np.arange(days) % 7].sum(1)))


def tsb(panel: Panel, cutoff: int, series: Ints) -> Floats:
    """Teunter, Syntetos and Babai (2011), for intermittent series: probability of a day with demand, smoothed every
    day, times its size, smoothed on days with demand; x horizon_days. Starts at the first registered of 56 days."""
    block_NDM = recent(panel, cutoff, series, TSB_DAYS)
    age_N1 = np.maximum(history_days(panel, cutoff)[series], 0)[:, None]
    probability_NM = np.full((len(series), len(panel.spec.tasks)), np.nan)
    size_NM = np.full_like(probability_NM, np.nan)
    for day in range(TSB_DAYS):
        value_NM = block_NDM[:, day]
        demand_NM = value_NM > 0
        begun_N1 = age_N1 >= TSB_DAYS - day
        first_NM, first_size_NM = np.isnan(probability_NM), np.isnan(size_NM)
        moved_NM = np.where(first_NM, demand_NM, probability_NM + TSB_RATE * (demand_NM - probability_NM))
        probability_NM = np.where(begun_N1, moved_NM, probability_NM)
        moved_NM = np.where(first_size_NM, value_NM, size_NM + TSB_RATE * (value_NM - size_NM))
        size_NM = np.where(begun_N1 & demand_NM, moved_NM, size_NM)
    rate_NM = np.nan_to_num(probability_NM * size_NM)
    return panel.spec.by_horizon(lambda days: np.asarray(rate_NM * days))


def cold_start(panel: Panel, cutoff: int, series: Ints) -> Floats:
    """A series younger than COLD_START_DAYS: its mean per registered day x horizon_days. Few go on as they begin: what
    is published is made unbiased (``forecasts.around``)."""
    return mean_28(panel, cutoff, series)


def silent(panel: Panel, cutoff: int, series: Ints) -> Floats:
    """A series without a row in eligible_days: 0."""
    return np.zeros((len(series), len(panel.spec.targets)))


TSB_DAYS, TSB_RATE = 56, 0.1

# Any of these can serve when there is no champion.
BASELINES: Mapping[str, Baseline] = {
    "last_h_days": last_h_days,
    "mean_28": mean_28,
    "same_weekdays": same_weekdays,
    "tsb": tsb,
}
RULES: Mapping[str, Baseline] = {COLD_START: cold_start, SILENT: silent}
