"""Forecasts of a panel: each series by what serves it. N series, M targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from m2m_model.arrays import Bools, Floats, Ints, Rows, Strings
from m2m_model.data.activity import activity_NM
from m2m_model.data.panel import Panel
from m2m_model.data.served_by import COLD_START, NETWORK, SILENT, served_by
from m2m_model.data.spec import SequenceSpec
from m2m_model.forecasts import baselines, methods
from m2m_model.forecasts.calibration import ResidualQuantiles
from m2m_model.forecasts.coherence import coherent
from m2m_model.forecasts.distribution import Distribution

FIGURES = ("point", "mean", "p_zero", "median", "p05", "p25", "p75", "p95")
FORECAST_SCHEMA = pa.schema(
    [("advertiser_id", pa.string()), ("scenario_id", pa.string()), ("task", pa.string()), ("horizon_days", pa.int32())]
    + [(name, pa.float64()) for name in FIGURES]
    + [("method", pa.string())]
)

# Of some series (row indices) as of a day (an index in T): what is forecast, and who made each figure, (N, M).
Forecast = Callable[[int, Ints], tuple[Distribution, Strings]]


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of N series of a panel as of the end of ``cutoff``, in panel order.

    ``series_N`` are row indices of the panel; ``method_NM`` names who made each figure (``forecasts.methods``).
    """

    cutoff: date
    series_N: Ints
    advertiser_N: Strings
    scenario_N: Strings
    method_NM: Strings
    distribution: Distribution

    def __getitem__(self, rows: Rows) -> Forecasts:
        """Those of some of the series."""
        series = (self.series_N[rows], self.advertiser_N[rows], self.scenario_N[rows], self.method_NM[rows])
        return Forecasts(self.cutoff, *series, self.distribution[rows])

    def to_table(self, spec: SequenceSpec) -> pa.Table:
        """Long form, one row per series and target; see ``FORECAST_SCHEMA``."""
        rows, targets = len(self.series_N), len(spec.targets)
        columns: dict[str, Any] = {
            "advertiser_id": np.repeat(self.advertiser_N, targets).tolist(),
            "scenario_id": np.repeat(self.scenario_N, targets).tolist(),
            "task": [target.name for target in spec.targets] * rows,
            "horizon_days": np.tile(np.array([target.horizon_days for target in spec.targets], np.int32), rows),
        }
        for name in FIGURES:
            figure_NM = getattr(self.distribution, f"{name}_NM")
            columns[name] = figure_NM.astype(np.float64).ravel()
        columns["method"] = self.method_NM.ravel().tolist()
        return pa.table(columns, FORECAST_SCHEMA)


def forecast_baseline(
    name: str,
    panel: Panel,
    cutoff: date,
    calibrations: Mapping[str, ResidualQuantiles] | None = None,
    *,
    all_series: bool = False,
) -> Forecasts:
    """``Forecaster.predict`` for a baseline: its own forecast is the point, ``calibrations`` say how far off it may be.

    Raises:
        KeyError: no such baseline.
    """
    known = dict(calibrations or {})
    return forecast_each(panel, cutoff, by_simple(name, panel, known), known, all_series=all_series)


def with_baselines(
    made: Forecasts, panel: Panel, calibrations: Mapping[str, ResidualQuantiles], who_NM: Strings
) -> Forecasts:
    """The same where a baseline serves some series' targets in the maker's place, as ``forecast_baseline`` has them.
    The other targets of such a series stay, but for what would contradict it.

    Args:
        made: of all series.
        who_NM: the baseline's name, or None.
    """
    here_N: Bools = np.asarray(who_NM.astype(bool).any(1))
    changed, who_XM = made[here_N], who_NM[here_N]
    for name in sorted({*who_XM.ravel()} - {None}):
        other = forecast_baseline(name, panel, made.cutoff, calibrations, all_series=True)[here_N]
        theirs, own, here_XM = other.distribution, changed.distribution, who_XM == name
        mixed = Distribution(
            np.where(here_XM, theirs.point_NM, own.point_NM),
            np.where(here_XM, theirs.mean_NM, own.mean_NM),
            np.where(here_XM, theirs.p_zero_NM, own.p_zero_NM),
            np.where(here_XM, theirs.level_GNM, own.level_GNM),
        )
        changed = replace(changed, method_NM=np.where(here_XM, other.method_NM, changed.method_NM), distribution=mixed)
    parts = made[~here_N], replace(changed, distribution=coherent(changed.distribution, panel.spec))
    order = np.argsort(np.argsort(here_N, kind="stable"))
    return replace(
        made,
        method_NM=np.concatenate([part.method_NM for part in parts])[order],
        distribution=Distribution.concatenate([part.distribution for part in parts])[order],
    )


