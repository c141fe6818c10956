"""What is fitted on the validation cutoffs after the last step: calibration, blend, the intervals of the simple
forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np

from m2m_model.arrays import Floats
from m2m_model.data.features import Inputs
from m2m_model.data.served_by import COLD_START, NETWORK, SILENT
from m2m_model.forecasts import baselines
from m2m_model.forecasts.blend import Blend
from m2m_model.forecasts.calibration import LevelCalibration, ResidualQuantiles
from m2m_model.forecasts.distribution import Distribution
from m2m_model.forecasts.forecasts import COLD_START_METHOD, SILENT_METHOD
from m2m_model.training.calendar import validation_cutoffs
from m2m_model.training.pool import Shards, WindowIndex


def fit_serving(
    data: Shards, validation: WindowIndex, raw: Distribution, actual_VM: Floats, blended: bool
) -> tuple[LevelCalibration, Blend | None]:
    """Calibration of the network's levels, and its blend with the simple forecasts, from the validation cutoffs.

    The blend judges the network at each cutoff with levels that were calibrated on the others.
    """
    scenario_V, cutoff_V = data.scenario_of(validation), validation.cutoff_X
    levels = LevelCalibration.fit(raw, actual_VM, scenario_V, cutoff_V)
    if not blended:
        return levels, None
    point_VM = np.empty_like(actual_VM)
    for cutoff in np.unique(cutoff_V):
        rows = cutoff_V == cutoff
        others = LevelCalibration.fit(raw[~rows], actual_VM[~rows], scenario_V[~rows], cutoff_V[~rows])
        point_VM[rows] = others.apply(raw[rows], scenario_V[rows]).point_NM
    simple = {name: data.baseline(forecast, validation) for name, forecast in baselines.BASELINES.items()}
    return levels, Blend.fit(point_VM, simple, actual_VM, scenario_V, cutoff_V)


def calibrate_baselines(
    shards: list[Path], inputs: Inputs, held_out_from: date, most: int = 4, max_rows: int = 50_000
) -> dict[str, ResidualQuantiles]:
    """``residual_quantiles`` on the validation cutoffs, for want of a model."""
    data = Shards(shards, inputs)
    cutoffs = validation_cutoffs(data.first_day, held_out_from, inputs.spec.horizon_days, most)
    return residual_quantiles(data, cutoffs, max_rows)


def residual_quantiles(data: Shards, cutoffs: Sequence[date], limit: int) -> dict[str, ResidualQuantiles]:
    """By name: every baseline where the network would serve, and the rules ``cold_start`` and ``silent``."""
    spec = data.inputs.spec
    served = {name: (NETWORK, forecast) for name, forecast in baselines.BASELINES.items()}
    served[COLD_START_METHOD] = (COLD_START, baselines.cold_start)
    served[SILENT_METHOD] = (SILENT, baselines.silent)
    found = {}
    for name, (code, forecast) in served.items():
        index = data.windows_at(cutoffs, limit, code)
        forecast_XM, actual_XM = data.baseline(forecast, index), data.targets(index)
        found[name] = ResidualQuantiles.fit(
            forecast_XM, actual_XM, data.scenario_of(index), spec.tasks, spec.horizon_days
        )
    return found
