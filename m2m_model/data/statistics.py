"""What bin edges, vocabularies and scales are made from: counts and sums that add up over panels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from m2m_model.arrays import Floats, Ints
from m2m_model.data.grid import NOTHING, from_grid, to_grid
from m2m_model.data.panel import CHUNK, Panel
from m2m_model.data.served_by import is_eligible, served_on
from m2m_model.data.spec import SequenceSpec

VOCABULARY_SIZE = 1000

# The points of the grid that values are counted on, 2^-24 .. 2^60; what lies outside counts at the ends.
_LEAST, _GREATEST = (int(point) for point in to_grid(np.array([2.0**-24, 2.0**60])))


@dataclass
class PanelStatistics:
    """What bin edges, vocabularies and scales are made from. Bounded in size; add them up over panels."""

    spec: SequenceSpec
    value_counts: Ints  # (P + F + C, points) positive values per metric, then per behavior, then per plan
    scenario_counts: Counter[str] = field(default_factory=Counter)
    attribute_counts: dict[str, Counter[str]] = field(default_factory=dict)
    target_sum_M: Floats = field(default_factory=lambda: np.zeros(0))
    target_count: int = 0

    @classmethod
    def of(cls, panel: Panel, train_end: date) -> PanelStatistics:
        """Statistics of the rows up to ``train_end``, which may lie after the panel's last day."""
        spec, horizon = panel.spec, panel.spec.horizon_days
        end = min((train_end - panel.first_day).days, panel.days - 1) + 1
        columns = len(spec.metrics) + len(spec.behaviors) + len(spec.plans)
        counts = np.zeros((columns, NOTHING + 1), np.int64)
        total_M, rows = np.zeros(len(spec.targets)), 0
        known_N = panel.registered_N < end
        cutoffs = range(end - 1 - horizon, -1, -7) if end > 0 else range(0)
        for start in range(0, len(panel) if end > 0 else 0, CHUNK):
            part = slice(start, start + CHUNK)
            blocks = (panel.performance_NTP, panel.behavior_NTF, panel.future_NTC)
            points = [point_NT for block in blocks for point_NT in np.moveaxis(block[part, :end], -1, 0)]
            for column, point_NT in enumerate(points):
                counts[column] += np.bincount(point_NT.ravel(), minlength=NOTHING + 1)
            running_NTM = np.cumsum(panel.daily_NTM[part, :end], 1, dtype=np.float64)
            eligible_NC = is_eligible(served_on(panel, np.array(cutoffs, np.int64), part))
            for cutoff, recent_N in zip(cutoffs, eligible_NC.T, strict=True):
                begun_NM = running_NTM[recent_N, cutoff]
                rises = [(running_NTM[recent_N, cutoff + days] - begun_NM).sum(0) for days in spec.horizons_days]
                total_M += np.stack(rises, 1).ravel()
                rows += int(recent_N.sum())
        known = panel.keys.filter(pa.array(known_N))
        attributes = dict.fromkeys((*spec.advertiser_attributes, *spec.scenario_attributes))
        counted = counts[:, _LEAST : _GREATEST + 1]
        counted[:, 0] += counts[:, 1:_LEAST].sum(1)
        counted[:, -1] += counts[:, _GREATEST + 1 : NOTHING].sum(1)
        return cls(
            spec,
            counted,
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
    """Quantiles of the values seen, without repeats: the least value of every bin but the first."""
    total = counts.sum()
    if total == 0 or bins < 2:
        return ()
    wanted = np.arange(1, bins) / bins * total
    point = np.unique(np.searchsorted(np.cumsum(counts), wanted))
    return tuple(from_grid(_LEAST + 1 + point).tolist())


def mean_value(counts: Ints) -> float:
    """Of the positive values seen; 1 where none was."""
    total = int(counts.sum())
    value = from_grid(_LEAST + np.arange(len(counts))).astype(np.float64)
    return float(counts @ value / total) if total else 1.0


def vocabulary(counts: Counter[str]) -> tuple[str, ...]:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(value for value, _ in ranked[:VOCABULARY_SIZE])


def _top(column: pa.ChunkedArray) -> Counter[str]:
    """The most frequent values; ten times the vocabulary is kept so that adding panels up stays right."""
    counted = pc.value_counts(column.drop_null()).to_pylist() if len(column) else []
    ranked = sorted(((row["values"], row["counts"]) for row in counted), key=lambda item: (-item[1], item[0]))
    return Counter(dict(ranked[: 10 * VOCABULARY_SIZE]))
