"""Forecasts of a panel: each series by what serves it. N series, M tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from m2m_model.arrays import Floats, Ints, Strings
from m2m_model.data.panel import Panel
from m2m_model.data.served_by import COLD_START, NETWORK, SILENT, served_by
from m2m_model.data.spec import SequenceSpec
from m2m_model.forecasts import baselines
from m2m_model.forecasts.calibration import ResidualQuantiles
from m2m_model.forecasts.coherence import coherent
from m2m_model.forecasts.distribution import Distribution

M2M_METHOD, COLD_START_METHOD, SILENT_METHOD = "m2m", "cold_start", "silent"
FIGURES = ("point", "mean", "p_zero", "median", "p05", "p25", "p75", "p95")
FORECAST_SCHEMA = pa.schema(
    [("advertiser_id", pa.string()), ("scenario_id", pa.string()), ("task", pa.string()), ("horizon_days", pa.int32())]
    + [(name, pa.float64()) for name in FIGURES]
    + [("method", pa.string())]
)

Forecast = Callable[[int, Ints], Distribution]  # of some series (row indices) as of a day (an index in T)


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of N series of a panel as of the end of ``cutoff``, in panel order.

    ``series_N`` are row indices of the panel; ``method_N`` is m2m, cold_start, silent or baseline:<name>.
    """

    cutoff: date
    series_N: Ints
    advertiser_N: Strings
    scenario_N: Strings
    method_N: Strings
    distribution: Distribution

    def to_table(self, spec: SequenceSpec) -> pa.Table:
        """Long form, one row per series and task; see ``FORECAST_SCHEMA``."""
        rows, tasks = len(self.series_N), len(spec.tasks)
        columns: dict[str, Any] = {
            "advertiser_id": np.repeat(self.advertiser_N, tasks).tolist(),
            "scenario_id": np.repeat(self.scenario_N, tasks).tolist(),
            "task": [task.name for task in spec.tasks] * rows,
            "horizon_days": np.full(rows * tasks, spec.horizon_days, np.int32),
        }
        for name in FIGURES:
            figure_NM = getattr(self.distribution, f"{name}_NM")
            columns[name] = figure_NM.astype(np.float64).ravel()
        columns["method"] = np.repeat(self.method_N, tasks).tolist()
        return pa.table(columns, FORECAST_SCHEMA)


def forecast_baseline(
    name: str,
    panel: Panel,
    cutoff: date,
    calibrations: Mapping[str, ResidualQuantiles] | None = None,
    *,
    all_series: bool = False,
) -> Forecasts:
    """``Forecaster.predict`` for a baseline: its own forecast stays the median, ``calibrations`` add the interval.

    Raises:
        KeyError: no such baseline.
    """
    known = dict(calibrations or {})

    def forecast(day: int, series: Ints) -> Distribution:
        own = baseline_distribution(name, panel, day, series, known.get(name))
        return coherent(own, panel.spec.tasks, panel.spec.horizon_days)

    return forecast_each(panel, cutoff, f"baseline:{name}", forecast, known, all_series=all_series)


def baseline_distribution(
    name: str, panel: Panel, day: int, series: Ints, calibration: ResidualQuantiles | None
) -> Distribution:
    """A baseline's own forecast as the median, its residuals around it."""
    own_NM = baselines.BASELINES[name](panel, day, series)
    return _around(own_NM, panel.scenario_N[series], calibration).around(own_NM)


def _around(point_NM: Floats, scenario_N: Strings, calibration: ResidualQuantiles | None) -> Distribution:
    return calibration.apply(point_NM, scenario_N) if calibration else Distribution.point(point_NM)


def forecast_each(
    panel: Panel,
    cutoff: date,
    method: str,
    forecast: Forecast,
    calibrations: Mapping[str, ResidualQuantiles],
    *,
    all_series: bool = False,
) -> Forecasts:
    """Each series by what serves it (``data.served_by``), put together in panel order; ``forecast`` stands where the
    network would, and its rows are called ``method``."""
    day, scenario_N = panel.index_of(cutoff), panel.scenario_N

    def by_rule(name: str, rule: baselines.Baseline) -> Forecast:
        def own(day: int, series: Ints) -> Distribution:
            spread = _around(rule(panel, day, series), scenario_N[series], calibrations.get(name))
            return coherent(spread, panel.spec.tasks, panel.spec.horizon_days)

        return own

    methods: list[tuple[int, str, Forecast]] = [
        (NETWORK, method, forecast),
        (COLD_START, COLD_START_METHOD, by_rule(COLD_START_METHOD, baselines.cold_start)),
    ]
    if all_series:
        methods.append((SILENT, SILENT_METHOD, by_rule(SILENT_METHOD, baselines.silent)))
    served_N = served_by(panel, day)
    parts, rows, names = [], [], []
    for code, name, forecast_of in methods:
        series = np.flatnonzero(served_N == code)
        parts.append(forecast_of(day, series))
        rows.append(series)
        names.append(np.full(len(series), name, object))
    series_N = np.concatenate(rows)
    order = np.argsort(series_N, kind="stable")
    distribution = Distribution.concatenate(parts)[order]
    series_N = series_N[order]
    return Forecasts(
        cutoff, series_N, panel.advertiser_N[series_N], scenario_N[series_N], np.concatenate(names)[order], distribution
    )
