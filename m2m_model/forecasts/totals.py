"""Totals of many series with intervals of their own: of an advertiser, a scenario, an attribute's value, the platform.

Quantiles do not add up: their sums are right for series that all go wrong together, and series that go wrong each on
its own have far narrower totals. Between the two lies what validation saw (``Dependence``): at one cutoff all series
share a weak or a strong week, those of a scenario one of its own, those of an advertiser another. A Gaussian copula
with these parts (Li 2000) joins the series' own distributions; samples of it are added up, group by group.

N series, M targets, G levels, S samples, K groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa

from m2m_model.arrays import Floats, Ints, Strings
from m2m_model.data.panel import Panel
from m2m_model.data.spec import SequenceSpec
from m2m_model.forecasts.cells import codes_of
from m2m_model.forecasts.distribution import Distribution, levels_of
from m2m_model.forecasts.forecasts import FIGURES, Forecasts
from m2m_model.forecasts.metrics import named
from m2m_model.levels import LEVELS, QUANTILES

USUAL = 0.04  # of the variance, shared, where a single cutoff cannot tell: all series 0.2 of their spreads off
OWN_CUTOFFS = 1.0  # cutoffs of one scenario that count as much as what scenarios have in common
OWN_PAIRS = 50  # pairs of series of one advertiser that count as much as that they share nothing
MOST_SHARED = 0.9
SAMPLES = 128
PATTERNS = 4096  # orders of the samples: a series reads one of them, from a place of its own
CHUNK = 256  # series sampled at a time: what they need stays in the cache

PLATFORM, SCENARIO, ADVERTISER, ATTRIBUTE = "platform", "scenario", "advertiser", "attribute"
GROUP = ("level", "name", "value", "task", "horizon_days")
_GROUP_FIELDS = [*((name, pa.string()) for name in GROUP[:-1]), ("horizon_days", pa.int32()), ("series", pa.int64())]
SUM_SCHEMA = pa.schema(
    [*_GROUP_FIELDS, ("mean", pa.float64()), ("square", pa.float64()), ("samples", pa.list_(pa.float64(), SAMPLES))]
)
TOTAL_SCHEMA = pa.schema([*_GROUP_FIELDS, *((name, pa.float64()) for name in FIGURES)])

_normal_of = NormalDist().inv_cdf
_SCORE_G: Floats = np.array([_normal_of(float(level)) for level in LEVELS])
_SLOPE_G: Floats = _SCORE_G * np.diff([0.0, *(LEVELS[1:] + LEVELS[:-1]) / 2, 1.0])
_GRID: Floats = np.arange(1, 1000) / 1000
_SCORE_OF_GRID: Floats = np.array([_normal_of(float(level)) for level in _GRID])
_DENSITY_OF_GRID: Floats = np.exp(-(_SCORE_OF_GRID**2) / 2) / np.sqrt(2 * np.pi)
_STEPS, _REACH = 64, 4  # normal scores are read in steps of 1/64, up to 4


@dataclass(frozen=True)
class Shared:
    """One task: the share of the variance of a series' normal score that is all series', its scenario's (``scenarios``:
    of those that were seen), its advertiser's; and the cutoffs that say so."""

    market: float
    scenario: float
    scenarios: Mapping[str, float]
    advertiser: float
    cutoffs: int


@dataclass(frozen=True)
class Dependence:
    """How series go wrong together, per task; JSON-serialisable."""

    tasks: tuple[Shared, ...]

    @classmethod
    def fit(
        cls, forecast: Distribution, actual_NM: Floats, advertiser_N: Ints, scenario_N: Strings, cutoff_N: Ints
    ) -> Dependence:
        """Learn from N rows of several cutoffs, forecast as they would be published. N = 0 believes what is usual.

        The level of each actual in its forecast is a normal score. Products of two scores of one cutoff say what the
        two share: of one scenario, of one advertiser, of neither. Pairs count by their spreads, which totals add up.
        """
        low_NM, high_NM = levels_of(forecast, actual_NM)
        zero_NM = forecast.p_zero_NM
        # A zero stands for all scores below that of its mass: their mean is what is known, and varies less than 1.
        score_NM = (_density(low_NM) - _density(high_NM)) / (high_NM - low_NM)
        cut_NM = np.interp(zero_NM, _GRID, _SCORE_OF_GRID)
        told_NM = 1 - zero_NM + _density(zero_NM) * (cut_NM + _density(zero_NM) / np.maximum(zero_NM, 1e-9))
        spread_NM = np.maximum(np.tensordot(_SLOPE_G, forecast.level_GNM, 1), 0)
        names, place_N = np.unique(scenario_N.astype(str), return_inverse=True)
        at = (place_N, *(np.unique(code_N, return_inverse=True)[1] for code_N in (advertiser_N, cutoff_N)))
        of_tasks = zip(score_NM.T, told_NM.T, spread_NM.T, strict=True)
        return cls(tuple(_shared(list(map(str, names)), *of_task, *at) for of_task in of_tasks))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Dependence:
        """The inverse of ``to_dict``."""
        return cls(tuple(Shared(**task) for task in values["tasks"]))


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
    market = float(np.clip(unseen * found / whole if whole > 1e-6 else within, 0, MOST_SHARED))

    def beyond(share: float) -> float:
        return float(np.clip(share - market, 0, MOST_SHARED - market))

    scenarios = {name: beyond(share) for name, share in zip(names, within_K, strict=True)}
    found, whole = pairs(np.ones_like(score_N), own_N).sum(1)
    advertiser = min(beyond(found / (whole + OWN_PAIRS)), MOST_SHARED - market - max(scenarios.values()))
    return Shared(market, beyond(within), scenarios, advertiser, cutoffs)