def rival_forecasts(
    name: str, rival: baselines.Baseline, panel: Panel, cutoff: date, calibrations: Mapping[str, ResidualQuantiles]
) -> Forecasts:
    """``Forecaster.predict`` for a learned baseline: points without a distribution, on the same series."""

    def forecast(day: int, series: Ints) -> tuple[Distribution, Strings]:
        own_NM = rival(panel, day, series)
        return Distribution.point(own_NM), np.full(own_NM.shape, methods.own_method(name), object)

    return forecast_each(panel, cutoff, forecast, calibrations)


def simple_distribution(
    name: str,
    panel: Panel,
    day: int,
    series: Ints,
    calibration: ResidualQuantiles | None,
    learned: Mapping[str, baselines.Baseline] | None = None,
) -> Distribution:
    """What is published of a baseline, one that was ``learned`` too, or of a rule: ``around`` its own forecast."""
    own_NM = {**baselines.BASELINES, **baselines.RULES, **(learned or {})}[name](panel, day, series)
    return around(name, own_NM, panel.scenario_N[series], activity_NM(panel, day, series), calibration, panel.spec)


def around(
    name: str,
    own_NM: Floats,
    scenario_N: Strings,
    group_NM: Ints,
    calibration: ResidualQuantiles | None,
    spec: SequenceSpec,
) -> Distribution:
    """The forecast as the point, and around it what followed such forecasts. Only the cold-start rule's point is moved:
    to what followed on average, for the rule alone takes a first day for a habit.

    A learned baseline is made coherent with the rest of a blend alone: of targets that it does not serve it says 0.
    """
    if calibration is None:
        spread = Distribution.point(own_NM)
    else:
        spread = calibration.apply(own_NM, scenario_N, group_NM)
        spread = replace(spread, point_NM=spread.mean_NM if name == methods.COLD_START else own_NM)
    return coherent(spread, spec) if name in {**baselines.BASELINES, **baselines.RULES} else spread


def by_simple(name: str, panel: Panel, calibrations: Mapping[str, ResidualQuantiles]) -> Forecast:
    """A baseline or rule as the one who forecasts."""

    def forecast(day: int, series: Ints) -> tuple[Distribution, Strings]:
        made = simple_distribution(name, panel, day, series, calibrations.get(name))
        return made, np.full(made.mean_NM.shape, methods.own_method(name), object)

    return forecast


def forecast_each(
    panel: Panel,
    cutoff: date,
    network: Forecast,
    calibrations: Mapping[str, ResidualQuantiles],
    *,
    young: Forecast | None = None,
    all_series: bool = False,
) -> Forecasts:
    """Each series by what serves it (``data.served_by``), put together in panel order; ``network`` is the network or
    what stands in for it, ``young`` serves where the cold-start rule would."""
    day = panel.index_of(cutoff)
    makers = {NETWORK: network, COLD_START: young or by_simple(methods.COLD_START, panel, calibrations)}
    if all_series:
        makers[SILENT] = by_simple(methods.SILENT, panel, calibrations)
    served_N = served_by(panel, day)
    rows = [np.flatnonzero(served_N == code) for code in makers]
    made = [forecast(day, series) for forecast, series in zip(makers.values(), rows, strict=True)]
    series_N = np.concatenate(rows)
    order = np.argsort(series_N, kind="stable")
    series_N = series_N[order]
    return Forecasts(
        cutoff,
        series_N,
        panel.advertiser_N[series_N],
        panel.scenario_N[series_N],
        np.concatenate([method_NM for _, method_NM in made])[order],
        Distribution.concatenate([distribution for distribution, _ in made])[order],
    )
