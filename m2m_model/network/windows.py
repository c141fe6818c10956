"""Windows, in torch, for CPU and GPU alike: runs of days as panels hold them, and from these what the network reads.

A window is a (series, cutoff) pair of indices, cut when it is needed. A run is copied as it lies there, so a batch
takes runs from many panels, in files or on a device, and is then computed once.

B windows, L days of a window, K days of the longest look back, D dense features; other shapes as in data/. W weeks, the
newest first.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from m2m_model.arrays import Floats, Numbers
from m2m_model.data.features import (
    ADVERTISER_DAYS,
    DAYS_SEEN,
    LEVEL_FLOOR,
    NOT_REGISTERED,
    RECENT_DAYS,
    Inputs,
    Profile,
)
from m2m_model.data.grid import NOTHING
from m2m_model.data.panel import Panel
from m2m_model.data.spec import LEVEL_DAYS, WEEKS, SequenceSpec
from m2m_model.network.model import Batch
from m2m_model.network.plans import plan_columns

SUMMED_DAYS = 7 * WEEKS  # all rates are of these
ACTIVE_DAYS = 28  # the active share among the dense features is of these


@dataclass(frozen=True)
class Runs:
    """B windows as a panel holds them, oldest day first: points of the grid, and what each day added to each task.

    Days before ``known_B`` and ``past_B`` (days up to and with the cutoff that the series was registered on in the
    panel, and that the panel has) hold what lies beside them in memory, and are not to be read.
    """

    performance_BKP: Tensor
    behavior_BLF: Tensor
    daily_BSM: Tensor  # S = SUMMED_DAYS
    advertiser_BSM: Tensor  # of the advertiser over all its scenarios
    future_BKC: Tensor  # what was known at the end of each day of the days after it, C plans
    known_B: Tensor
    past_B: Tensor
    age_B: Tensor  # registered days up to and with the cutoff, before the panel too
    weekday_B: Tensor
    scenario_B: Tensor
    scenario_attributes_BS: Tensor
    advertiser_attributes_BA: Tensor

    @classmethod
    def concatenate(cls, parts: Sequence[Runs]) -> Runs:
        if len(parts) == 1:
            return parts[0]
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def to(self, device: torch.device) -> Runs:
        return Runs(*(tensor.to(device, non_blocking=True) for tensor in vars(self).values()))


@dataclass(frozen=True)
class Days:
    """A panel's days as tensors on one device, and whose they are; on the CPU they are the panel's own memory.

    Indices are not checked, that would wait for the device: cutoffs lie in 0 .. T-1, and h days earlier for totals.
    """

    spec: SequenceSpec
    days: int
    first_weekday: int
    performance_XP: Tensor
    behavior_XF: Tensor
    daily_XM: Tensor
    advertiser_total_YM: Tensor
    future_XC: Tensor
    registered_N: Tensor
    advertiser_N: Tensor
    scenario_N: Tensor
    scenario_attributes_NS: Tensor
    advertiser_attributes_NA: Tensor

    @classmethod
    def of(cls, panel: Panel, profile: Profile, device: torch.device) -> Days:
        arrays = (
            panel.performance_XP,
            panel.behavior_XF,
            panel.daily_XM,
            panel.advertiser_total_YM,
            panel.future_XC,
            panel.registered_N.astype(np.int64),
            panel.advertiser_index_N.astype(np.int64),
            *vars(profile).values(),
        )
        tensors = (_shared(array).to(device) for array in arrays)
        return cls(panel.spec, panel.days, panel.first_day.weekday(), *tensors)

    def runs(self, series_B: Tensor, cutoff_B: Tensor) -> Runs:
        """What lies before each (series, cutoff). Reads nothing after a cutoff."""
        look, window = self.spec.lookback_days, self.spec.window_days
        end_B = look + cutoff_B  # with the lead, one day after the cutoff
        at_B, advertiser_at_B = end_B + series_B * self.days, end_B + self.advertiser_N[series_B] * self.days
        registered_B = self.registered_N[series_B]
        return Runs(
            _run(self.performance_XP, at_B, look),
            _run(self.behavior_XF, at_B, window),
            _run(self.daily_XM, at_B, SUMMED_DAYS),
            _run(self.advertiser_total_YM, advertiser_at_B, SUMMED_DAYS),
            _run(self.future_XC, at_B, look),
            cutoff_B + 1 - registered_B.clamp_min(0),
            cutoff_B + 1,
            cutoff_B + 1 - registered_B,
            (cutoff_B + self.first_weekday) % 7,
            self.scenario_N[series_B],
            self.scenario_attributes_NS[series_B],
            self.advertiser_attributes_NA[series_B],
        )

    def totals_after(self, series_B: Tensor, cutoff_B: Tensor) -> Tensor:
        """Task totals of the days cutoff+1 .. cutoff+h of each target's h, (B, targets)."""
        look, horizon = self.spec.lookback_days, self.spec.horizon_days
        after_BHM = _run(self.daily_XM, look + cutoff_B + series_B * self.days + horizon, horizon)
        return torch.stack([after_BHM[:, :days].sum(1) for days in self.spec.horizons_days], 2).flatten(1)


