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

from m2m_model.arrays import Floats, Strings
from m2m_model.forecasts.distribution import Distribution, levels_of
from m2m_model.levels import QUANTILES

KEYS = ("cutoff", "forecaster", "scenario_id", "task")
SUMS = (
    "n", "sum_abs_error", "sum_actual", "sum_forecast", "smape_sum", "pinball_sum", "covered_50", "covered_90",
    "level_50_sum", "level_90_sum",
)  # fmt: skip
CELL_SCHEMA = pa.schema(
    [
        *[("cutoff", pa.date32()), ("forecaster", pa.string()), ("scenario_id", pa.string()), ("task", pa.string())],
        *[(name, pa.int64() if name in ("n", "covered_50", "covered_90") else pa.float64()) for name in SUMS],
    ]
)


def cell_sums(
    distribution: Distribution,
    actual_NM: Floats,
    scenario_N: Strings,
    task_names: Sequence[str],
    cutoff: date,
    forecaster: str,
) -> pa.Table:
    """One row of additive sums per (cutoff, forecaster, scenario, task); see ``CELL_SCHEMA``. Empty in, empty out."""
    forecast_NM = distribution.point_NM
    error_NM = np.abs(actual_NM - forecast_NM)
    smape_NM = symmetric_error(forecast_NM, actual_NM)
    pinball_NM = np.zeros_like(error_NM)
    for level, quantile_NM in zip(QUANTILES, distribution.quantiles, strict=True):
        gap_NM = actual_NM - quantile_NM
        pinball_NM += np.maximum(level * gap_NM, (level - 1) * gap_NM) / len(QUANTILES)
    inside_50_NM = (distribution.p25_NM <= actual_NM) & (actual_NM <= distribution.p75_NM)
    inside_90_NM = (distribution.p05_NM <= actual_NM) & (actual_NM <= distribution.p95_NM)
    figures = (
        np.ones_like(error_NM),
        error_NM,
        actual_NM,
        forecast_NM,
        smape_NM,
        pinball_NM,
        inside_50_NM,
        inside_90_NM,
        *(share_between(distribution, actual_NM, (1 - width) / 2, (1 + width) / 2) for width in (0.5, 0.9)),
    )
    scenarios, cell_N = np.unique(scenario_N.astype(str), return_inverse=True)
    sums = {
        name: np.stack([np.bincount(cell_N, figure_NM[:, m], len(scenarios)) for m in range(len(task_names))], 1)
        for name, figure_NM in zip(SUMS, figures, strict=True)
    }
    rows = len(scenarios) * len(task_names)
    columns: dict[str, Any] = {
        "cutoff": [cutoff] * rows,
        "forecaster": [forecaster] * rows,
        "scenario_id": np.repeat(scenarios, len(task_names)).tolist(),
        "task": list(task_names) * len(scenarios),
    }
    for name in SUMS:
        columns[name] = sums[name].ravel().astype(CELL_SCHEMA.field(name).type.to_pandas_dtype())
    return pa.table(columns, CELL_SCHEMA)


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
    """Add sums up within ``by`` (a subset of ``KEYS`` that holds ``task``) and divide: columns ``by``, n, nmae, smape,
    pinball, coverage_50, coverage_90, level_50, level_90, bias (sum_forecast / sum_actual - 1). NMAE is NaN where
    nothing happened and something was forecast, 0 where neither was.

    Raises:
        ValueError: ``by`` leaves out the task (units cannot be added).
    """
    if "task" not in by:
        raise ValueError(f"by = {list(by)}: must hold task; errors in different units cannot be added")
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
    columns["bias"] = _ratio(total["sum_forecast"] - total["sum_actual"], total["sum_actual"])
    return pa.table(columns)


def mean_over_tasks(finished: pa.Table) -> pa.Table:
    """The unweighted mean over tasks of ``finish``'s figures, per remaining key: the number that ranks forecasters."""
    keys = [key for key in KEYS if key in finished.column_names and key != "task"]
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