class Sampler:
    """Samples of the totals of series, joined by a ``Dependence``. A series has the same ones on every day and in any
    bucket: they follow from its name."""

    def __init__(self, dependence: Dependence) -> None:
        self.dependence = dependence
        self.even_S = np.array([_normal_of((s + 0.5) / SAMPLES) for s in range(SAMPLES)], np.float32)
        order_PS = np.random.default_rng(1).permuted(np.tile(self.even_S, (PATTERNS, 1)), axis=1)
        self._from_PSS = np.lib.stride_tricks.sliding_window_view(np.tile(order_PS, 2), SAMPLES, axis=1)
        score = (np.arange(2 * _REACH * _STEPS) + 0.5) / _STEPS - _REACH
        place = np.interp(score, _SCORE_G, np.arange(len(LEVELS)))
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
        task = self.dependence.tasks[m]
        share_K = np.array([task.scenarios.get(name, task.scenario) for name in scenarios])
        market_S = _student(self.even_S, task.cutoffs)
        scenario_KS = _student(self.own(self.places(f"scenario {name}" for name in scenarios)), task.cutoffs)
        shared_KS = np.sqrt(task.market) * market_S + np.sqrt(share_K)[:, None] * scenario_KS
        left_K = np.maximum(1 - task.market - share_K - task.advertiser, 0)
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


def add_up(
    forecasts: Forecasts, panel: Panel, sampler: Sampler, known: Mapping[str, Sequence[str]]
) -> tuple[pa.Table, pa.Table]:
    """Of the forecasts of one panel, which holds all series of an advertiser: the totals of its advertisers
    (``TOTAL_SCHEMA``), and the sums of all other groups (``SUM_SCHEMA``), to be added over panels and finished.

    Args:
        known: the values of each attribute that have a group; those of any other are in its group without a value.
    """
    spec, series_N = panel.spec, forecasts.series_N
    owner_N = panel.advertiser_index_N[series_N]
    by_owner = np.argsort(owner_N, kind="stable")
    forecasts, series_N, owner_N = forecasts[by_owner], series_N[by_owner], owner_N[by_owner]
    starts_A = np.flatnonzero(np.diff(owner_N, prepend=-1))
    count_A = np.diff(starts_A, append=len(owner_N))
    named_A = forecasts.advertiser_N[starts_A]
    spread, targets = forecasts.distribution, range(len(spec.targets))
    groupings = list(_groupings(forecasts, panel, known))
    sum_K = [np.zeros((len(targets), len(values), SAMPLES)) for _, _, values, _ in groupings]
    scenarios, scenario_N = groupings[1][2:]
    shocks = [sampler.shocks(m, [str(name) for name in scenarios]) for m in targets]
    advertiser_share = [np.float32(np.sqrt(task.advertiser)) for task in sampler.dependence.tasks]
    owner_place_A = sampler.places(f"advertiser {name}" for name in named_A)
    own_place_N = sampler.places(
        f"{name} in {scenario}" for name, scenario in zip(forecasts.advertiser_N, forecasts.scenario_N, strict=True)
    )
    zero_NM = np.interp(spread.p_zero_NM, [0.0, *_GRID, 1.0], [-9.0, *_SCORE_OF_GRID, 9.0]).astype(np.float32)
    mean_AM, square_AM = (np.add.reduceat(x_NM, starts_A) if len(starts_A) else x_NM for x_NM in _means(spread))
    # Of one series alone its own figures; the others are filled in.
    alone = spread[starts_A]
    p_zero_AM, level_QAM, point_AM = alone.p_zero_NM.copy(), np.stack(alone.quantiles), alone.point_NM.copy()
    for owners in _chunks(starts_A):
        rows = slice(starts_A[owners.start], starts_A[owners.stop - 1] + count_A[owners.stop - 1])
        code_N, several = scenario_N[rows], owners.start + np.flatnonzero(count_A[owners] > 1)
        own_NS = sampler.own((own_place_N[0][rows], own_place_N[1][rows]))
        owner_NS = np.repeat(sampler.own((owner_place_A[0][owners], owner_place_A[1][owners])), count_A[owners], 0)
        for m, target in enumerate(spec.targets):
            shared_KS, left_K = shocks[m]
            score_NS = own_NS * np.sqrt(left_K)[code_N, None]
            score_NS += shared_KS[code_N]
            if advertiser_share[m]:
                score_NS += advertiser_share[m] * owner_NS
            level_NG = np.ascontiguousarray(spread.level_GNM[:, rows, m].T, np.float32)
            value_NS = sampler.read(score_NS, level_NG, zero_NM[rows, m])
            if target.aggregate == "days":
                np.rint(value_NS, out=value_NS)
            for (_, _, _, group_N), sum_MKS in zip(groupings, sum_K, strict=True):
                inside, place_N = np.unique(group_N[rows], return_inverse=True)
                is_in_kN = (place_N == np.arange(len(inside))[:, None]).astype(np.float32)
                sum_MKS[m, inside] += is_in_kN @ value_NS
            if len(several):
                total_AS = np.add.reduceat(value_NS, starts_A[owners] - rows.start)[several - owners.start]
                most_A = count_A[several] * target.horizon_days if target.aggregate == "days" else None
                p_zero_AM[several, m], level_QAM[:, several, m] = _figures(
                    total_AS, mean_AM[several, m], square_AM[several, m], most_A
                )
    point_AM[count_A > 1] = level_QAM[2, count_A > 1]
    figures = (point_AM, mean_AM, p_zero_AM, *level_QAM[[2, 0, 1, 3, 4]])
    advertisers = pa.table(
        _keys(spec, ADVERTISER, None, named_A.tolist(), count_A)
        | {name: figure_AM.ravel() for name, figure_AM in zip(FIGURES, figures, strict=True)},
        TOTAL_SCHEMA,
    )
    sums = [
        _sums(spec, level, name, values, group_N, spread, sum_MKS)
        for (level, name, values, group_N), sum_MKS in zip(groupings, sum_K, strict=True)
    ]
    return advertisers, pa.concat_tables(sums)


