"""Forecast distributions as arrays: what every forecaster, calibration and metric speaks.

N series, M targets (a task over a horizon each), G levels of ``LEVELS``. A total is zero with a probability of its own
and continuous above; so a distribution is its mean, its zero mass and its quantile function on a fixed grid of levels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from m2m_model.arrays import Floats, Rows
from m2m_model.levels import LEVELS, PUBLISHED

_SAMPLES = slice(2, -2)  # levels at even distances: together a sample of the distribution
_CANDIDATES: tuple[int, ...] = tuple(int(np.argmin(np.abs(LEVELS - level))) for level in np.arange(8, 17) / 20)
_TINY = np.float32(1e-30)  # below any total: nothing over nothing is no gap
POINT_TOLERANCE = 0.05  # of the least expected absolute error, given up for a smaller expected SMAPE


@dataclass(frozen=True)
class Distribution:
    """Distributions of N series and M targets, in the metrics' own units. Never below 0, never crossing.

    ``point_NM`` is the single figure to act on: a baseline's own forecast, or what ``decode`` says.
    """

    point_NM: Floats
    mean_NM: Floats
    p_zero_NM: Floats  # probability of a total of exactly 0
    level_GNM: Floats  # quantile function at ``LEVELS``

    @classmethod
    def point(cls, forecast_NM: Floats) -> Distribution:
        """A forecast without a distribution: every figure is the point itself."""
        return cls(
            forecast_NM,
            forecast_NM,
            (forecast_NM == 0).astype(np.float64),
            np.broadcast_to(forecast_NM, (len(LEVELS), *forecast_NM.shape)),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Distribution]) -> Distribution:
        """One after the other, along N."""
        return cls(
            np.concatenate([part.point_NM for part in parts]),
            np.concatenate([part.mean_NM for part in parts]),
            np.concatenate([part.p_zero_NM for part in parts]),
            # The levels of a forecast lie beside each other in memory.
            np.concatenate([part.level_GNM.transpose(1, 2, 0) for part in parts]).transpose(2, 0, 1),
        )

    def __getitem__(self, rows: Rows) -> Distribution:
        return Distribution(self.point_NM[rows], self.mean_NM[rows], self.p_zero_NM[rows], self.level_GNM[:, rows])

    def __len__(self) -> int:
        return len(self.mean_NM)

    @property
    def quantiles(self) -> tuple[Floats, ...]:
        """(N, M) each, in the order of ``QUANTILES``."""
        return tuple(self.level_GNM[index] for index in PUBLISHED)

    @property
    def p05_NM(self) -> Floats:
        return self.quantiles[0]

    @property
    def p25_NM(self) -> Floats:
        return self.quantiles[1]

    @property
    def median_NM(self) -> Floats:
        return self.quantiles[2]

    @property
    def p75_NM(self) -> Floats:
        return self.quantiles[3]

    @property
    def p95_NM(self) -> Floats:
        return self.quantiles[4]


def decode(distribution: Distribution) -> Distribution:
    """The same with the point that both errors want: of the figures whose expected absolute error is within
    ``POINT_TOLERANCE`` of the least, the one with the least expected SMAPE.

    NMAE wants the median, and near it hardly minds; SMAPE minds much whether a likely zero is called zero.
    """
    point_NM = np.empty_like(distribution.mean_NM)
    for start in range(0, len(distribution), 4096):
        rows = slice(start, start + 4096)
        level_GNM = distribution.level_GNM[:, rows].astype(np.float32)
        sample_GNM = level_GNM[_SAMPLES]
        candidates = [np.zeros_like(level_GNM[0]), *(level_GNM[index] for index in _CANDIDATES)]
        absolute, relative = [], []
        for candidate_NM in candidates:
            gap_GNM = np.abs(sample_GNM - candidate_NM)
            absolute.append(gap_GNM.mean(0))
            gap_GNM /= np.maximum(sample_GNM + candidate_NM, _TINY)
            relative.append(gap_GNM.mean(0))
        near = np.stack(absolute) <= np.min(absolute, 0) * (1 + POINT_TOLERANCE)
        chosen_1NM = np.where(near, np.stack(relative), np.inf).argmin(0)[None]
        point_NM[rows] = np.take_along_axis(np.stack(candidates), chosen_1NM, 0)[0]
    return replace(distribution, point_NM=point_NM)


def pool(parts: Sequence[Distribution], weight_PNM: Floats) -> Distribution:
    """P forecasts of the same series in one: points, quantiles and zero masses are averaged; a pool of one is itself.

    Averaging quantiles (Ratcliff 1979; Lichtendahl, Grushka-Cockayne and Winkler 2013) keeps the width of its parts,
    where averaging densities would widen it. Zero stays possible: where the pooled zero mass says so, the level is 0.
    """

    def mean(figures: Iterable[Floats]) -> Floats:
        weighted = (weight_NM * figure_xNM for weight_NM, figure_xNM in zip(weight_PNM, figures, strict=True))
        return reduce(np.add, weighted)

    point_NM, p_zero_NM = mean(part.point_NM for part in parts), mean(part.p_zero_NM for part in parts)
    mean_NM, level_GNM = mean(part.mean_NM for part in parts), mean(part.level_GNM for part in parts)
    return Distribution(point_NM, mean_NM, p_zero_NM, zero_below(p_zero_NM, level_GNM))


def uncrossed(level_GNM: Floats) -> Floats:
    """The same, in place, where no level is below the one before it. Few rows have one, and looking is cheaper than
    mending."""
    crossed_NM = (level_GNM[1:] < level_GNM[:-1]).any(0)
    if crossed_NM.any():
        level_GNM[:, crossed_NM] = np.maximum.accumulate(level_GNM[:, crossed_NM], 0)
    return level_GNM


def levels_of(distribution: Distribution, actual_NM: Floats) -> tuple[Floats, Floats]:
    """Between which levels each actual lies in its distribution, (N, M) each; ``high`` > ``low``."""
    edge = np.concatenate([[0.0], LEVELS, [1.0]])
    below_NM = (distribution.level_GNM < actual_NM - 1e-9).sum(0)
    upto_NM = (distribution.level_GNM <= actual_NM + 1e-9).sum(0)
    low_NM, high_NM = edge[below_NM], edge[upto_NM + 1]
    nothing_NM = actual_NM == 0
    high_NM = np.where(nothing_NM, np.maximum(distribution.p_zero_NM, LEVELS[0] / 2), high_NM)
    low_NM = np.where(nothing_NM, 0.0, np.minimum(np.maximum(low_NM, distribution.p_zero_NM), 1 - 1e-6))
    return low_NM, np.maximum(high_NM, low_NM + 1e-6)


def zero_below(p_zero_NM: Floats, level_GNM: Floats) -> Floats:
    """0 at every level that the zero mass covers."""
    return np.where(LEVELS[:, None, None] <= p_zero_NM + 1e-9, 0.0, level_GNM)
