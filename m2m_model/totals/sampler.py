"""Samples of series' totals, joined by what the series share: a Gaussian copula (Li 2000).

N series, G levels, S samples, P patterns, K scenarios.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from zlib import crc32

import numpy as np

from m2m_model.arrays import Floats, Ints
from m2m_model.forecasts.calibration import Dependence
from m2m_model.levels import LEVELS
from m2m_model.totals.dependence import SCORE_G, normal_of

SAMPLES = 128
PATTERNS = 4096  # orders of the samples: a series reads one of them, from a place of its own
_STEPS, _REACH = 64, 4  # normal scores are read in steps of 1/64, up to 4


class Sampler:
    """Samples of the totals of series, joined by a ``Dependence``. A series has the same ones on every day and in any
    bucket: they follow from its name."""

    def __init__(self, dependence: Dependence) -> None:
        self.dependence = dependence
        self.even_S = np.array([normal_of((s + 0.5) / SAMPLES) for s in range(SAMPLES)], np.float32)
        order_PS = np.random.default_rng(1).permuted(np.tile(self.even_S, (PATTERNS, 1)), axis=1)
        self._from_PSS = np.lib.stride_tricks.sliding_window_view(np.tile(order_PS, 2), SAMPLES, axis=1)
        score = (np.arange(2 * _REACH * _STEPS) + 0.5) / _STEPS - _REACH
        place = np.interp(score, SCORE_G, np.arange(len(LEVELS)))
        self._below = np.minimum(place.astype(np.int32), len(LEVELS) - 2)
        self._share = (place - self._below).astype(np.float32)

    def places(self, names: Iterable[str]) -> tuple[Ints, Ints]:
        """Where each name's own scores are kept: a pattern, and where in it they begin."""
        code = np.fromiter((crc32(name.encode()) for name in names), np.int64)
        return code % PATTERNS, code // PATTERNS % SAMPLES

    def own(self, places: tuple[Ints, Ints]) -> Floats:
        """Normal scores (names, S): of each name the same evenly spread ones, in an order of its own."""
        return self._from_PSS[places]

    def shocks(self, m: int, scenarios: Sequence[str]) -> tuple[Floats, Floats]:
        """What all series of a scenario share of a task, (scenarios, S), and the share of the variance that is left to
        each of its series."""
        target = self.dependence.targets[m]
        share_K = np.array([target.scenarios.get(name, target.scenario) for name in scenarios])
        market_S = _student(self.even_S, target.cutoffs)
        scenario_KS = _student(self.own(self.places(f"scenario {name}" for name in scenarios)), target.cutoffs)
        shared_KS = np.sqrt(target.market) * market_S + np.sqrt(share_K)[:, None] * scenario_KS
        left_K = np.maximum(1 - target.market - share_K - target.advertiser, 0)
        return shared_KS.astype(np.float32), left_K.astype(np.float32)

    def read(self, score_NS: Floats, level_NG: Floats, zero_N: Floats) -> Floats:
        """The totals at normal scores: between two levels what lies between, and 0 at scores up to ``zero_N``."""
        step_NS = ((score_NS + np.float32(_REACH)) * _STEPS).astype(np.int32)
        np.clip(step_NS, 0, len(self._below) - 1, out=step_NS)
        place_NS = self._below[step_NS]
        place_NS += np.arange(len(level_NG), dtype=np.int32)[:, None] * level_NG.shape[1]
        flat = level_NG.ravel()
        value_NS = flat[place_NS]
        place_NS += 1
        rise_NS = flat[place_NS]
        rise_NS -= value_NS
        rise_NS *= self._share[step_NS]
        value_NS += rise_NS
        value_NS *= score_NS > zero_N[:, None]
        return value_NS


def _student(score_x: Floats, degrees: int) -> Floats:
    """Normal scores as those of Student's t (Cornish and Fisher 1938): few cutoffs say little of how far weeks differ,
    and nothing of the farthest."""
    nu = max(2 * degrees, 3)
    return np.asarray(
        score_x + (score_x**3 + score_x) / (4 * nu) + (5 * score_x**5 + 16 * score_x**3 + 3 * score_x) / (96 * nu**2)
    )