def added(parts: Iterable[pa.Table]) -> pa.Table:
    """Sums of several panels in one, one after the other: no more than two are held."""
    place: dict[tuple[Any, ...], int] = {}
    series_K, figure_KF, sample_KS = np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros((0, SAMPLES))
    for part in parts:
        keys = zip(*(part[name].to_pylist() for name in GROUP), strict=True)
        at = [place.setdefault(key, len(place)) for key in keys]
        more = len(place) - len(series_K)
        series_K = np.pad(series_K, (0, more))
        figure_KF, sample_KS = (np.pad(x, ((0, more), (0, 0))) for x in (figure_KF, sample_KS))
        series_K[at] += part["series"].to_numpy()
        figure_KF[at] += np.stack([part[name].to_numpy() for name in ("mean", "square")], 1)
        sample_KS[at] += _samples(part)
    if not place:
        return SUM_SCHEMA.empty_table()
    columns: dict[str, Any] = dict(zip(GROUP, map(list, zip(*place, strict=True)), strict=True))
    columns |= {"series": series_K, "mean": figure_KF[:, 0], "square": figure_KF[:, 1]}
    columns["samples"] = pa.FixedSizeListArray.from_arrays(sample_KS.ravel(), SAMPLES)
    return pa.table(columns, SUM_SCHEMA)


def finish(sums: pa.Table, spec: SequenceSpec) -> pa.Table:
    """Sums of all panels as totals; see ``TOTAL_SCHEMA``."""
    days = [task.name for task in spec.tasks if task.aggregate == "days"]
    series_K, horizon_K = sums["series"].to_numpy(), sums["horizon_days"].to_numpy()
    whole_K = np.isin(np.array(sums["task"].to_pylist(), object), days)
    mean_K, sample_KS = sums["mean"].to_numpy(), _samples(sums)
    p_zero_K, level_QK = _figures(sample_KS, mean_K, sums["square"].to_numpy(), None)
    level_QK = np.where(whole_K, np.minimum(np.rint(level_QK), series_K * horizon_K), level_QK)
    figures = (level_QK[2], mean_K, p_zero_K, *level_QK[[2, 0, 1, 3, 4]])
    keys = {name: sums[name] for name in (*GROUP, "series")}
    return pa.table(keys | dict(zip(FIGURES, figures, strict=True)), TOTAL_SCHEMA)


