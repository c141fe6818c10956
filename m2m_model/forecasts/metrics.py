"""Forecast error, exactly as defined in docs/model.md: sums per cell that add up over shards and cutoffs.

NMAE = sum |y - f| / sum y, on the point. SMAPE = mean 2|y - f| / (|y| + |f|), with 0/0 = 0. Pinball loss = mean over
the five quantiles. Coverage = share of actuals within p25..p75 and p05..p95; an interval that starts at 0 holds the
whole mass of zero, however narrow it is meant to be. Level = share of actuals whose own level u = F(y) lies within
25..75 % and 5..95 %, a mass counted evenly over its levels: 50 % and 90 % for an honest forecast of any kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from m2m_model.arrays import Floats, Ints, Strings
from m2m_model.data.spec import Target
from m2m_model.forecasts.distribution import Distribution, levels_of
from m2m_model.levels import QUANTILES

KEYS = ("cutoff", "forecaster", "scenario_id", "task", "horizon_days")
COUNTS = ("n", "covered_50", "covered_90", "zero_points", "zero_actuals")
SUMS = (
    "n", "sum_abs_error", "sum_actual", "sum_forecast", "smape_sum", "pinball_sum", "covered_50", "covered_90",
    "level_50_sum", "level_90_sum", "zero_points", "zero_actuals", "p_zero_sum", "sum_mean",
)  # fmt: skip
_SUM_FIELDS = [(name, pa.int64() if name in COUNTS else pa.float64()) for name in SUMS]
_TYPES = {"cutoff": pa.date32(), "horizon_days": pa.int32(), "group": pa.int32()}
CELL_SCHEMA = pa.schema([*[(name, _TYPES.get(name, pa.string())) for name in KEYS], *_SUM_FIELDS])
_GROUP_KEYS = ("forecaster", "task", "horizon_days", "group")
GROUP_SCHEMA = pa.schema([*[(name, _TYPES.get(name, pa.string())) for name in _GROUP_KEYS], *_SUM_FIELDS])


def cell_sums(
    distribution: Distribution,
    actual_NM: Floats,
    scenario_N: Strings,
    targets: Sequence[Target],
    cutoff: date,
    forecaster: str,
) -> pa.Table:
    """One row of additive sums per (cutoff, forecaster, scenario, target); see ``CELL_SCHEMA``. Empty in, empty out."""
    scenarios, cell_N = np.unique(scenario_N.astype(str), return_inverse=True)
    rows = len(scenarios) * len(targets)
    columns: dict[str, Any] = {
        "cutoff": [cutoff] * rows,
        "forecaster": [forecaster] * rows,
        "scenario_id": np.repeat(scenarios, len(targets)).tolist(),
        **named(targets, len(scenarios)),
    }
    cell_NM = np.broadcast_to(cell_N[:, None], actual_NM.shape)
    return pa.table(columns | _sums(distribution, actual_NM, cell_NM, len(scenarios)), CELL_SCHEMA)


def group_sums(
    distribution: Distribution, actual_NM: Floats, group_NM: Ints, targets: Sequence[Target], forecaster: str
) -> pa.Table:
    """The same per (forecaster, target, group), where each target has a group of its own; see ``GROUP_SCHEMA``."""
    groups, place_X = np.unique(group_NM, return_inverse=True)
    rows = len(groups) * len(targets)
    columns: dict[str, Any] = {
        "forecaster": [forecaster] * rows,
        **named(targets, len(groups)),
        "group": np.repeat(groups, len(targets)).astype(np.int32),
    }
    sums = _sums(distribution, actual_NM, place_X.reshape(group_NM.shape), len(groups))
    return pa.table(columns | sums, GROUP_SCHEMA).filter(pc.field("n") > 0)


def named(targets: Sequence[Target], times: int) -> dict[str, Any]:
    """The key columns of targets that stand beside each other, so many times."""
    days = np.array([target.horizon_days for target in targets], np.int32)
    return {"task": [target.name for target in targets] * times, "horizon_days": np.tile(days, times)}


def _sums(distribution: Distribution, actual_NM: Floats, cell_NM: Ints, cells: int) -> dict[str, Any]:
    """Each of ``SUMS`` within ``cells`` cells, (cells x M,) with the targets of a cell side by side."""
    forecast_NM = distribution.point_NM
    error_NM = np.abs(actual_NM - forecast_NM)
    pinball_NM = np.zeros_like(error_NM)
    for level, quantile_NM in zip(QUANTILES, distribution.quantiles, strict=True):
        gap_NM = actual_NM - quantile_NM
        pinball_NM += np.maximum(level * gap_NM, (level - 1) * gap_NM) / len(QUANTILES)
    figures = (
        np.ones_like(error_NM),
        error_NM,
        actual_NM,
        forecast_NM,
        symmetric_error(forecast_NM, actual_NM),
        pinball_NM,
        (distribution.p25_NM <= actual_NM) & (actual_NM <= distribution.p75_NM),
        (distribution.p05_NM <= actual_NM) & (actual_NM <= distribution.p95_NM),
        *(share_between(distribution, actual_NM, (1 - width) / 2, (1 + width) / 2) for width in (0.5, 0.9)),
        forecast_NM == 0,
        actual_NM == 0,
        distribution.p_zero_NM,
        distribution.mean_NM,
    )
    columns = range(actual_NM.shape[1])
    return {
        name: np.stack([np.bincount(cell_NM[:, m], figure_NM[:, m], cells) for m in columns], 1)
        .ravel()
        .astype(np.int64 if name in COUNTS else np.float64)
        for name, figure_NM in zip(SUMS, figures, strict=True)
    }


def symmetric_error(forecast_x: Floats, actual_x: Floats) -> Floats:
    """2|y - f| / (|y| + |f|), 0/0 = 0, of each pair."""
    error_x, size_x = np.abs(actual_x - forecast_x), np.abs(actual_x) + np.abs(forecast_x)
    return np.asarray(np.divide(2 * error_x, size_x, out=np.zeros_like(error_x), where=size_x > 0))


def share_between(distribution: Distribution, actual_NM: Floats, low: float, high: float) -> Floats:
    """(N, M): how much of the range of levels that each actual stands for lies between two levels."""
    from_NM, to_NM = levels_of(distribution, actual_NM)
    inside_NM = np.minimum(to_NM, high) - np.maximum(from_NM, low)
    return np.asarray(np.maximum(inside_NM, 0) / (to_NM - from_NM))


def finish(sums: pa.Table, by: Sequence[str] = ("forecaster", "task")) -> pa.Table:
    """Add sums up within ``by`` (a subset of the table's keys that holds the target's) and divide: columns ``by``, n,
    nmae, smape, pinball, coverage_50, coverage_90, level_50, level_90, bias (sum_forecast / sum_actual - 1), mean_bias
    (that of the means), p_zero (its mean), zeros (share of actuals that are 0), zero_points (the same of points). NMAE
    is NaN where nothing happened and something was forecast, 0 where neither was.

    Raises:
        ValueError: ``by`` leaves out the task (units cannot be added), or one of several horizons.
    """
    refuse_mixed(sums, by, "errors")
    added = (
        sums.group_by(list(by)).aggregate([(name, "sum") for name in SUMS]).sort_by([(key, "ascending") for key in by])
    )
    total = {name: added[f"{name}_sum"].to_numpy().astype(np.float64) for name in SUMS}
    columns = {key: added[key] for key in by} | {"n": added["n_sum"]}
    columns["nmae"] = _ratio(total["sum_abs_error"], total["sum_actual"])
    for name, column in (("smape", "smape_sum"), ("pinball", "pinball_sum")):
        columns[name] = _ratio(total[column], total["n"])
    for width in ("50", "90"):
        columns[f"coverage_{width}"] = _ratio(total[f"covered_{width}"], total["n"])
        columns[f"level_{width}"] = _ratio(total[f"level_{width}_sum"], total["n"])
    for name, column in (("bias", "sum_forecast"), ("mean_bias", "sum_mean")):
        columns[name] = _ratio(total[column] - total["sum_actual"], total["sum_actual"])
    for name, column in (("p_zero", "p_zero_sum"), ("zeros", "zero_actuals"), ("zero_points", "zero_points")):
        columns[name] = _ratio(total[column], total["n"])
    return pa.table(columns)


def refuse_mixed(sums: pa.Table, by: Sequence[str], what: str) -> None:
    """Raise ValueError where totals of several tasks, or of several horizons, would be added up."""
    if "task" not in by:
        raise ValueError(f"by = {list(by)}: must hold task; {what} in different units cannot be added")
    if "horizon_days" not in by and pc.count_distinct(sums["horizon_days"]).as_py() > 1:
        raise ValueError(f"by = {list(by)}: must hold horizon_days; {what} over different days cannot be added")


def mean_over_tasks(finished: pa.Table) -> pa.Table:
    """The unweighted mean over tasks and horizons of ``finish``'s figures, per remaining key: the number that ranks
    forecasters."""
    keys = [key for key in KEYS if key in finished.column_names and key not in ("task", "horizon_days")]
    figures = [
        "nmae",
        "smape",
        "coverage_50",
        "coverage_90",
        "level_50",
        "level_90",
        "bias",
    ]  # pinball is in units: it has no mean over tasks
    if not keys:
        return pa.table({name: [pc.mean(finished[name]).as_py()] for name in figures})
    added = finished.group_by(keys).aggregate([(name, "mean") for name in figures])
    return added.rename_columns([name.removesuffix("_mean") for name in added.column_names]).sort_by(
        [(key, "ascending") for key in keys]
    )


def _ratio(above: Floats, below: Floats) -> Floats:
    """above / below; 0/0 = 0, x/0 = NaN."""
    nothing = np.where(above == 0, 0.0, np.nan)
    return np.divide(above, below, out=nothing, where=below != 0)
