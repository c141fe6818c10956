"""Windows in torch, for CPU and GPU alike: a panel is coded once, and a window is a slice of codes and a few gathers.

The same windows as ``Inputs.windows`` cuts: equal codes, and features to float32's rounding. Sums are of single days
and of the seven days up to each day; longer ones are added up from those. Differences of a running sum lose a series'
small days beside an old large one (1e30 is legal), in float64 too; nothing is subtracted here.

Shapes as in data/features.py; n series of one block, U days with padding before the panel, W weeks.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from m2m_model.arrays import Floats, Numbers
from m2m_model.config import ACTIVE
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
    Profile,
)
from m2m_model.data.panel import Panel
from m2m_model.data.spec import LEVEL_DAYS, WEEKS
from m2m_model.network.model import Batch

ACTIVE_DAYS = 28  # the active share among the dense features is of these
BLOCK = {"cpu": 4096, "cuda": 65536}  # series coded at a time


class CodedPanel:
    """N series over T days on one device. ``fill`` codes a block of them; ``windows`` and ``targets`` cut from it.

    Cutoffs are not checked, that would wait for the device: they lie in 0 .. T-1, and h days earlier for targets.

    Raises:
        ValueError: a metric has more bins than a byte can name.
    """

    def __init__(self, inputs: Inputs, first_day: date, days: int, series: int, device: torch.device) -> None:
        if inputs.codes > 256:
            raise ValueError(f"{inputs.codes} codes a metric: a coded panel keeps them in a byte; lower bins to 252")
        spec, tasks = inputs.spec, len(inputs.spec.tasks)
        self.inputs, self.spec, self.device = inputs, spec, device
        self.days, self.weekday = days, first_day.weekday()
        # A window that begins before the panel reads days of padding.
        self.pad = max(spec.window_days, 7 * WEEKS) - 1
        padded = self.pad + days

        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.performance_NUP = zeros(series, padded, len(spec.metrics), dtype=torch.uint8)
        self.behavior_NUF = zeros(series, padded, len(spec.behaviors), dtype=torch.uint8)
        self.daily_NUM = zeros(series, padded, tasks, dtype=torch.float32)
        self.week_NUM = zeros(series, padded, tasks, dtype=torch.float32)  # the 7 days that end at each day
        self.active_NTM = zeros(series, days, tasks, dtype=torch.uint8)  # active days of the last ACTIVE_DAYS
        self.silence_NT = zeros(series, days, dtype=torch.int16)  # days since the last row, at most lookback_days
        self.registered_N = zeros(series, dtype=torch.int64)
        self.advertiser_N = zeros(series, dtype=torch.int64)
        self.advertiser_week_AUM = zeros(0, padded, tasks, dtype=torch.float32)
        self.scenario_N = zeros(series, dtype=torch.int32)
        self.scenario_attributes_NS = zeros(series, len(spec.scenario_attributes), dtype=torch.int32)
        self.advertiser_attributes_NA = zeros(series, len(spec.advertiser_attributes), dtype=torch.int32)

        edges = [_value_edges(edges) for edges in (*inputs.metric_edges, *inputs.behavior_edges)]
        self._edges = [torch.from_numpy(edge_K).to(device) for edge_K in edges]
        scale_M = torch.tensor(inputs.task_scales, dtype=torch.float64, device=device)
        self._scale_M = scale_M.float()
        self._horizon_M = (spec.horizon_days / scale_M).float()  # a daily rate to units of the task's scale
        self._week_W = 7 * torch.arange(WEEKS, device=device)
        self._rate_days_K1 = torch.tensor(LEVEL_DAYS, device=device).unsqueeze(1)
        self._weekday_7 = torch.arange(7, device=device)

    def __len__(self) -> int:
        return len(self.registered_N)

    @property
    def size_bytes(self) -> int:
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, Tensor))

    @classmethod
    def of(cls, panel: Panel, inputs: Inputs, device: torch.device, profile: Profile | None = None) -> CodedPanel:
        """Code a whole panel."""
        coded = cls(inputs, panel.first_day, panel.days, len(panel), device)

        def on_device(array: Numbers) -> Tensor:
            return torch.from_numpy(np.array(array)).to(device)  # a copy: maps of files are read-only

        for start in range(0, len(panel), BLOCK[device.type]):
            rows = slice(start, start + BLOCK[device.type])
            blocks = (panel.performance_NTP[rows], panel.behavior_NTF[rows], panel.registered_N[rows])
            coded.fill(start, *map(on_device, blocks))
        coded.set_advertisers(on_device(panel.advertiser_index_N), on_device(panel.advertiser_total_ATM))
        profile = profile or inputs.profile(panel)
        coded.scenario_N.copy_(on_device(profile.scenario_N))
        coded.scenario_attributes_NS.copy_(on_device(profile.scenario_attributes_NS))
        coded.advertiser_attributes_NA.copy_(on_device(profile.advertiser_attributes_NA))
        return coded

    def fill(self, start: int, performance_nTP: Tensor, behavior_nTF: Tensor, registered_n: Tensor) -> None:
        """Code the series ``start`` .. from their values, NaN where there is no row."""
        spec, rows = self.spec, slice(start, start + len(registered_n))
        day_T = torch.arange(self.days, device=self.device, dtype=torch.int32)
        registered_nT = day_T >= registered_n.unsqueeze(1)
        edges = self._edges
        self.performance_NUP[rows, self.pad :] = _codes(performance_nTP, registered_nT, edges[: len(spec.metrics)])
        self.behavior_NUF[rows, self.pad :] = _codes(behavior_nTF, registered_nT, edges[len(spec.metrics) :])
        self.registered_N[rows] = registered_n.long()
        performance_nTP = performance_nTP.masked_fill(~registered_nT.unsqueeze(-1), torch.nan)
        daily_nTM = self._daily_totals(performance_nTP)
        self.daily_NUM[rows, self.pad :] = daily_nTM
        self.week_NUM[rows, self.pad :] = _weeks(daily_nTM)
        active_nTM = (daily_nTM > 0).cumsum(1, dtype=torch.int32)
        if self.days > ACTIVE_DAYS:
            active_nTM[:, ACTIVE_DAYS:] -= active_nTM[:, :-ACTIVE_DAYS].clone()
        self.active_NTM[rows] = active_nTM.to(torch.uint8)
        row_nT = ~performance_nTP.isnan().all(-1)
        last_nT = torch.where(row_nT, day_T, -spec.lookback_days).cummax(1).values
        self.silence_NT[rows] = (day_T - last_nT).clamp_max(spec.lookback_days).short()

    def set_advertisers(self, advertiser_N: Tensor, total_ATM: Tensor) -> None:
        """Whose series each is, and the advertisers' daily totals over all scenarios."""
        self.advertiser_N.copy_(advertiser_N)
        self.advertiser_week_AUM = functional.pad(_weeks(total_ATM.float()), (0, 0, self.pad, 0))

    def windows(self, series_B: Tensor, cutoff_B: Tensor) -> Batch:
        """Cut the windows that end at each (series, cutoff). Reads nothing after a cutoff."""
        spec, tasks = self.spec, len(self.spec.tasks)
        padded, look = self.pad + self.days, spec.window_days
        at_B = series_B.long() * padded + self.pad + cutoff_B  # the cutoff among all days of all series
        performance_BLP = _run_of_days(self.performance_NUP, at_B - look + 1, look)
        week_BWM = self.week_NUM.view(-1, tasks)[at_B.unsqueeze(1) - self._week_W]  # newest first, as all below
        day_BKM = _run_of_days(self.daily_NUM, at_B - DAYS_SEEN + 1, DAYS_SEEN).flip(1)
        advertiser_at_B = self.advertiser_N[series_B] * padded + self.pad + cutoff_B
        advertiser_BWM = self.advertiser_week_AUM.view(-1, tasks)[advertiser_at_B.unsqueeze(1) - self._week_W]
        flag_B = series_B.long() * self.days + cutoff_B
        age_B1 = (cutoff_B + 1 - self.registered_N[series_B]).clamp_min(1).unsqueeze(1)
        level_BM, dense_BD = self._dense(
            week_BWM,
            day_BKM,
            advertiser_BWM,
            age_B1,
            self.active_NTM.view(-1, tasks)[flag_B],
            self.silence_NT.view(-1)[flag_B],
            (cutoff_B + self.weekday) % 7,
        )
        return Batch(
            performance_BLP,
            _run_of_days(self.behavior_NUF, at_B - look + 1, look),
            performance_BLP[..., 0] != NOT_REGISTERED,
            dense_BD,
            level_BM,
            self.scenario_N[series_B],
            self.scenario_attributes_NS[series_B],
            self.advertiser_attributes_NA[series_B],
        )

    def targets(self, series_B: Tensor, cutoff_B: Tensor) -> Tensor:
        """Task totals of the days cutoff+1 .. cutoff+h in units of the tasks' scales, (B, M)."""
        at_B = series_B.long() * (self.pad + self.days) + self.pad + cutoff_B
        return _run_of_days(self.daily_NUM, at_B + 1, self.spec.horizon_days).sum(1) / self._scale_M

    def _dense(
        self,
        week_BWM: Tensor,
        day_BKM: Tensor,
        advertiser_BWM: Tensor,
        age_B1: Tensor,
        active_BM: Tensor,
        silence_B: Tensor,
        weekday_B: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """``Inputs._dense``: the recent level, and features that are relative to it."""
        unit_M = self._horizon_M

        def totals(of_weeks_BWM: Tensor, days: Sequence[int]) -> Tensor:
            """Totals of so many newest days: whole weeks, or single days."""
            columns = [day_BKM[:, :n].sum(1) if n % 7 else of_weeks_BWM[:, : n // 7].sum(1) for n in days]
            return torch.stack(columns, 1)

        def rates(of_weeks_BWM: Tensor, days: Sequence[int]) -> Tensor:
            parts = totals(of_weeks_BWM, days).unbind(1)
            return torch.stack([part_BM / n for part_BM, n in zip(parts, days, strict=True)], 1) * unit_M

        rate_BKM = totals(week_BWM, LEVEL_DAYS) / torch.minimum(age_B1.unsqueeze(2), self._rate_days_K1) * unit_M
        level_BM = rate_BKM.mean(1)
        base_B1M = torch.log(level_BM + LEVEL_FLOOR).unsqueeze(1)
        known_BW1 = (age_B1 >= self._week_W + 7).unsqueeze(2)
        amounts = [
            torch.where(known_BW1, week_BWM / 7 * unit_M, level_BM.unsqueeze(1)),
            rate_BKM,
            rates(week_BWM, RECENT_DAYS),
            day_BKM * unit_M,
            rates(advertiser_BWM, ADVERTISER_DAYS),
        ]
        log_BXM = torch.log(torch.cat(amounts, 1) + LEVEL_FLOOR)
        advertiser_BKM = log_BXM[:, -len(ADVERTISER_DAYS) :]
        columns = [
            (log_BXM[:, :-1] - base_B1M).flatten(1),
            (advertiser_BKM[:, :-1] - advertiser_BKM[:, 1:]).flatten(1),
            base_B1M.squeeze(1) / 2,
            active_BM / age_B1.clamp_max(ACTIVE_DAYS),
            torch.log(age_B1.clamp_max(self.spec.lookback_days).float()) / 4,
            silence_B.unsqueeze(1) / 28,
            (weekday_B.unsqueeze(1) == self._weekday_7).float(),
        ]
        return level_BM, torch.cat(columns, 1)

    def _daily_totals(self, performance_nTP: Tensor) -> Tensor:
        """``spec.daily_totals``."""
        value_nTP = torch.where(performance_nTP > 0, performance_nTP, 0.0)
        columns = []
        for task in self.spec.tasks:
            active = task.metric == ACTIVE
            value_nT = value_nTP.amax(-1) if active else value_nTP[..., self.spec.metrics.index(task.metric)]
            columns.append(value_nT if task.aggregate == "sum" else (value_nT > 0).float())
        return torch.stack(columns, -1)


def _run_of_days(block_NUC: Tensor, first_B: Tensor, days: int) -> Tensor:
    """(B, days, C) from each of ``first_B`` on, days of all series counted in one row: no index per day is made."""
    columns = block_NUC.shape[-1]
    if not columns:
        return block_NUC.new_zeros(len(first_B), days, 0)
    return block_NUC.view(-1).unfold(0, days * columns, columns)[first_B].view(-1, days, columns)


def _weeks(daily_nTM: Tensor) -> Tensor:
    """Totals of the seven days up to each day, rounded once."""
    return functional.pad(daily_nTM.double(), (0, 0, 6, 0)).unfold(1, 7, 1).sum(-1).float()


def _codes(value_nTC: Tensor, registered_nT: Tensor, edges: Sequence[Tensor]) -> Tensor:
    """``features._codes``, with edges as values."""
    code_nTC = torch.where(value_nTC.isnan(), MISSING, ZERO).to(torch.uint8)
    for column, edge_K in enumerate(edges):
        value_nT = value_nTC[..., column].contiguous()
        bin_nT = (torch.bucketize(value_nT, edge_K, out_int32=True) + FIRST_BIN).to(torch.uint8)
        code_nTC[..., column] = torch.where(value_nT > 0, bin_nT, code_nTC[..., column])
    return code_nTC.masked_fill_(~registered_nT.unsqueeze(-1), NOT_REGISTERED)


def _value_edges(edges: Sequence[float]) -> Floats:
    """The largest float32 whose log1p is at most each edge: comparing values gives numpy's codes on any device, where
    another log1p, one rounding apart, would not at whole numbers, which edges often are."""
    edge_K = np.asarray(edges, np.float32)
    low_K = np.zeros(len(edge_K), np.int32)  # bits of positive floats are in the order of their values
    high_K = np.full(len(edge_K), np.float32(np.inf).view(np.int32))
    while (high_K - low_K > 1).any():
        middle_K = low_K + (high_K - low_K) // 2
        below_K = np.log1p(middle_K.view(np.float32)) <= edge_K
        low_K, high_K = np.where(below_K, middle_K, low_K), np.where(below_K, high_K, middle_K)
    return low_K.view(np.float32)
