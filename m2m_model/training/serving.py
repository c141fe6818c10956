"""What is fitted on the validation cutoffs after the last step: calibration, blend, the intervals of the simple
forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np

from m2m_model.arrays import Bools, Floats
from m2m_model.data.features import Inputs
from m2m_model.data.served_by import COLD_START, NETWORK, SILENT
from m2m_model.forecasts import baselines, methods
from m2m_model.forecasts.blend import Blend
from m2m_model.forecasts.calibration import SHIFT_KEPT, LevelCalibration, ResidualQuantiles
from m2m_model.forecasts.cells import GROUP_ROWS
from m2m_model.forecasts.distribution import Distribution
from m2m_model.forecasts.forecasts import around
from m2m_model.training.calendar import validation_cutoffs
from m2m_model.training.pool import Shards, WindowIndex


def fit_serving(
    data: Shards,
    validation: WindowIndex,
    raw: Distribution,
    actual_VM: Floats,
    calibrations: Mapping[str, ResidualQuantiles],
    blended: bool,
) -> tuple[LevelCalibration, Blend | None, Blend | None]:
    """From the validation cutoffs: calibration of the network's levels, its blend with the simple forecasts, and its
    blend with the cold-start rule for young series, where enough of them were seen.

    The blend judges the network at each cutoff with levels that were calibrated on the others, and all points as they
    would be published.
    """
    spec, scenario_V, cutoff_V = data.inputs.spec, data.scenario_of(validation), validation.cutoff_X
    group_VM, young_V = data.groups(validation), data.is_young(validation)
    levels = LevelCalibration.fit(raw, actual_VM, scenario_V, group_VM, cutoff_V)
    if not blended:
        return levels, None, None
    point_VM = np.empty_like(actual_VM)
    for cutoff in np.unique(cutoff_V):
        rows, rest = cutoff_V == cutoff, cutoff_V != cutoff
        others = LevelCalibration.fit(raw[rest], actual_VM[rest], scenario_V[rest], group_VM[rest], cutoff_V[rest])
        point_VM[rows] = others.apply(raw[rows], scenario_V[rows], group_VM[rows]).point_NM
    whole_M = [task.aggregate == "days" for task in spec.tasks]

    def blend(rows: Bools, simple: Mapping[str, baselines.Baseline]) -> Blend:
        index = validation[rows]
        published = {
            name: around(
                name, data.by_day(own, index), scenario_V[rows], group_VM[rows], calibrations[name], spec
            ).point_NM
            for name, own in simple.items()
        }
        return Blend.fit(point_VM[rows], published, actual_VM[rows], scenario_V[rows], cutoff_V[rows], whole_M)

    rules = {methods.COLD_START: baselines.cold_start}
    young = blend(young_V, rules) if young_V.sum() >= GROUP_ROWS else None
    return levels, blend(~young_V, baselines.BASELINES) if not young_V.all() else None, young


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
    served[methods.COLD_START] = (COLD_START, baselines.cold_start)
    served[methods.SILENT] = (SILENT, baselines.silent)
    found = {}
    for name, (code, forecast) in served.items():
        index = data.windows_at(cutoffs, limit, (code,))
        found[name] = ResidualQuantiles.fit(
            data.by_day(forecast, index),
            data.targets(index),
            data.scenario_of(index),
            data.groups(index),
            spec.tasks,
            spec.horizon_days,
            # How a series goes on after its first days is no drift of the market.
            shift_kept=1.0 if code == COLD_START else SHIFT_KEPT,
        )
    return found
