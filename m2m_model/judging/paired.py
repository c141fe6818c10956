"""Is one forecaster's error below another's by more than chance? A paired bootstrap over advertisers.

In each replicate an advertiser counts 0, 1, 2, ... times: Poisson with mean 1 (Hanley and MacGibbon 2006), the same
number for every forecaster, scenario, target and cutoff. So what makes all of them err alike cancels, and all weeks of
an advertiser stand or fall together. The number follows from the id and the replicate alone: replicates add up over
buckets, in any order, and are the same tomorrow. Replicate 0 is the data as they are.

S series, A advertisers, M targets, R replicates and one, K scenarios.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, factorial
from zlib import crc32

import numpy as np
from scipy.special import ndtr

from m2m_model.arrays import Floats, Ints, Strings

REPLICATES = 200
_BELOW = np.cumsum([exp(-1) / factorial(k) for k in range(12)])[:-1]  # of Poisson with mean 1
_STEP, _FIRST, _SECOND = (np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def counts(advertiser_A: Sequence[str] | Strings) -> Ints:
    """(A, R): how often each advertiser counts in each replicate."""
    code_A = np.fromiter((crc32(name.encode()) for name in advertiser_A), np.uint64)
    with np.errstate(over="ignore"):  # splitmix64 (Steele, Lea and Flood 2014), on numbers that wrap
        mixed = (code_A[:, None] * _SECOND) ^ (np.arange(REPLICATES + 1, dtype=np.uint64) * _STEP)
        for shift, factor in ((30, _FIRST), (27, _SECOND)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * factor
        mixed ^= mixed >> np.uint64(31)
    uniform = (mixed >> np.uint64(11)).astype(np.float64) / 2**53
    found = np.searchsorted(_BELOW, uniform, side="right").astype(np.uint8)
    found[:, 0] = 1
    return found


def replicate_sums(error_SM: Floats, advertiser_S: Strings, scenario_S: Strings) -> tuple[Strings, Floats]:
    """Scenarios, and the errors' sums in each replicate, (K, M, R).

    Args:
        error_SM: absolute errors, added up over cutoffs; 0 where a series was not judged.
    """
    scenarios, place_S = np.unique(scenario_S.astype(str), return_inverse=True)
    names, advertiser = np.unique(advertiser_S.astype(str), return_inverse=True)
    count_AR = counts(names)
    sums_KMR = np.zeros((len(scenarios), error_SM.shape[1], REPLICATES + 1))
    for k in range(len(scenarios)):
        rows = np.flatnonzero(place_S == k)
        sums_KMR[k] = error_SM[rows].T.astype(np.float64) @ count_AR[advertiser[rows]].astype(np.float64)
    return scenarios, sums_KMR


@dataclass(frozen=True)
class Comparison:
    """Errors of one over another's: ``ratio``, its 95 % interval, and the standard deviation of its logarithm. All NaN
    where a figure is missing; a side without any error has no spread."""

    ratio: float
    low: float
    high: float
    spread: float


def compare(error_R: Floats, other_R: Floats) -> Comparison:
    """Of two forecasters' errors in the same replicates."""
    if not (np.isfinite(error_R).all() and np.isfinite(other_R).all()) or len(error_R) == 0:
        return Comparison(np.nan, np.nan, np.nan, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_R = np.log(error_R) - np.log(other_R)
    known = log_R[1:][np.isfinite(log_R[1:])]
    if not np.isfinite(log_R[0]) or len(known) < REPLICATES // 2:
        ratio = np.inf if error_R[0] > other_R[0] else 0.0 if error_R[0] < other_R[0] else 1.0
        return Comparison(ratio, ratio, ratio, 0.0)
    ratio, low, high = np.exp([log_R[0], *np.quantile(known, [0.025, 0.975])])
    return Comparison(float(ratio), float(low), float(high), float(known.std()))


def chance(ratio_X: Floats, spread_X: Floats, tolerance: float) -> Floats:
    """(X,): the probability that a ratio of 1 + ``tolerance`` shows as one so far above it; NaN where it is unknown."""
    with np.errstate(divide="ignore", invalid="ignore"):
        above_X = np.log(ratio_X) - np.log1p(tolerance)
        z_X = np.where(spread_X > 0, above_X / spread_X, np.where(above_X > 0, np.inf, -np.inf))
    return np.asarray(np.where(np.isnan(ratio_X), np.nan, ndtr(-z_X)))


def discoveries(p_X: Floats, rate: float) -> np.ndarray:
    """Which of many are not chance, when a share ``rate`` of those that are called so may be (Benjamini and Hochberg
    1995). NaN is none."""
    p = np.where(np.isnan(p_X), 1.0, p_X)
    order = np.argsort(p, kind="stable")
    passes = p[order] <= rate * np.arange(1, len(p) + 1) / max(len(p), 1)
    found = np.zeros(len(p), bool)
    if passes.any():
        found[order[: np.flatnonzero(passes)[-1] + 1]] = True
    return found
