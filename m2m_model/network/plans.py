"""What is planned for the days to come, as features: beside what was planned before, and beside what was achieved.

B windows, N series, K days of the longest look back, P performance metrics, C plans, J earlier times of such a length;
amounts are NaN where nothing is known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from m2m_model.arrays import Floats, Ints
from m2m_model.data.features import LEVEL_FLOOR
from m2m_model.data.grid import SHIFT
from m2m_model.data.panel import Panel, lead
from m2m_model.data.spec import LEVEL_DAYS, SequenceSpec


def plan_columns(
    spec: SequenceSpec,
    scales: Sequence[float],
    performance_BKP: Tensor,
    future_BKC: Tensor,
    known_BK: Tensor,
    age_B: Tensor,
) -> list[Tensor]:
    """``plan_features`` of each plan, from runs of days that end at a cutoff (points of the grid); of days that are not
    ``known`` nothing is read but the plan of the cutoff itself."""
    columns, level_days = [], max(LEVEL_DAYS)
    for c, (plan, scale) in enumerate(zip(spec.plans, scales, strict=True)):
        level_B = None
        if plan.covariate.of:
            daily_BS = values_of(performance_BKP[:, -level_days:, spec.metrics.index(plan.covariate.of)])
            daily_BS = daily_BS.nan_to_num(0.0).masked_fill(~known_BK[:, -level_days:], 0.0)
            rates = [daily_BS[:, -days:].sum(1) / age_B.clamp(1, days) for days in LEVEL_DAYS]
            level_B = torch.stack(rates).mean(0) * plan.days / scale
        amount_BK = values_of(future_BKC[:, :, c]) / scale
        past = [amount_BK[:, -1 - back].masked_fill(~known_BK[:, -1 - back], torch.nan) for back in plan.past_days]
        columns.append(plan_features(amount_BK[:, -1], torch.stack(past, 1), level_B))
    return columns


def plan_features(now_B: Tensor, past_BJ: Tensor, level_B: Tensor | None) -> Tensor:
    """(B, PLAN_FEATURES): the log of the plan beside earlier ones, and beside the level of what it is a plan of (if of
    anything); no plan; no earlier one. All three in units of the plan's mean."""
    known_B, told_BJ = ~now_B.isnan(), ~past_BJ.isnan()
    told_B = told_BJ.any(1)
    past_B = past_BJ.nan_to_num(0.0).sum(1) / told_BJ.sum(1).clamp_min(1)
    now_B, past_B = (torch.log(amount_B.nan_to_num(0.0) + LEVEL_FLOOR) for amount_B in (now_B, past_B))
    base_B = torch.zeros_like(now_B) if level_B is None else torch.log(level_B + LEVEL_FLOOR)
    # What is not known is as it always was.
    past_B = torch.where(told_B, past_B, torch.where(known_B, now_B, base_B))
    now_B = torch.where(known_B, now_B, past_B)
    return torch.stack([now_B - past_B, now_B - base_B, (~known_B).float(), (~told_B).float()], 1)


def values_of(point_x: Tensor) -> Tensor:
    """The values of points of the grid (``data.grid``), NaN where there is none."""
    value_x = (point_x.int() << SHIFT).view(torch.float32)
    return value_x.masked_fill(value_x.isinf(), torch.nan)


def planned(panel: Panel, cutoff: int, series: Ints) -> Floats:
    """What the network reads of plans, for a model that is no network, (N, (PLAN_FEATURES + 1) x C): in units of 1, and
    each plan itself, NaN where there is none. Reads nothing after ``cutoff`` (an index in T)."""
    spec, look = panel.spec, panel.spec.lookback_days
    if not spec.plans:
        return np.zeros((len(series), 0), np.float32)
    row_NK = lead(spec) + series.astype(np.int64)[:, None] * panel.days + cutoff + 1 - look + np.arange(look)
    registered_N1 = panel.registered_N[series, None].astype(np.int64)
    known_NK = np.arange(look - 1, -1, -1) < cutoff + 1 - np.maximum(registered_N1, 0)
    age_N = torch.from_numpy(cutoff + 1 - registered_N1[:, 0])
    runs = (torch.from_numpy(block_Xc[row_NK]) for block_Xc in (panel.performance_XP, panel.future_XC))
    performance_NKP, future_NKC = runs
    known = torch.from_numpy(known_NK)
    columns = plan_columns(spec, [1.0] * len(spec.plans), performance_NKP, future_NKC, known, age_N)
    return torch.cat([*columns, values_of(future_NKC[:, -1])], 1).numpy()
