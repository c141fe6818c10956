"""How series go wrong together: at one cutoff all share a weak or a strong week, those of a scenario one of their own,
those of an advertiser another.

N series, M targets, G levels, K groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from m2m_model.arrays import Floats, Ints, Strings
from m2m_model.forecasts.calibration import Dependence, Shared
from m2m_model.forecasts.distribution import Distribution, levels_of
from m2m_model.levels import LEVELS

USUAL = 0.04  # of the variance, shared, where a single cutoff cannot tell: all series 0.2 of their spreads off
OWN_CUTOFFS = 1.0  # cutoffs of one scenario that count as much as what scenarios have in common
OWN_PAIRS = 50  # pairs of series of one advertiser that count as much as that they share nothing
MOST_SHARED = 0.9

normal_of = NormalDist().inv_cdf
SCORE_G: Floats = np.array([normal_of(float(level)) for level in LEVELS])
_SLOPE_G: Floats = SCORE_G * np.diff([0.0, *(LEVELS[1:] + LEVELS[:-1]) / 2, 1.0])
GRID: Floats = np.arange(1, 1000) / 1000
SCORE_OF_GRID: Floats = np.array([normal_of(float(level)) for level in GRID])
_DENSITY_OF_GRID: Floats = np.exp(-(SCORE_OF_GRID**2) / 2) / np.sqrt(2 * np.pi)


def fit_dependence(
    forecast: Distribution, actual_NM: Floats, advertiser_N: Ints, scenario_N: Strings, cutoff_N: Ints
) -> Dependence:
    """Learn from N rows of several cutoffs, forecast as they would be published. N = 0 believes what is usual.

    The level of each actual in its forecast is a normal score. Products of two scores of one cutoff say what the
    two share: of one scenario, of one advertiser, of neither. Pairs count by their spreads, which totals add up.
    """
    low_NM, high_NM = levels_of(forecast, actual_NM)
    zero_NM = forecast.p_zero_NM
    # A zero stands for all scores below that of its mass: their mean is what is known, and varies less than 1.
    score_NM = (_density(low_NM) - _density(high_NM)) / (high_NM - low_NM)
    cut_NM = np.interp(zero_NM, GRID, SCORE_OF_GRID)
    told_NM = 1 - zero_NM + _density(zero_NM) * (cut_NM + _density(zero_NM) / np.maximum(zero_NM, 1e-9))
    spread_NM = np.maximum(np.tensordot(_SLOPE_G, forecast.level_GNM, 1), 0)
    names, place_N = np.unique(scenario_N.astype(str), return_inverse=True)
    at = (place_N, *(np.unique(code_N, return_inverse=True)[1] for code_N in (advertiser_N, cutoff_N)))
    of_targets = zip(score_NM.T, told_NM.T, spread_NM.T, strict=True)
    return Dependence(tuple(_shared(list(map(str, names)), *of_target, *at) for of_target in of_targets))


def _shared(
    names: Sequence[str],
    score_N: Floats,
    told_N: Floats,
    spread_N: Floats,
    scenario_N: Ints,
    advertiser_N: Ints,
    cutoff_N: Ints,
) -> Shared:
    cutoffs = int(cutoff_N.max(initial=-1)) + 1
    if cutoffs < 2:
        return Shared(USUAL / 2, USUAL / 2, {}, 0.0, cutoffs)
    # Forecasts were calibrated on these cutoffs: a new one differs from their mean by more than they do.
    unseen = (cutoffs + 1) / (cutoffs - 1)
    cell_N = cutoff_N * len(names) + scenario_N
    own_N = cutoff_N * (int(advertiser_N.max()) + 1) + advertiser_N

    def pairs(weight_N: Floats, group_N: Ints, groups: int = 0) -> Floats:
        """Of all pairs of two rows in each group, the sums of products, and what they would be if all were shared:
        (2, groups)."""
        parts = (weight_N * score_N, weight_N * told_N)
        return np.stack(
            [np.bincount(group_N, x_N, groups) ** 2 - np.bincount(group_N, x_N**2, groups) for x_N in parts]
        )

    def alike(group_N: Ints) -> Floats:
        """Spreads, in which each group has as much."""
        return np.asarray(spread_N / np.maximum(np.bincount(group_N, spread_N * told_N), 1e-300)[group_N])

    found_K, all_K = pairs(alike(cell_N), cell_N, cutoffs * len(names)).reshape(2, cutoffs, -1).sum(1)
    told_K = all_K > 1e-6
    within = unseen * float(np.median(found_K[told_K] / all_K[told_K])) if told_K.any() else USUAL
    within_K = (unseen * found_K + OWN_CUTOFFS * within) / (all_K + OWN_CUTOFFS)
    weight_N = alike(cutoff_N)
    found, whole = pairs(weight_N, cutoff_N).sum(1) - pairs(weight_N, cell_N).sum(1) - pairs(weight_N, own_N).sum(1)
    # Two series of one scenario share no less; where one scenario has nearly all, few pairs of others say too much.
    market = float(np.clip(unseen * found / whole if whole > 1e-6 else within, 0, np.clip(within, 0, MOST_SHARED)))

    def beyond(share: float) -> float:
        return float(np.clip(share - market, 0, MOST_SHARED - market))

    scenarios = {name: beyond(share) for name, share in zip(names, within_K, strict=True)}
    found, whole = pairs(np.ones_like(score_N), own_N).sum(1)
    advertiser = min(beyond(found / (whole + OWN_PAIRS)), MOST_SHARED - market - max(scenarios.values()))
    return Shared(market, beyond(within), scenarios, advertiser, cutoffs)


def _density(level_x: Floats) -> Floats:
    """Of the normal distribution at its quantiles."""
    found_x = np.interp(level_x, [0.0, *GRID, 1.0], [0.0, *_DENSITY_OF_GRID, 0.0])
    return np.asarray(found_x)