def _groupings(
    forecasts: Forecasts, panel: Panel, known: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str | None, list[str | None], Ints]]:
    """Level, attribute, the values, and which of them each series has; the scenarios second."""
    yield PLATFORM, None, [None], np.zeros(len(forecasts.series_N), np.int64)
    scenarios, code_N = np.unique(forecasts.scenario_N.astype(str), return_inverse=True)
    yield SCENARIO, None, scenarios.tolist(), code_N
    for name in dict.fromkeys((*panel.spec.advertiser_attributes, *panel.spec.scenario_attributes)):
        values = list(known.get(name, ()))
        value_N = panel.keys[name].take(pa.array(forecasts.series_N)).to_numpy(zero_copy_only=False)
        yield ATTRIBUTE, name, [*values, None], codes_of(value_N, values)


def _chunks(starts_A: Ints) -> Iterator[slice]:
    """Advertisers, each with all its series, about ``CHUNK`` series at a time."""
    first = np.unique(starts_A // CHUNK, return_index=True)[1].tolist()
    for start, stop in pairwise([*first, len(starts_A)]):
        yield slice(start, stop)


def _means(spread: Distribution) -> tuple[Floats, Floats]:
    mean_NM = spread.mean_NM.astype(np.float64)
    return mean_NM, mean_NM**2


def _figures(sample_KS: Floats, mean_K: Floats, square_K: Floats, most_K: Ints | None) -> tuple[Floats, Floats]:
    """The mass at zero (K,) and the published quantiles (5, K) of samples.

    The mean is the sum of the series' means; the samples are brought to it by a factor, the less the fewer series count
    (1 over the sum of their squared shares): a few have their own quantiles, which are calibrated, many only a mean.
    """
    found_K = sample_KS.mean(1, dtype=np.float64)
    factor_K = np.divide(mean_K, found_K, out=np.ones_like(mean_K), where=(mean_K > 0) & (found_K > 0))
    alone_K = np.divide(square_K, mean_K**2, out=np.ones_like(mean_K), where=mean_K > 0)
    sorted_SK = np.sort(sample_KS, 1).T * factor_K ** (1 - np.minimum(alone_K, 1))
    place_Q1 = np.clip(np.array(QUANTILES) * SAMPLES - 0.5, 0, SAMPLES - 1)[:, None]
    below_Q = place_Q1[:, 0].astype(int)
    level_QK = sorted_SK[below_Q] + (place_Q1 - below_Q[:, None]) * (sorted_SK[below_Q + 1] - sorted_SK[below_Q])
    if most_K is not None:
        level_QK = np.minimum(np.rint(level_QK), most_K)
    return (sample_KS == 0).mean(1), level_QK


def _keys(
    spec: SequenceSpec, level: str, name: str | None, values: Sequence[str | None], series_K: Ints
) -> dict[str, Any]:
    """Columns of K groups and M targets, the targets of a group beside each other."""
    targets, rows = spec.targets, len(values) * len(spec.targets)
    return {
        "level": [level] * rows,
        "name": [name] * rows,
        "value": [value for value in values for _ in targets],
        **named(targets, len(values)),
        "series": np.repeat(series_K, len(targets)),
    }


def _sums(
    spec: SequenceSpec,
    level: str,
    name: str | None,
    values: Sequence[str | None],
    group_N: Ints,
    spread: Distribution,
    sum_MKS: Floats,
) -> pa.Table:
    series_K = np.bincount(group_N, minlength=len(values))
    there = np.flatnonzero(series_K)
    mean_KM, square_KM = (
        np.stack([np.bincount(group_N, x_N, len(values)) for x_N in x_NM.T], 1)[there] for x_NM in _means(spread)
    )
    samples = pa.FixedSizeListArray.from_arrays(sum_MKS[:, there].transpose(1, 0, 2).ravel(), SAMPLES)
    keys = _keys(spec, level, name, [values[k] for k in there.tolist()], series_K[there])
    return pa.table(keys | {"mean": mean_KM.ravel(), "square": square_KM.ravel(), "samples": samples}, SUM_SCHEMA)


def _samples(sums: pa.Table) -> Floats:
    flat = np.asarray(sums["samples"].combine_chunks().flatten().to_numpy(), np.float64)
    return np.reshape(flat, (-1, SAMPLES))


def _density(level_x: Floats) -> Floats:
    """Of the normal distribution at its quantiles."""
    found_x = np.interp(level_x, [0.0, *_GRID, 1.0], [0.0, *_DENSITY_OF_GRID, 0.0])
    return np.asarray(found_x)


def _student(score_x: Floats, degrees: int) -> Floats:
    """Normal scores as those of Student's t (Cornish and Fisher 1938): few cutoffs say little of how far weeks differ,
    and nothing of the farthest."""
    nu = max(2 * degrees, 3)
    return np.asarray(
        score_x + (score_x**3 + score_x) / (4 * nu) + (5 * score_x**5 + 16 * score_x**3 + 3 * score_x) / (96 * nu**2)
    )
