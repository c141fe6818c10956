"""Windows once more, in plain numpy and from the values themselves: what the fast ones must equal."""

from itertools import pairwise

import numpy as np

from m2m_model.data.features import (
    ADVERTISER_DAYS,
    DAYS_SEEN,
    FIRST_BIN,
    LEVEL_FLOOR,
    MISSING,
    NOT_REGISTERED,
    RECENT_DAYS,
    ZERO,
    Inputs,
)
from m2m_model.data.panel import Panel
from m2m_model.data.spec import LEVEL_DAYS, WEEKS, daily_totals


def reference_windows(
    inputs: Inputs,
    panel: Panel,
    performance_NTP: np.ndarray,
    behavior_NTF: np.ndarray,
    series_B: np.ndarray,
    cutoff_B: np.ndarray,
) -> dict[str, np.ndarray]:
    """By the names of ``Batch``; ``panel`` says no more than whose the values are, and of which days."""
    look = inputs.spec.lookback_days
    day_BL = cutoff_B[:, None] - np.arange(look - 1, -1, -1)
    registered_BL = (day_BL >= panel.registered_N[series_B, None]) & (day_BL >= 0)
    index_BL = np.maximum(day_BL, 0)
    performance_BLP = performance_NTP[series_B[:, None], index_BL]
    performance_BLP[~registered_BL] = np.nan
    behavior_BLF = behavior_NTF[series_B[:, None], index_BL]
    seen = slice(look - inputs.spec.window_days, None)
    age_B = cutoff_B + 1 - panel.registered_N[series_B].astype(np.int64)
    weekday_B = (cutoff_B + panel.first_day.weekday()) % 7
    daily_NTM, advertiser_N = daily_totals(performance_NTP, inputs.spec), panel.advertiser_N
    total_BLM = np.stack([daily_NTM[advertiser_N == advertiser_N[series]].sum(0) for series in series_B])
    advertiser_BLM = total_BLM[np.arange(len(series_B))[:, None], index_BL]
    advertiser_BLM[day_BL < 0] = 0
    level_BM, dense_BD = _dense(inputs, performance_BLP, advertiser_BLM, age_B, weekday_B)
    profile = inputs.profile(panel)
    return {
        "performance_BLP": _codes(performance_BLP[:, seen], registered_BL[:, seen], inputs.metric_edges),
        "behavior_BLF": _codes(behavior_BLF[:, seen], registered_BL[:, seen], inputs.behavior_edges),
        "registered_BL": registered_BL[:, seen],
        "dense_BD": dense_BD,
        "level_BM": level_BM,
        "scenario_B": profile.scenario_N[series_B],
        "scenario_attributes_BS": profile.scenario_attributes_NS[series_B],
        "advertiser_attributes_BA": profile.advertiser_attributes_NA[series_B],
    }


def _dense(
    inputs: Inputs, performance_BLP: np.ndarray, advertiser_BLM: np.ndarray, age_B: np.ndarray, weekday_B: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    spec, horizon, floor = inputs.spec, inputs.spec.horizon_days, LEVEL_FLOOR
    scale_M = np.asarray(inputs.target_scales)
    newest_BLM = daily_totals(performance_BLP[:, ::-1], spec)
    running_BLM = np.cumsum(newest_BLM, 1)
    age_B1 = np.maximum(age_B, 1)[:, None]
    rate_KBM = np.stack(
        [running_BLM[:, days - 1] / np.minimum(days, age_B1) * horizon / scale_M for days in LEVEL_DAYS]
    )
    level_BM = rate_KBM.mean(0)
    week_BWM = np.diff(running_BLM[:, 6 : 7 * WEEKS : 7], axis=1, prepend=0) / 7 * horizon / scale_M
    week_BWM = np.where((age_B1 >= 7 * np.arange(1, WEEKS + 1))[:, :, None], week_BWM, level_BM[:, None])
    base_BM = np.log(level_BM + floor)
    row_BL = (~np.isnan(performance_BLP[:, ::-1])).any(-1)
    silence_B = np.where(row_BL.any(1), row_BL.argmax(1), row_BL.shape[1])
    advertiser_running_BLM = np.cumsum(advertiser_BLM[:, ::-1], 1, dtype=np.float64)
    advertiser_KBM = [
        np.log(advertiser_running_BLM[:, days - 1] / days * horizon / scale_M + floor) for days in ADVERTISER_DAYS
    ]
    recent_KBM = [running_BLM[:, days - 1] / days * horizon / scale_M for days in RECENT_DAYS]
    columns = [
        (np.log(week_BWM + floor) - base_BM[:, None]).reshape(len(age_B), -1),
        *(np.log(rate_BM + floor) - base_BM for rate_BM in (*rate_KBM, *recent_KBM)),
        (np.log(newest_BLM[:, :DAYS_SEEN] * horizon / scale_M + floor) - base_BM[:, None]).reshape(len(age_B), -1),
        *(advertiser_BM - base_BM for advertiser_BM in advertiser_KBM[:2]),
        *(new_BM - old_BM for new_BM, old_BM in pairwise(advertiser_KBM)),
        base_BM / 2,
        (newest_BLM[:, :28] > 0).sum(1) / np.minimum(28, age_B1),
        np.log(np.minimum(age_B1, spec.lookback_days)) / 4,
        silence_B[:, None] / 28,
        np.eye(7)[weekday_B],
    ]
    return level_BM.astype(np.float32), np.concatenate(columns, 1).astype(np.float32)


def _codes(value_BLC: np.ndarray, registered_BL: np.ndarray, edges: tuple[tuple[float, ...], ...]) -> np.ndarray:
    code_BLC = np.where(np.isnan(value_BLC), MISSING, ZERO)
    for column, column_edges in enumerate(edges):
        bin_BL = (value_BLC[..., column, None] >= np.asarray(column_edges)).sum(-1) + FIRST_BIN
        code_BLC[..., column] = np.where(value_BLC[..., column] > 0, bin_BL, code_BLC[..., column])
    code_BLC[~registered_BL] = NOT_REGISTERED
    return code_BLC
