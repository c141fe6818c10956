"""Who serves each cell, a scenario's task over a horizon: the model, or the baseline that it surely loses to.

The backtest says how a version does beside the best baseline of every cell. Where it loses by the gate's own rules for
cells, the cell falls back, and stays so until a backtest says that the model is not worse at all: between the two
nothing changes, so that chance alone does not hand a cell to and fro. Where the last days' forecasts drifted (their
intervals no longer hold the actuals, or they expect much more error; see ``pipelines.quality.drift``), the doubt is
against the model: it serves only where it surely wins. A new version takes over what the champion of the backtest left,
and wins its cells back by the same rule. Scenarios with too few rows go with all together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date

import polars as pl

from pipelines.chain import CHALLENGER, CHAMPION
from pipelines.cli import Run
from pipelines.config import ALL_SCENARIOS, Gate
from pipelines.life.cells import CELL, IN_CELL, TABLE, newest
from pipelines.life.gate import ALL_TASKS, WORSE, surely_worse
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.pins import Reads, on_day


def of_gate(pairs: pl.DataFrame) -> pl.DataFrame:
    """The rows of marts.backtest_pair that the gate judges: the challenger's, beside those who it must hold against
    overall."""
    own = pairs.filter(pl.col("forecaster").fill_null(CHALLENGER) == CHALLENGER)
    return own.filter(pl.col("other").is_in(own.filter(task=ALL_TASKS)["other"].implode()))


def serving(
    pairs: pl.DataFrame, forecaster: str, gate: Gate, before: pl.DataFrame, ds: date, drifted: pl.DataFrame
) -> pl.DataFrame:
    """Rows of ``TABLE`` without their version and run.

    Args:
        pairs: rows of marts.backtest_pair of one date.
        before: the newest set of earlier dates of the champion of that backtest.
        drifted: cells whose forecasts drifted, with the ``doubt`` in words.
    """
    own = pairs.filter(
        pl.col("forecaster").fill_null(CHALLENGER) == forecaster,
        pl.col("other") != CHAMPION,
        pl.col("task") != ALL_TASKS,
    )
    best = own.sort("other_nmae", "other", nulls_last=True).unique(CELL, keep="first").sort(CELL)
    enough = pl.col("n").fill_null(0) >= gate.cell_rows
    rows = best.filter(enough | (pl.col("scenario_id") == ALL_SCENARIOS))
    worse_X = surely_worse(rows, gate, rows.select(enough).to_series().to_numpy())
    known = {tuple(row[:3]): row[3] for row in before.select(*CELL, "since").iter_rows()}
    doubts = {tuple(row[:3]): row[3] for row in drifted.select(*CELL, "doubt").iter_rows()}
    since, reasons = list[date | None](), list[str | None]()
    for row, worse in zip(rows.iter_rows(named=True), worse_X.tolist(), strict=True):
        task = (row["task"], row["horizon_days"])
        fell = known.get((row["scenario_id"], *task), known.get((ALL_SCENARIOS, *task)))
        doubt = doubts.get((row["scenario_id"], *task))
        if row["ratio"] is None or row["ratio_high"] < 1:
            doubt = None
        falls = (
            worse or doubt is not None or (fell is not None and not (row["ratio"] is not None and row["ratio"] <= 1))
        )
        since.append((fell or ds) if falls else None)
        reasons.append(_words(row, worse, doubt, ds, fell) if falls else None)
    return (
        rows.select(
            *CELL, "n", "nmae", "ratio", "ratio_low", "ratio_high", baseline="other", baseline_nmae="other_nmae"
        )
        .with_columns(pl.Series("since", since, pl.Date), pl.Series("reason", reasons, pl.String), ds=pl.lit(ds))
        .with_columns(falls_back=pl.col("since").is_not_null())
    )


def _words(row: Mapping[str, object], worse: bool, doubt: str | None, ds: date, fell: date | None) -> str:
    if row["ratio"] is None:
        figures = "no ratio"
    else:
        ratio, low, high = (float(str(row[name])) for name in ("ratio", "ratio_low", "ratio_high"))
        figures = f"ratio {ratio:.2f} (95 %: {low:.2f} .. {high:.2f})"
    if worse:
        return f"{IN_CELL}loses to {row['other']} in the backtest of {ds}, {figures}"
    if doubt:
        return f"{IN_CELL}its forecasts drifted ({doubt}), and it does not surely win from {row['other']}, {figures}"
    return (
        f"{IN_CELL}lost to a baseline since {fell}, does not win from {row['other']} in the backtest of {ds}, {figures}"
    )


def settle(
    run: Run,
    warehouse: Warehouse,
    reads: Reads,
    pairs: pl.DataFrame,
    versions: Mapping[str, str],
    broken: Collection[str],
    drifted: pl.DataFrame,
    write: bool,
) -> dict[str, pl.DataFrame]:
    """The rows of ``TABLE`` of each version that the backtest of the run's date judged, by forecaster.

    Args:
        versions: of challenger and champion; "None": there was none.
        broken: whose forecasts broke rules, so that nothing of it is published.
        drifted: cells whose forecasts drifted, with the ``doubt`` in words.
        write: into the table, beside those of other versions of that date.
    """
    pin, ds = reads.pin(TABLE), run.ds
    before = newest(pin, versions[CHAMPION], before=ds)
    found = {
        forecaster: serving(pairs, forecaster, run.config.gate, before, ds, drifted).with_columns(
            model_version=pl.lit(version), run_id=pl.lit(run.run_id)
        )
        for forecaster, version in versions.items()
        if version != "None" and forecaster not in broken
    }
    found = {forecaster: rows for forecaster, rows in found.items() if rows.height}
    if write and found:
        new = pl.concat(found.values())
        others = pin.scan(on_day(ds)).join(new, on="model_version", how="anti")
        rows = pl.concat([others, new.select(others.columns)], how="vertical_relaxed")
        warehouse.commit(TABLE, [ds], warehouse.write_rows(TABLE, rows, run.run_id), run.lineage(**reads.recorded))
    return found


def told(cells: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """What the gate asked of the challenger, and where it is called worse than the baseline, who serves there."""
    fallen = rows.filter("falls_back").select(*CELL, by="baseline")
    there = pl.format("served by {} there", "by")
    served = pl.when((pl.col("verdict") == WORSE) & pl.col("by").is_not_null()).then(there).otherwise("verdict")
    return cells.join(fallen, on=CELL, how="left", maintain_order="left").with_columns(verdict=served).drop("by")