class Windows:
    """What the network reads of runs: codes of the panel's values, and dense features that are relative to its level.

    Raises:
        ValueError: a metric has more bins than a byte can name.
    """

    def __init__(self, inputs: Inputs, device: torch.device) -> None:
        spec = inputs.spec
        self.inputs, self.spec, self.device = inputs, spec, device
        book_CG = torch.from_numpy(inputs.code_books()).to(device)
        parts = book_CG[: len(spec.metrics)], book_CG[len(spec.metrics) :]
        self._books = [book.flatten() for book in parts]
        points = book_CG.shape[1]
        self._before = [points * torch.arange(len(book), device=device, dtype=torch.int32) for book in parts]
        back = np.arange(spec.lookback_days - 1, -1, -1)  # days before the cutoff
        self._back_K = torch.from_numpy(back).to(device)
        scale_X = np.asarray(inputs.target_scales)  # of X targets
        self.scale_X = torch.from_numpy(scale_X.astype(np.float32)).to(device)
        # A daily rate to a total of the longest horizon, in units of its scale; and that to every target's.
        unit_X = np.array([target.horizon_days for target in spec.targets]) / scale_X
        self._horizon_M = torch.from_numpy(unit_X[spec.longest].astype(np.float32)).to(device)
        to_target_X = unit_X / unit_X[spec.longest].repeat(len(spec.horizons_days))
        self._to_target_X = torch.from_numpy(to_target_X.astype(np.float32)).to(device)
        self._rate_days_K1 = torch.tensor(LEVEL_DAYS, device=device).unsqueeze(1)
        self._week_W1 = 7 * torch.arange(1, WEEKS + 1, device=device).unsqueeze(1)
        self._weekday_7 = torch.arange(7, device=device)

    def of(self, runs: Runs) -> Batch:
        """The windows of runs, which may lie on another device."""
        runs, window = runs.to(self.device), self.spec.window_days
        known_BK = self._back_K < runs.known_B.unsqueeze(1)
        registered_BL = known_BK[:, -window:]
        level_BM, dense_BD = self._dense(runs, known_BK)
        return Batch(
            self._codes(0, runs.performance_BKP[:, -window:], registered_BL),
            self._codes(1, runs.behavior_BLF, registered_BL),
            registered_BL,
            dense_BD,
            self._of_targets(level_BM),
            runs.scenario_B,
            runs.scenario_attributes_BS,
            runs.advertiser_attributes_BA,
        )

    def blank(self, count: int) -> Batch:
        """So many windows of a series that nothing is known of."""
        spec = self.spec
        performance, behavior = (np.full((1, 1, len(n)), np.nan, np.float32) for n in (spec.metrics, spec.behaviors))
        names = ["advertiser_id", "scenario_id", *spec.advertiser_attributes, *spec.scenario_attributes]
        keys = pa.table({name: pa.array([None], pa.string()) for name in dict.fromkeys(names)})
        panel = Panel.of_values(spec, date(1970, 1, 1), performance, behavior, np.ones(1, np.int32), keys)
        zero_B = torch.zeros(count, dtype=torch.int64)
        return self.of(Days.of(panel, self.inputs.profile(panel), torch.device("cpu")).runs(zero_B, zero_B))

    def _of_targets(self, level_BM: Tensor) -> Tensor:
        """The level of every target, in units of its scale: the same daily rate over other days."""
        horizons = len(self.spec.horizons_days)
        return level_BM if horizons == 1 else level_BM.repeat_interleave(horizons, 1) * self._to_target_X

    def _codes(self, book: int, point_BLc: Tensor, registered_BL: Tensor) -> Tensor:
        row_X = (point_BLc.int() + self._before[book]).flatten()
        code_BLc = self._books[book].index_select(0, row_X).view(point_BLc.shape)
        return code_BLc.masked_fill_(~registered_BL.unsqueeze(2), NOT_REGISTERED)

    def _dense(self, runs: Runs, known_BK: Tensor) -> tuple[Tensor, Tensor]:
        """The recent level over the longest horizon in units of its scale, and features that are relative to it."""
        spec, scales = self.spec, self.inputs.plan_scales
        unit_M, tasks = self._horizon_M, len(spec.tasks)
        daily_BSM = runs.daily_BSM.masked_fill(~known_BK[:, -SUMMED_DAYS:].unsqueeze(2), 0.0)
        past_BS = self._back_K[-SUMMED_DAYS:] < runs.past_B.unsqueeze(1)
        advertiser_BSM = runs.advertiser_BSM.masked_fill(~past_BS.unsqueeze(2), 0.0)
        day_BKM = daily_BSM[:, -DAYS_SEEN:].flip(1)  # newest first, as all below
        week_BWM, advertiser_BWM = (
            days_BSM.view(-1, WEEKS, 7, tasks).sum(2).flip(1) for days_BSM in (daily_BSM, advertiser_BSM)
        )

        def totals(of_weeks_BWM: Tensor, days: Sequence[int]) -> Tensor:
            """Totals of so many newest days: whole weeks, or single days."""
            columns = [day_BKM[:, :n].sum(1) if n % 7 else of_weeks_BWM[:, : n // 7].sum(1) for n in days]
            return torch.stack(columns, 1)

        def rates(of_weeks_BWM: Tensor, days: Sequence[int]) -> Tensor:
            parts = totals(of_weeks_BWM, days).unbind(1)
            return torch.stack([part_BM / n for part_BM, n in zip(parts, days, strict=True)], 1) * unit_M

        # An age beyond any rate's days must not matter: a panel that starts earlier gives the same forecast.
        age_B1 = runs.age_B.clamp_min(1).unsqueeze(1)
        rate_BKM = totals(week_BWM, LEVEL_DAYS) / torch.minimum(age_B1.unsqueeze(2), self._rate_days_K1) * unit_M
        level_BM = rate_BKM.mean(1)
        base_B1M = torch.log(level_BM + LEVEL_FLOOR).unsqueeze(1)
        week_known_BW1 = age_B1.unsqueeze(2) >= self._week_W1
        amounts = [
            torch.where(week_known_BW1, week_BWM / 7 * unit_M, level_BM.unsqueeze(1)),
            rate_BKM,
            rates(week_BWM, RECENT_DAYS),
            day_BKM * unit_M,
            rates(advertiser_BWM, ADVERTISER_DAYS),
        ]
        log_BXM = torch.log(torch.cat(amounts, 1) + LEVEL_FLOOR)
        advertiser_BKM = log_BXM[:, -len(ADVERTISER_DAYS) :]
        active_BM = (daily_BSM[:, -ACTIVE_DAYS:] > 0).sum(1)
        columns = [
            (log_BXM[:, :-1] - base_B1M).flatten(1),
            # The advertiser's size beside this series', and its trend over all scenarios.
            (advertiser_BKM[:, :-1] - advertiser_BKM[:, 1:]).flatten(1),
            base_B1M.squeeze(1) / 2,
            active_BM / age_B1.clamp_max(ACTIVE_DAYS),
            torch.log(age_B1.clamp_max(self.spec.lookback_days).float()) / 4,
            self._silence(runs.performance_BKP, known_BK) / 28,
            (runs.weekday_B.unsqueeze(1) == self._weekday_7).float(),
            *plan_columns(spec, scales, runs.performance_BKP, runs.future_BKC, known_BK, runs.age_B),
        ]
        return level_BM, torch.cat(columns, 1)

    def _silence(self, point_BKP: Tensor, known_BK: Tensor) -> Tensor:
        """Days since the last row, (B, 1); all of the look back where there is none."""
        row_BK = (point_BKP != NOTHING).any(2) & known_BK
        return torch.where(row_BK, self._back_K, self.spec.lookback_days).amin(1, keepdim=True)


def _run(row_Xc: Tensor, end_B: Tensor, days: int) -> Tensor:
    """The ``days`` before each of ``end_B``, (B, days, columns): no index per day is made."""
    columns = row_Xc.shape[1]
    if not columns:
        return row_Xc.new_zeros(len(end_B), days, 0)
    runs_Xr = row_Xc.flatten().unfold(0, days * columns, columns)
    return runs_Xr.index_select(0, end_B - days).view(-1, days, columns)


def _shared(array: Numbers | Floats) -> Tensor:
    """A tensor over the array's own memory, which may be a file's: nothing writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
