"""Totals of many series with intervals of their own: of an advertiser, a scenario, an attribute's value, the platform.

Quantiles do not add up: their sums are right for series that all go wrong together, and series that go wrong each on
its own have far narrower totals. Between the two lies what validation saw (``Dependence``): at one cutoff all series
share a weak or a strong week, those of a scenario one of its own, those of an advertiser another. A Gaussian copula
with these parts (Li 2000) joins the series' own distributions; samples of it are added up, group by group.

N series, M targets, S samples, K groups, A advertisers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from m2m_model.arrays import Floats, Ints
from m2m_model.data.panel import Panel
from m2m_model.data.spec import SequenceSpec
from m2m_model.forecasts.cells import codes_of
from m2m_model.forecasts.distribution import Distribution
from m2m_model.forecasts.forecasts import FIGURES, Forecasts
from m2m_model.forecasts.metrics import named
from m2m_model.levels import QUANTILES
from m2m_model.totals.dependence import GRID, SCORE_OF_GRID
from m2m_model.totals.sampler import SAMPLES, Sampler

CHUNK = 256  # series sampled at a time: what they need stays in the cache

PLATFORM, SCENARIO, ADVERTISER, ATTRIBUTE = "platform", "scenario", "advertiser", "attribute"
GROUP = ("level", "name", "value", "task", "horizon_days")
_GROUP_FIELDS = [*((name, pa.string()) for name in GROUP[:-1]), ("horizon_days", pa.int32()), ("series", pa.int64())]
SUM_SCHEMA = pa.schema(
    [*_GROUP_FIELDS, ("mean", pa.float64()), ("square", pa.float64()), ("samples", pa.list_(pa.float64(), SAMPLES))]
)
TOTAL_SCHEMA = pa.schema([*_GROUP_FIELDS, *((name, pa.float64()) for name in FIGURES)])


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
    advertiser_share = [np.float32(np.sqrt(shared.advertiser)) for shared in sampler.dependence.targets]
    owner_place_A = sampler.places(f"advertiser {name}" for name in named_A)
    own_place_N = sampler.places(
        f"{name} in {scenario}" for name, scenario in zip(forecasts.advertiser_N, forecasts.scenario_N, strict=True)
    )
    zero_NM = np.interp(spread.p_zero_NM, [0.0, *GRID, 1.0], [-9.0, *SCORE_OF_GRID, 9.0]).astype(np.float32)
    mean_AM, square_AM = (np.add.reduceat(x_NM, starts_A) if len(starts_A) else x_NM for x_NM in _means(spread))
    # Of one series alone its own figures; the others are filled in.
    alone = spread[starts_A]
    p_zero_AM, level_QAM, point_AM = alone.p_zero_NM.copy(), np.stack(alone.quantiles), alone.point_NM.copy()
    for owners in _chunks(starts_A):
        rows = slice(starts_A[owners.start], starts_A[owners.stop - 1] + count_A[owners.stop - 1])
        several = owners.start + np.flatnonzero(count_A[owners] > 1)
        # Which rows each group has, of every kind in one matrix: a product adds up faster than any loop.
        inside = [np.unique(group_N[rows], return_inverse=True) for _, _, _, group_N in groupings]
        whose_N = np.repeat(np.arange(owners.start, owners.stop), count_A[owners])
        parts = [place_N == np.arange(len(codes))[:, None] for codes, place_N in inside]
        member_KN = np.concatenate([*parts, whose_N == several[:, None]]).astype(np.float32)
        ends = np.cumsum([len(part) for part in parts])
        code_N, own_NS = scenario_N[rows], sampler.own((own_place_N[0][rows], own_place_N[1][rows]))
        owner_NS = sampler.own((owner_place_A[0][whose_N], owner_place_A[1][whose_N]))
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
            *of_groups, of_several = np.split(member_KN @ value_NS, ends)
            for (codes, _), sum_MKS, of_group in zip(inside, sum_K, of_groups, strict=True):
                sum_MKS[m, codes] += of_group
            if len(several):
                most_A = count_A[several] * target.horizon_days if target.aggregate == "days" else None
                p_zero_AM[several, m], level_QAM[:, several, m] = _figures(
                    of_several, mean_AM[several, m], square_AM[several, m], most_A
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
    amount_K = (mean_K > 0) & (found_K > 0) & np.isfinite(mean_K)
    factor_K = np.divide(mean_K, found_K, out=np.ones_like(mean_K), where=amount_K)
    alone_K = np.divide(square_K, mean_K**2, out=np.ones_like(mean_K), where=amount_K)
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
