"""The gate: the challenger's errors beside the champion's and the best baseline's in, a decision out, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nan

import numpy as np
import polars as pl

from m2m_model.arrays import Bools
from m2m_model.forecasts.baselines import BASELINES
from m2m_model.judging.paired import chance, discoveries
from pipelines.chain import CHAMPION
from pipelines.config import ALL_SCENARIOS, Gate
from pipelines.errors import DataError

ALL_TASKS = "*"  # task of the mean over tasks
PASSED, FAILED, MISSING, FEW, NO_BAR = "passed", "failed", "failed: a figure is missing", "too few rows", "no bar"
WORSE = "worse than the baseline"  # of a cell: no reason to refuse, for that baseline can serve there


@dataclass(frozen=True)
class Decision:
    """What the gate decided, and why; the figures are means over all horizons. ``cells`` are the pairs with ``rule``
    and ``verdict``."""

    promoted: bool
    reason: str
    challenger_nmae: float
    champion_nmae: float | None
    baseline: str
    baseline_nmae: float
    cells: pl.DataFrame = field(compare=False)


def best_baseline(mean_nmae: Mapping[str, float]) -> str:
    """The baseline with the lowest mean NMAE; a NaN never wins, the first name does in a tie.

    Raises:
        DataError: no baseline is among them.
    """
    known = [name for name in BASELINES if name in mean_nmae]
    if not known:
        raise DataError(f"marts.backtest: expected a baseline, found {', '.join(mean_nmae) or 'no row'}")
    return min(known, key=lambda name: (not mean_nmae[name] >= 0, mean_nmae[name]))


def decide(pairs: pl.DataFrame, gate: Gate, broken: Mapping[str, str] | None = None) -> Decision:
    """Apply the gate to the rows of marts.backtest_pair of one date.

    In the mean over tasks, of each horizon: the error is at most ``max_ratio_to_baseline`` times the best baseline's,
    and not surely above ``max_ratio_to_champion`` times the champion's (the whole 95 % interval is). In a cell, a
    scenario's or all scenarios' task, with ``cell_rows`` rows: it is not worse than the champion by more than
    ``effect`` with an interval beyond ``tolerance``, where of cells that are called so at most ``false_discoveries``
    are chance. A missing figure fails. ``broken``: rules of forecasts that a model broke, in words; a champion that
    broke some is no bar, for score would publish the best baseline in its place.

    Raises:
        DataError: there is no pair with a baseline.
    """
    broken = broken or {}
    cells = judged(pairs.sort("horizon_days", "scenario_id", "task", "other"), gate, CHAMPION in broken)
    overall = cells.filter(scenario_id=ALL_SCENARIOS, task=ALL_TASKS)
    simple = overall.filter(pl.col("other") != CHAMPION)
    if simple.is_empty():
        raise DataError("marts.backtest_pair: expected the challenger beside a baseline, found no row")
    several = overall["horizon_days"].n_unique() > 1
    failed = cells.filter(pl.col("verdict").is_in([FAILED, MISSING]))
    bars = failed if failed.height else overall.filter(verdict=PASSED)
    words = "; ".join(_words(row, several) for row in bars.head(6).iter_rows(named=True))
    if bars.height > 6:
        words += f"; and {bars.height - 6} more in ops.promotion_cell"
    if "challenger" in broken:
        words = f"its forecasts break rules, so that score would not publish them: {broken['challenger']}. {words}"
    champion = overall.filter(other=CHAMPION)
    return Decision(
        promoted=failed.is_empty() and "challenger" not in broken,
        reason=words,
        challenger_nmae=_mean(simple, "nmae"),
        champion_nmae=_mean(champion, "other_nmae") if champion.height else None,
        baseline=simple["other"][0],
        baseline_nmae=_mean(simple, "other_nmae"),
        cells=cells,
    )


def judged(pairs: pl.DataFrame, gate: Gate, champion_is_no_bar: bool = False) -> pl.DataFrame:
    """The pairs with ``rule``, what is asked of each, and ``verdict``."""
    whole = ((pl.col("scenario_id") == ALL_SCENARIOS) & (pl.col("task") == ALL_TASKS)).alias("whole")
    of_champion = (pl.col("other") == CHAMPION).alias("of_champion")
    rows = pairs.with_columns(whole, of_champion)
    tested_X = ~rows["whole"].to_numpy() & (rows["n"].fill_null(0) >= gate.cell_rows).to_numpy()
    worse_X = surely_worse(rows, gate, tested_X)
    own, other = pl.col("nmae"), pl.col("other_nmae")
    # By products, not ratios: a perfect side has no ratio.
    above_baseline = ~(own <= gate.max_ratio_to_baseline * other).fill_null(False)
    above_champion = ~(pl.col("ratio_low") <= gate.max_ratio_to_champion).fill_null(False)
    cell_rule = f"not worse by {gate.effect:.0%} with an interval beyond {gate.tolerance:.0%}"
    rule = (
        pl.when("whole", "of_champion")
        .then(pl.lit(f"not surely above {gate.max_ratio_to_champion:g} times"))
        .when("whole")
        .then(pl.lit(f"at most {gate.max_ratio_to_baseline:g} times"))
        .otherwise(pl.lit(cell_rule))
    )
    missing = own.is_null() | other.is_null() | own.is_nan() | other.is_nan()
    verdict = (
        pl.when(pl.col("of_champion") & pl.lit(champion_is_no_bar))
        .then(pl.lit(NO_BAR))
        .when(~pl.col("whole") & ~pl.Series("tested", tested_X))
        .then(pl.lit(FEW))
        .when(missing)
        .then(pl.lit(MISSING))
        .when("whole", "of_champion")
        .then(pl.when(above_champion).then(pl.lit(FAILED)).otherwise(pl.lit(PASSED)))
        .when("whole")
        .then(pl.when(above_baseline).then(pl.lit(FAILED)).otherwise(pl.lit(PASSED)))
        .when(pl.Series("worse", worse_X))
        .then(pl.when("of_champion").then(pl.lit(FAILED)).otherwise(pl.lit(WORSE)))
        .otherwise(pl.lit(PASSED))
    )
    return rows.with_columns(rule=rule, verdict=verdict).drop("whole", "of_champion")


def surely_worse(rows: pl.DataFrame, gate: Gate, tested_X: Bools) -> Bools:
    """Which of the pairs that are tested lose by the rules of cells: by ``effect`` with an interval beyond
    ``tolerance``, and not by chance."""
    ratio_X, spread_X, low_X = (
        rows[name].cast(pl.Float64).fill_null(nan).to_numpy() for name in ("ratio", "spread", "ratio_low")
    )
    worse_X = np.zeros(len(rows), bool)
    worse_X[tested_X] = discoveries(chance(ratio_X, spread_X, gate.tolerance)[tested_X], gate.false_discoveries)
    with np.errstate(invalid="ignore"):
        worse_X &= (low_X > 1 + gate.tolerance) & (ratio_X > 1 + gate.effect)
    return worse_X


def in_order(cells: pl.DataFrame) -> pl.DataFrame:
    """Judged cells as a person looks at them: the means over tasks, what failed, what is worse than the baseline
    (``first``); then all others."""
    whole = (pl.col("scenario_id") == ALL_SCENARIOS) & (pl.col("task") == ALL_TASKS)
    known = {FAILED: 1, MISSING: 1, PASSED: 3, FEW: 3, NO_BAR: 3}  # else worse, whoever serves there
    telling = pl.col("verdict").replace_strict(known, default=2, return_dtype=pl.Int8)
    rank = pl.when(whole).then(pl.lit(0, pl.Int8)).otherwise(telling)
    keys = ["horizon_days", "scenario_id", "task", "other"]
    order = cells.with_columns(rank=rank).sort("rank", "ratio", *keys, descending=[False, True, *[False] * len(keys)])
    return order.with_columns(first=pl.col("rank") < 3).drop("rank")


def for_people(cells: pl.DataFrame) -> pl.DataFrame:
    """Judged cells in a few narrow columns."""
    several = cells["horizon_days"].n_unique() > 1
    cell = [pl.col("scenario_id"), pl.col("task"), *([pl.format("{}d", "horizon_days")] if several else [])]
    number = {name: pl.col(column).round(4) for name, column in (("challenger", "nmae"), ("its", "other_nmae"))}
    return cells.select(
        pl.col("verdict").replace({MISSING: "no figure", WORSE: "worse", FEW: "few rows"}),
        pl.concat_str(cell, separator=" ").alias("scenario task"),
        pl.col("other").alias("beside"),
        pl.col("n"),
        **number,
        ratio=pl.col("ratio").round(3),
        **{"95 %": pl.format("{}..{}", pl.col("ratio_low").round(2), pl.col("ratio_high").round(2))},
    )


def _words(row: Mapping[str, object], several: bool) -> str:
    """One comparison, as a person reads it."""
    scenario, task, other = row["scenario_id"], row["task"], row["other"]
    over = f"{row['horizon_days']}-day " if several else ""
    cell = "" if task == ALL_TASKS else f"{'all scenarios' if scenario == ALL_SCENARIOS else scenario} {task}: "
    name = "champion's" if other == CHAMPION else f"best baseline {other}'s"
    own, theirs = (float("nan") if row[key] is None else float(str(row[key])) for key in ("nmae", "other_nmae"))
    head = f"{cell}{over}NMAE {own:.4f}"
    if theirs == 0:
        return f"{head} beside {name} {theirs:.4f}, which has no ratio ({row['rule']})"
    if row["ratio"] is None:
        return f"{head} beside {name} {theirs:.4f} ({row['rule']})"
    low, high = (float(str(row[key])) for key in ("ratio_low", "ratio_high"))
    return f"{head} is {own / theirs:.3f} of {name} {theirs:.4f} (95 %: {low:.2f} .. {high:.2f}; {row['rule']})"


def _mean(rows: pl.DataFrame, name: str) -> float:
    values = rows[name].to_list()
    return float(np.mean([nan if value is None else value for value in values]))
