"""What the network reads of a panel, and what that is learned from; ``network.windows`` cuts it.

N series, P performance metrics, F behavior columns, M targets, D dense features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from m2m_model.arrays import Ints
from m2m_model.data.grid import NOTHING, from_grid
from m2m_model.data.panel import Panel
from m2m_model.data.spec import LEVEL_DAYS, WEEKS, SequenceSpec
from m2m_model.data.statistics import PanelStatistics, bin_edges, mean_value, vocabulary

# A day of a sequence is one of these, or FIRST_BIN + its value's bin. Days that are not registered are padding.
NOT_REGISTERED, MISSING, ZERO, FIRST_BIN = 0, 1, 2, 3

RECENT_DAYS = (1, 2, 3, 5, 56)  # further rates among the dense features
DAYS_SEEN = 7  # single days among the dense features
ADVERTISER_DAYS = (7, 28, 56)  # rates of the advertiser over all its scenarios
PLAN_FEATURES = 4  # of each plan: beside earlier ones, beside what was achieved, whether there is one, and was one
LEVEL_FLOOR = 0.02  # added to the level (in units of the task's scale): a series that sold nothing is not hopeless


@dataclass(frozen=True)
class Inputs:
    """How values become codes: learned once on the training window, saved with the weights.

    Edges are values on the grid, ascending, per metric and behavior: the least of every bin but the first.
    Vocabularies are sorted by frequency; code 0 is "unknown". ``target_scales`` is each target's mean total per
    eligible series: what makes them comparable in the loss; ``plan_scales`` is each plan's mean.
    """

    spec: SequenceSpec
    metric_edges: tuple[tuple[float, ...], ...]
    behavior_edges: tuple[tuple[float, ...], ...]
    scenarios: tuple[str, ...]
    attributes: dict[str, tuple[str, ...]]
    target_scales: tuple[float, ...]
    plan_scales: tuple[float, ...] = ()

    @property
    def codes(self) -> int:
        """Size of the code book of one metric: three kinds of nothing, and the bins."""
        return FIRST_BIN + 1 + max(map(len, (*self.metric_edges, *self.behavior_edges)), default=0)

    @property
    def dense_features(self) -> int:
        """D: weeks, rates, single days, advertiser's rates, level and active share per task; age, silence, weekday;
        plans."""
        per_task = WEEKS + len(LEVEL_DAYS) + len(RECENT_DAYS) + DAYS_SEEN + len(ADVERTISER_DAYS) + 1 + 2
        return len(self.spec.tasks) * per_task + 2 + 7 + PLAN_FEATURES * len(self.spec.plans)

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
            tuple(values["target_scales"]),
            tuple(values.get("plan_scales", ())),
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

    def code_books(self) -> Ints:
        """The code of each point of the grid, (P + F, points), uint8: in the order of metrics, then behaviors.

        Raises:
            ValueError: a metric has more bins than a byte can name.
        """
        if self.codes > 256:
            raise ValueError(f"{self.codes} codes a metric: a code is one byte; lower bins")
        least = from_grid(np.arange(NOTHING))
        books = [
            np.searchsorted(np.asarray(edges, np.float32), least, "right") + FIRST_BIN
            for edges in (*self.metric_edges, *self.behavior_edges)
        ]
        book_CG = np.stack([np.append(book, MISSING) for book in books]).astype(np.uint8)
        book_CG[:, 0] = ZERO
        return book_CG


@dataclass(frozen=True)
class Profile:
    """Vocabulary codes per series: scenario id, S scenario attributes, A advertiser attributes."""

    scenario_N: Ints
    scenario_attributes_NS: Ints
    advertiser_attributes_NA: Ints


def fit_inputs(statistics: PanelStatistics, bins: int = 32) -> Inputs:
    """Learn bin edges, vocabularies and scales. Works on empty statistics (one bin, no vocabulary, scale 1)."""
    spec, values = statistics.spec, len(statistics.spec.metrics) + len(statistics.spec.behaviors)
    edges = [bin_edges(counts, bins) for counts in statistics.value_counts[:values]]
    mean_M = statistics.target_sum_M / max(statistics.target_count, 1)
    return Inputs(
        spec,
        tuple(edges[: len(spec.metrics)]),
        tuple(edges[len(spec.metrics) :]),
        vocabulary(statistics.scenario_counts),
        {name: vocabulary(counts) for name, counts in statistics.attribute_counts.items()},
        tuple(float(mean) if mean > 0 else 1.0 for mean in mean_M),
        tuple(map(mean_value, statistics.value_counts[values:])),
    )


def _encode(column: pa.ChunkedArray, vocabulary: Sequence[str]) -> Ints:
    index = pc.index_in(column, value_set=pa.array(vocabulary, pa.string()))
    codes = pc.add(pc.fill_null(index, -1), 1).to_numpy()
    return np.asarray(codes, np.int64)
