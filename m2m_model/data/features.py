"""From panels to what the network reads: windows of codes, dense features, and what both are learned from.

N series, B windows, L days of a window, P performance metrics, F behavior columns, M tasks, D dense features. A window
is a (series, cutoff) pair of indices, cut when it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from m2m_model.arrays import Bools, Floats, Ints
from m2m_model.data.panel import Panel
from m2m_model.data.spec import LEVEL_DAYS, WEEKS, SequenceSpec, daily_totals
from m2m_model.data.statistics import PanelStatistics, bin_edges, vocabulary

# A day of a sequence is one of these, or FIRST_BIN + its value's bin. Days that are not registered are padding.
NOT_REGISTERED, MISSING, ZERO, FIRST_BIN = 0, 1, 2, 3

RECENT_DAYS = (1, 2, 3, 5, 56)  # further rates among the dense features
DAYS_SEEN = 7  # single days among the dense features
ADVERTISER_DAYS = (7, 28, 56)  # rates of the advertiser over all its scenarios
LEVEL_FLOOR = 0.02  # added to the level (in units of the task's scale): a series that sold nothing is not hopeless


@dataclass(frozen=True)
class Inputs:
    """How values become codes: learned once on the training window, saved with the weights.

    Edges are log1p of the value, ascending, per metric and behavior. Vocabularies are sorted by frequency; code 0 is
    "unknown". ``task_scales`` is each task's mean total per eligible series: what makes tasks comparable in the loss.
    """

    spec: SequenceSpec
    metric_edges: tuple[tuple[float, ...], ...]
    behavior_edges: tuple[tuple[float, ...], ...]
    scenarios: tuple[str, ...]
    attributes: dict[str, tuple[str, ...]]
    task_scales: tuple[float, ...]

    @property
    def codes(self) -> int:
        """Size of the code book of one metric: three kinds of nothing, and the bins."""
        return FIRST_BIN + 1 + max(map(len, (*self.metric_edges, *self.behavior_edges)), default=0)

    @property
    def dense_features(self) -> int:
        """D: weeks, rates, single days, advertiser's rates, level and active share per task; age, silence, weekday."""
        per_task = WEEKS + len(LEVEL_DAYS) + len(RECENT_DAYS) + DAYS_SEEN + len(ADVERTISER_DAYS) + 1 + 2
        return len(self.spec.tasks) * per_task + 2 + 7

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Inputs:
        return cls(
            SequenceSpec.from_dict(values["spec"]),
            tuple(map(tuple, values["metric_edges"])),
            tuple(map(tuple, values["behavior_edges"])),
            tuple(values["scenarios"]),
            {name: tuple(known) for name, known in values["attributes"].items()},
            tuple(values["task_scales"]),
        )

    def profile(self, panel: Panel) -> Profile:
        """Vocabulary codes of every series of a panel; an id or attribute that training never saw is 0."""
        spec = self.spec
        advertiser = [_encode(panel.keys[name], self.attributes[name]) for name in spec.advertiser_attributes]
        scenario = [_encode(panel.keys[name], self.attributes[name]) for name in spec.scenario_attributes]
        empty = np.zeros((len(panel), 0), np.int64)
        return Profile(
            _encode(panel.keys["scenario_id"], self.scenarios),
            np.stack(scenario, 1) if scenario else empty,
            np.stack(advertiser, 1) if advertiser else empty,
        )

    def windows(self, panel: Panel, profile: Profile, series_B: Ints, cutoff_B: Ints) -> Windows:
        """Cut the windows that end at each (series, cutoff). Reads nothing after a cutoff."""
        spec = self.spec
        look = spec.lookback_days
        day_BL = cutoff_B[:, None] - np.arange(look - 1, -1, -1)
        registered_BL = (day_BL >= panel.registered_N[series_B, None]) & (day_BL >= 0)
        index_BL = np.maximum(day_BL, 0)
        performance_BLP = panel.performance_NTP[series_B[:, None], index_BL]
        performance_BLP[~registered_BL] = np.nan
        behavior_BLF = panel.behavior_NTF[series_B[:, None], index_BL]
        seen = slice(look - spec.window_days, None)
        age_B = cutoff_B + 1 - panel.registered_N[series_B].astype(np.int64)
        weekday_B = (cutoff_B + panel.first_day.weekday()) % 7
        advertiser_BLM = panel.advertiser_total_ATM[panel.advertiser_index_N[series_B, None], index_BL]
        advertiser_BLM[day_BL < 0] = 0
        level_BM, dense_BD = self._dense(performance_BLP, advertiser_BLM, age_B, weekday_B)
        return Windows(
            _codes(performance_BLP[:, seen], registered_BL[:, seen], self.metric_edges),
            _codes(behavior_BLF[:, seen], registered_BL[:, seen], self.behavior_edges),
            registered_BL[:, seen],
            dense_BD,
            level_BM,
            profile.scenario_N[series_B],
            profile.scenario_attributes_NS[series_B],
            profile.advertiser_attributes_NA[series_B],
        )

    def blank(self, count: int) -> Windows:
        """So many windows of a series that nothing is known of."""
        spec = self.spec
        performance, behavior = (np.full((1, 1, len(n)), np.nan, np.float32) for n in (spec.metrics, spec.behaviors))
        names = ["advertiser_id", "scenario_id", *spec.advertiser_attributes, *spec.scenario_attributes]
        keys = pa.table({name: pa.array([None], pa.string()) for name in dict.fromkeys(names)})
        panel = Panel(spec, date(1970, 1, 1), performance, behavior, np.ones(1, np.int32), keys)
        zero_B = np.zeros(count, np.int64)
        return self.windows(panel, self.profile(panel), zero_B, zero_B)

    def _dense(
        self, performance_BLP: Floats, advertiser_BLM: Floats, age_B: Ints, weekday_B: Ints
    ) -> tuple[Floats, Floats]:
        """The recent level in units of the task's scale, and features that are relative to it."""
        spec, horizon = self.spec, self.spec.horizon_days
        scale_M = np.asarray(self.task_scales)
        tasks = len(scale_M)
        newest_BLM = daily_totals(performance_BLP[:, ::-1], spec)
        running_BLM = np.cumsum(newest_BLM, 1)
        # An age beyond any rate's days must not matter: a panel that starts earlier gives the same forecast.
        age_B1 = np.maximum(age_B, 1)[:, None]

        def total(days: int) -> Floats:
            return np.asarray(running_BLM[:, days - 1] / np.minimum(days, age_B1) * horizon / scale_M)

        rate_KBM = np.stack([total(days) for days in LEVEL_DAYS])
        level_BM = rate_KBM.mean(0)
        floor = LEVEL_FLOOR
        week_BWM = np.diff(running_BLM[:, 6 : 7 * WEEKS : 7], axis=1, prepend=0) / 7 * horizon / scale_M
        week_BWM = np.where((age_B1 >= 7 * np.arange(1, WEEKS + 1))[:, :, None], week_BWM, level_BM[:, None])
        base_BM = np.log(level_BM + floor)
        row_BL = np.asarray((~np.isnan(performance_BLP[:, ::-1])).any(-1))
        silence_B = np.where(row_BL.any(1), row_BL.argmax(1), row_BL.shape[1])
        active_BM = (newest_BLM[:, :28] > 0).sum(1) / np.minimum(28, age_B1)
        weekday_BD = np.eye(7)[weekday_B]
        recent_KBM = [running_BLM[:, days - 1] / days * horizon / scale_M for days in RECENT_DAYS]
        day_BKM = newest_BLM[:, :DAYS_SEEN] * horizon / scale_M
        advertiser_running_BLM = np.cumsum(advertiser_BLM[:, ::-1], 1, dtype=np.float64)
        advertiser_KBM = [
            np.log(advertiser_running_BLM[:, days - 1] / days * horizon / scale_M + floor) for days in ADVERTISER_DAYS
        ]
        columns = [
            (np.log(week_BWM + floor) - base_BM[:, None]).reshape(-1, WEEKS * tasks),
            *(np.log(rate_BM + floor) - base_BM for rate_BM in (*rate_KBM, *recent_KBM)),
            (np.log(day_BKM + floor) - base_BM[:, None]).reshape(-1, DAYS_SEEN * tasks),
            # The advertiser's size beside this series', and its trend over all scenarios.
            *(advertiser_BM - base_BM for advertiser_BM in advertiser_KBM[:2]),
            *(new_BM - old_BM for new_BM, old_BM in pairwise(advertiser_KBM)),
            base_BM / 2,
            active_BM,
            np.log(np.minimum(age_B1, spec.lookback_days)) / 4,
            silence_B[:, None] / 28,
            weekday_BD,
        ]
        return level_BM.astype(np.float32), np.concatenate(columns, 1).astype(np.float32)


