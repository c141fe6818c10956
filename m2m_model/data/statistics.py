"""What bin edges, vocabularies and scales are made from: counts and sums that add up over panels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from m2m_model.arrays import Floats, Ints
from m2m_model.data.panel import CHUNK, Panel
from m2m_model.data.served_by import is_eligible, served_on
from m2m_model.data.spec import SequenceSpec, daily_totals

VOCABULARY_SIZE = 1000

# Value counts are kept on a fine logarithmic grid: 16 buckets per doubling, 2^-24 .. 2^60.
_GRID_LOW, _GRID_PER_DOUBLING, _GRID_SIZE = -24, 16, 84 * 16


@dataclass
class PanelStatistics:
    """What bin edges, vocabularies and scales are made from. Bounded in size; add them up over panels."""

    spec: SequenceSpec
    value_counts: Ints  # (P + F, grid) positive values per metric, then per behavior
    scenario_counts: Counter[str] = field(default_factory=Counter)
    attribute_counts: dict[str, Counter[str]] = field(default_factory=dict)
    target_sum_M: Floats = field(default_factory=lambda: np.zeros(0))
    target_count: int = 0

    @classmethod
    def of(cls, panel: Panel, train_end: date) -> PanelStatistics:
        """Statistics of the rows up to ``train_end``, which may lie after the panel's last day."""
        spec, horizon = panel.spec, panel.spec.horizon_days
        end = min((train_end - panel.first_day).days, panel.days - 1) + 1
        columns = len(spec.metrics) + len(spec.behaviors)
        counts = np.zeros((columns, _GRID_SIZE), np.int64)
        total_M, rows = np.zeros(len(spec.tasks)), 0
        known_N = panel.registered_N < end
        cutoffs = range(end - 1 - horizon, -1, -7) if end > 0 else range(0)
        for start in range(0, len(panel) if end > 0 else 0, CHUNK):
            part = slice(start, start + CHUNK)
            performance_NTP = np.asarray(panel.performance_NTP[part, :end])
            values = [*np.moveaxis(performance_NTP, -1, 0), *np.moveaxis(panel.behavior_NTF[part, :end], -1, 0)]
            for column, value_NT in enumerate(values):
                grid = _grid_bucket(value_NT[value_NT > 0])
                counts[column] += np.bincount(grid, minlength=_GRID_SIZE)
            running_NTM = np.cumsum(daily_totals(performance_NTP, spec), 1)
            eligible_NC = is_eligible(served_on(panel, np.array(cutoffs, np.int64), part))
            for cutoff, recent_N in zip(cutoffs, eligible_NC.T, strict=True):
                total_M += (running_NTM[recent_N, cutoff + horizon] - running_NTM[recent_N, cutoff]).sum(0)
                rows += int(recent_N.sum())
        known = panel.keys.filter(pa.array(known_N))
        attributes = dict.fromkeys((*spec.advertiser_attributes, *spec.scenario_attributes))
        return cls(
            spec,
            counts,
            _top(known["scenario_id"]),
            {name: _top(known[name]) for name in attributes},
            total_M,
            rows,
        )

    def __add__(self, other: PanelStatistics) -> PanelStatistics:
        if self.spec != other.spec:
            raise ValueError("statistics of different data sets cannot be added")
        return PanelStatistics(
            self.spec,
            self.value_counts + other.value_counts,
            self.scenario_counts + other.scenario_counts,
            {name: counts + other.attribute_counts[name] for name, counts in self.attribute_counts.items()},
            self.target_sum_M + other.target_sum_M,
            self.target_count + other.target_count,
        )


def bin_edges(counts: Ints, bins: int) -> tuple[float, ...]:
    """Quantiles of the values seen, as log1p, without repeats."""
    total = counts.sum()
    if total == 0 or bins < 2:
        return ()
    wanted = np.arange(1, bins) / bins * total
    bucket = np.unique(np.searchsorted(np.cumsum(counts), wanted))
    value = 2.0 ** (_GRID_LOW + (bucket + 1) / _GRID_PER_DOUBLING)
    return tuple(np.log1p(value).tolist())


def vocabulary(counts: Counter[str]) -> tuple[str, ...]:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(value for value, _ in ranked[:VOCABULARY_SIZE])


def _grid_bucket(value_x: Floats) -> Ints:
    bucket = np.floor((np.log2(value_x.astype(np.float64)) - _GRID_LOW) * _GRID_PER_DOUBLING)
    return np.asarray(np.clip(bucket, 0, _GRID_SIZE - 1), np.int64)


def _top(column: pa.ChunkedArray) -> Counter[str]:
    """The most frequent values; ten times the vocabulary is kept so that adding panels up stays right."""
    counted = pc.value_counts(column.drop_null()).to_pylist() if len(column) else []
    ranked = sorted(((row["values"], row["counts"]) for row in counted), key=lambda item: (-item[1], item[0]))
    return Counter(dict(ranked[: 10 * VOCABULARY_SIZE]))
