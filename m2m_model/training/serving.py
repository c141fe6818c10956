"""What is fitted on the validation cutoffs after the last step: calibration, blend, the intervals of the simple
forecasts, what series share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from m2m_model.arrays import Bools, Floats, Ints, Strings
from m2m_model.data.features import Inputs
from m2m_model.data.served_by import COLD_START, NETWORK, SILENT
from m2m_model.data.spec import SequenceSpec
from m2m_model.forecasts import baselines, methods
from m2m_model.forecasts.blend import WEIGHTS, Blend, Share, mixed
from m2m_model.forecasts.calibration import SHIFT_KEPT, Dependence, LevelCalibration, Pacing, ResidualQuantiles
from m2m_model.forecasts.cells import GROUP_ROWS
from m2m_model.forecasts.coherence import coherent
from m2m_model.forecasts.distribution import Distribution
from m2m_model.forecasts.forecasts import around
from m2m_model.rivals.artifact import Rival
from m2m_model.totals.dependence import fit_dependence
from m2m_model.training.calendar import days_between, validation_cutoffs
from m2m_model.training.pacing import Followed, fit_pacing
from m2m_model.training.pool import Columns, Shards, WindowIndex

SIMPLE: Mapping[str, baselines.Baseline] = {**baselines.BASELINES, methods.COLD_START: baselines.cold_start}


@dataclass(frozen=True)
class Seen:
    """Windows whose horizon is over: what they were, what came of them, and what simple forecasts would have said."""

    advertiser_X: Ints
    scenario_X: Strings
    cutoff_X: Ints
    group_XM: Ints
    young_X: Bools
    actual_XM: Floats
    simple: Mapping[str, Floats]

    def __getitem__(self, rows: Bools) -> Seen:
        said = {name: said_XM[rows] for name, said_XM in self.simple.items()}
        return Seen(
            self.advertiser_X[rows],
            self.scenario_X[rows],
            self.cutoff_X[rows],
            self.group_XM[rows],
            self.young_X[rows],
            self.actual_XM[rows],
            said,
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Seen]) -> Seen:
        """One after the other; each has the same simple forecasts."""
        return cls(
            np.concatenate([part.advertiser_X for part in parts]),
            np.concatenate([part.scenario_X for part in parts]),
            np.concatenate([part.cutoff_X for part in parts]),
            np.concatenate([part.group_XM for part in parts]),
            np.concatenate([part.young_X for part in parts]),
            np.concatenate([part.actual_XM for part in parts]),
            {name: np.concatenate([part.simple[name] for part in parts]) for name in parts[0].simple},
        )

    @classmethod
    def of(cls, data: Shards, index: WindowIndex, simple: Mapping[str, baselines.Baseline]) -> Seen:
        """The same on every rank; each looks at its own windows."""

        def look(own: WindowIndex) -> list[Columns]:
            said = [data.by_day(forecast, own) for forecast in simple.values()]
            whose = [data.advertiser_of(own), data.scenario_of(own)]
            return [*whose, data.groups(own), data.is_young(own), data.targets(own), *said]

        advertiser_X, scenario_X, group_XM, young_X, actual_XM, *said = data.everywhere(look, index)
        forecasts = dict(zip(simple, said, strict=True))
        return cls(advertiser_X, scenario_X, index.cutoff_X, group_XM, young_X, actual_XM, forecasts)


def fit_serving(
    spec: SequenceSpec,
    seen: Seen,
    raw: Distribution,
    calibrations: Mapping[str, ResidualQuantiles],
    blended: bool,
    learned: Collection[str] = (),
) -> tuple[LevelCalibration, Blend | None, Blend | None]:
    """From the validation cutoffs: calibration of the network's levels, its blend with the simple forecasts and the
    ``learned`` baselines, and its blend with the cold-start rule for young series, where enough of them were seen.

    The blend judges the network at each cutoff with levels that were calibrated on the others, and all points as they
    would be published.
    """

    def fit(rows: Bools) -> LevelCalibration:
        known = seen[rows]
        return LevelCalibration.fit(raw[rows], known.actual_XM, known.scenario_X, known.group_XM, known.cutoff_X)

    levels = fit(np.ones(len(seen.cutoff_X), bool))
    if not blended:
        return levels, None, None
    point_XM = np.empty_like(seen.actual_XM)
    for cutoff in np.unique(seen.cutoff_X):
        rows = seen.cutoff_X == cutoff
        point_XM[rows] = fit(~rows).apply(raw[rows], seen.scenario_X[rows], seen.group_XM[rows]).point_NM
    whole_M = [target.aggregate == "days" for target in spec.targets]

    def published(names: Iterable[str], known: Seen) -> dict[str, Floats]:
        return {name: _around(name, known, calibrations, spec).point_NM for name in names}

    blend = young_blend = None
    young_X = seen.young_X
    if not young_X.all():
        known = seen[~young_X]
        where = known.actual_XM, known.scenario_X, known.cutoff_X, whole_M
        simple, others = published(baselines.BASELINES, known), published(learned, known)
        blend = Blend.fit(point_XM[~young_X], simple, *where, others)
    if young_X.sum() >= GROUP_ROWS:
        known = seen[young_X]
        rule_XM = published([methods.COLD_START], known)[methods.COLD_START]
        young_blend = blend_of_young(point_XM[young_X], rule_XM, known.actual_XM, whole_M)
    return levels, blend, young_blend


def blend_of_young(network_XM: Floats, rule_XM: Floats, actual_XM: Floats, whole_M: Sequence[bool]) -> Blend:
    """Per task the weight with the least absolute error; of equal ones the network's largest. Both are guesses: neither
    is safer than the other."""

    def share(network_X: Floats, rule_X: Floats, actual_X: Floats, whole: bool) -> Share:
        weight_W1 = WEIGHTS[::-1, None]
        error_W = np.abs(mixed(network_X, rule_X, weight_W1, whole) - actual_X).sum(1)
        return Share(methods.COLD_START, float(weight_W1[error_W.argmin(), 0]))

    columns = zip(network_XM.T, rule_XM.T, actual_XM.T, whole_M, strict=True)
    return Blend(tuple(share(*column) for column in columns), {})


def best_simple(spec: SequenceSpec, seen: Seen) -> dict[str, str]:
    """By target, the baseline that validation would have chosen without anything learned."""
    names = [name for name in baselines.BASELINES if name in seen.simple]
    error_PM = np.array([np.abs(seen.simple[name] - seen.actual_XM).sum(0) for name in names])
    return {title: names[int(error_PM[:, m].argmin())] for m, title in enumerate(spec.titles) if names}


def serving_rivals(blend: Blend | None, late: Mapping[str, Rival]) -> dict[str, Rival]:
    """The learned baselines that a blend uses, of the targets that it uses them for."""
    used = blend.anchors if blend else ()
    return {name: late[name].of_targets(blend.targets_with(name)) for name in used if blend and name in late}


def as_served(
    spec: SequenceSpec,
    seen: Seen,
    raw: Distribution,
    calibrations: Mapping[str, ResidualQuantiles],
    levels: LevelCalibration,
    blend: Blend | None,
    young_blend: Blend | None,
) -> Distribution:
    """What would have been published of the windows."""
    served = levels.apply(raw, seen.scenario_X, seen.group_XM)
    order, parts = list[Ints](), list[Distribution]()
    for rows, of_rows in ((~seen.young_X, blend), (seen.young_X, young_blend)):
        part, known = served[rows], seen[rows]
        if of_rows is not None:
            part = of_rows.apply(
                part, {n: _around(n, known, calibrations, spec) for n in of_rows.anchors}, known.scenario_X
            )
        order.append(np.flatnonzero(rows))
        parts.append(coherent(part, spec))
    return Distribution.concatenate(parts)[np.argsort(np.concatenate(order))]


def _around(name: str, seen: Seen, calibrations: Mapping[str, ResidualQuantiles], spec: SequenceSpec) -> Distribution:
    """What would be published of a simple forecast."""
    return around(name, seen.simple[name], seen.scenario_X, seen.group_XM, calibrations[name], spec)


def calibrate_baselines(
    shards: list[Path], inputs: Inputs, held_out_from: date, most: int = 4, max_rows: int = 50_000
) -> tuple[dict[str, ResidualQuantiles], dict[str, Dependence], dict[str, Pacing]]:
    """``residual_quantiles`` on the validation cutoffs, for want of a model; and for each baseline what its series
    share, and how its totals come day by day."""
    data = Shards(shards, inputs)
    cutoffs = validation_cutoffs(data.first_day, held_out_from, inputs.spec.horizons_days, most)
    seen = seen_by_rule(data, cutoffs, max_rows)
    calibrations, network = residual_quantiles(inputs.spec, seen), seen[0]
    who = (network.actual_XM, network.advertiser_X, network.scenario_X, network.cutoff_X)
    followed = Followed.of(data, data.windows_at(cutoffs, max_rows, (NETWORK,)), held_out_from)
    shared, pacings = dict[str, Dependence](), dict[str, Pacing]()
    for name in baselines.BASELINES:
        published = _around(name, network, calibrations, inputs.spec)
        shared[name] = fit_dependence(published, *who)
        pacings[name] = fit_pacing(inputs, followed, network.scenario_X, network.group_XM, published)
    return calibrations, shared, pacings


def seen_by_rule(data: Shards, cutoffs: Sequence[date], limit: int) -> list[Seen]:
    """Where the network would serve, with every baseline; and the windows of the rules ``cold_start`` and ``silent``,
    each with its own. Few series are young at a time, so these are looked at every day. The same on every rank."""
    served = [
        (NETWORK, cutoffs, baselines.BASELINES),
        (COLD_START, days_between(cutoffs), {methods.COLD_START: baselines.cold_start}),
        (SILENT, cutoffs, {methods.SILENT: baselines.silent}),
    ]
    return [Seen.of(data, data.windows_at(days, limit, (code,)), simple) for code, days, simple in served]


def residual_quantiles(spec: SequenceSpec, seen_by_rule: Sequence[Seen]) -> dict[str, ResidualQuantiles]:
    """By name of each simple forecast, from the windows that it is for."""
    return {
        name: ResidualQuantiles.fit(
            said_XM,
            seen.actual_XM,
            seen.scenario_X,
            seen.group_XM,
            spec.targets,
            # How a series goes on after its first days is no drift of the market.
            shift_kept=1.0 if name == methods.COLD_START else SHIFT_KEPT,
        )
        for seen in seen_by_rule
        for name, said_XM in seen.simple.items()
    }