@dataclass(frozen=True)
class Profile:
    """Vocabulary codes per series: scenario id, S scenario attributes, A advertiser attributes."""

    scenario_N: Ints
    scenario_attributes_NS: Ints
    advertiser_attributes_NA: Ints


@dataclass(frozen=True)
class Windows:
    """One batch for the network: codes per day (0 = not registered), dense features, recent level, profile codes."""

    performance_BLP: Ints
    behavior_BLF: Ints
    registered_BL: Bools
    dense_BD: Floats
    level_BM: Floats
    scenario_B: Ints
    scenario_attributes_BS: Ints
    advertiser_attributes_BA: Ints


def fit_inputs(statistics: PanelStatistics, bins: int = 32) -> Inputs:
    """Learn bin edges, vocabularies and task scales. Works on empty statistics (one bin, no vocabulary, scale 1)."""
    spec = statistics.spec
    edges = [bin_edges(counts, bins) for counts in statistics.value_counts]
    mean_M = statistics.target_sum_M / max(statistics.target_count, 1)
    return Inputs(
        spec,
        tuple(edges[: len(spec.metrics)]),
        tuple(edges[len(spec.metrics) :]),
        vocabulary(statistics.scenario_counts),
        {name: vocabulary(counts) for name, counts in statistics.attribute_counts.items()},
        tuple(float(mean) if mean > 0 else 1.0 for mean in mean_M),
    )


def _codes(value_BLC: Floats, registered_BL: Bools, edges: Sequence[Sequence[float]]) -> Ints:
    code_BLC = np.where(np.isnan(value_BLC), MISSING, ZERO)
    for column, column_edges in enumerate(edges):
        value_BL, code_BL = value_BLC[..., column], code_BLC[..., column]
        positive_BL = value_BL > 0  # most days of most series are not
        log_X = np.log1p(value_BL[positive_BL])
        code_BL[positive_BL] = np.searchsorted(np.asarray(column_edges, np.float32), log_X) + FIRST_BIN
    code_BLC[~registered_BL] = NOT_REGISTERED
    return code_BLC


def _encode(column: pa.ChunkedArray, vocabulary: Sequence[str]) -> Ints:
    index = pc.index_in(column, value_set=pa.array(vocabulary, pa.string()))
    codes = pc.add(pc.fill_null(index, -1), 1).to_numpy()
    return np.asarray(codes, np.int64)
