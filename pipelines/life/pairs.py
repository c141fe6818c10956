"""A model's errors beside another's, cell by cell, and how sure the difference is: ``marts.backtest_pair``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from m2m_model.arrays import Floats, Strings
from m2m_model.data.panel import Panel
from m2m_model.data.spec import SequenceSpec, Target
from m2m_model.forecasts.baselines import BASELINES
from m2m_model.forecasts.metrics import named
from m2m_model.judging.paired import REPLICATES, compare, replicate_sums
from pipelines.chain import CHALLENGER
from pipelines.config import ALL_SCENARIOS
from pipelines.life.cells import CELL
from pipelines.life.gate import ALL_TASKS

ACTUAL = "actual"  # among the forecasters: what happened

REPLICATE = [f"replicate_{number}" for number in range(REPLICATES + 1)]


def replicates(errors: Mapping[str, Floats], panel: Panel, targets: Sequence[Target]) -> pl.DataFrame:
    """A row for each forecaster and cell of a panel, with its errors' sum in each replicate.

    Args:
        errors: by forecaster (N, M), added up over cutoffs; ``ACTUAL`` has what happened.
    """
    stacked_NX = np.concatenate(list(errors.values()), axis=1)
    return replicate_rows(list(errors), *replicate_sums(stacked_NX, panel.advertiser_N, panel.scenario_N), targets)


def replicate_rows(
    forecasters: Sequence[str], scenarios: Strings, sums_KXR: Floats, targets: Sequence[Target]
) -> pl.DataFrame:
    """The same of sums (K, forecasters x M, R)."""
    times = len(scenarios) * len(forecasters)
    keys = {
        "scenario_id": np.repeat(scenarios, len(forecasters) * len(targets)).tolist(),
        "forecaster": np.tile(np.repeat(forecasters, len(targets)), len(scenarios)).tolist(),
        **named(targets, times),
    }
    return pl.DataFrame(keys | dict(zip(REPLICATE, sums_KXR.reshape(times * len(targets), -1).T, strict=True)))


def compared(
    sums: pl.DataFrame,
    counted: pl.DataFrame,
    spec: SequenceSpec,
    others: Sequence[str],
    models: Sequence[str] = (),
) -> pl.DataFrame:
    """The challenger beside each of ``others``: in every scenario, in all of them, and in the mean over tasks. And each
    of ``models`` beside the baseline with the least error of the cell, in every scenario and in all of them.

    Args:
        sums: what ``replicates`` gives, added up over buckets.
        counted: n of each cell.
    """
    everywhere = sums.group_by("forecaster", "task", "horizon_days").agg(pl.sum(*REPLICATE))
    cells = pl.concat([sums.select(*CELL, "forecaster", *REPLICATE), everywhere.select(
        pl.lit(ALL_SCENARIOS).alias("scenario_id"), "task", "horizon_days", "forecaster", *REPLICATE
    )])  # fmt: skip
    found: dict[tuple[str, str, int], dict[str, Floats]] = {}
    for scenario, task, days, forecaster, *values in cells.iter_rows():
        found.setdefault((scenario, task, days), {})[forecaster] = np.array(values)
    for days in spec.horizons_days:
        of = [found[ALL_SCENARIOS, target.name, days] for target in spec.targets if target.horizon_days == days]
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = {name: np.mean([_nmae(each, name) for each in of], axis=0) for name in (CHALLENGER, *others)}
        found[ALL_SCENARIOS, ALL_TASKS, days] = {**mean, ACTUAL: np.ones(REPLICATES + 1)}
    rows = []
    for (scenario, task, days), sides in found.items():
        asked = [(CHALLENGER, other) for other in others]
        if models and task != ALL_TASKS:
            known = [name for name in BASELINES if name in sides]
            best = min(known, key=lambda name: np.nan_to_num(sides[name][0], nan=np.inf))
            asked += [(model, best) for model in models if (model, best) not in asked]
        for own, other in asked:
            pair = compare(sides[own], sides[other])
            both = [float(_nmae(sides, name)[0]) for name in (own, other)]
            rows.append((own, other, scenario, task, days, *both, pair.ratio, pair.low, pair.high, pair.spread))
    numbers = ["nmae", "other_nmae", "ratio", "ratio_low", "ratio_high", "spread"]
    schema = dict.fromkeys(["forecaster", "other", *CELL], pl.String) | {"horizon_days": pl.Int32}
    made = pl.DataFrame(rows, schema | dict.fromkeys(numbers, pl.Float64), orient="row")
    counts = pl.concat(
        [
            counted.select(*CELL, "n"),
            counted.group_by("task", "horizon_days").agg(pl.sum("n")).select(
                pl.lit(ALL_SCENARIOS).alias("scenario_id"), "task", "horizon_days", "n"
            ),
            counted.group_by("horizon_days").agg(pl.sum("n")).select(
                pl.lit(ALL_SCENARIOS).alias("scenario_id"), pl.lit(ALL_TASKS).alias("task"), "horizon_days", "n"
            ),
        ]
    )  # fmt: skip
    return made.join(counts, on=CELL, how="left").with_columns(pl.col(numbers).fill_nan(None))


def _nmae(sides: Mapping[str, Floats], name: str) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sides[name] / sides[ACTUAL])
