"""Cells, a scenario's task over a horizon each, that a baseline serves in the champion's place, and why each row is by
whom it is. ``pipelines.life.fallback`` decides it, and writes ``TABLE``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from m2m_model.arrays import Strings
from m2m_model.data.served_by import COLD_START_DAYS
from m2m_model.data.spec import Target
from m2m_model.forecasts.methods import COLD_START, SILENT
from pipelines.config import ALL_SCENARIOS

if TYPE_CHECKING:
    from pipelines.warehouse.pins import Pin

TABLE = "ops.serving_cell"
CELL = ["scenario_id", "task", "horizon_days"]
UNJUDGED = "mean_28"  # serves where no backtest has said which baseline is best
IN_CELL, NO_CHAMPION = "cell: ", "no champion"  # how reasons begin where a baseline serves in the champion's place
BROKE = f"{IN_CELL}champion "  # and where it is for a rule against the day before


@dataclass(frozen=True)
class Cell:
    """The best baseline of a cell, and why it serves in the model's place; None: the model serves."""

    baseline: str
    reason: str | None


Cells = Mapping[tuple[str, str, int], Cell]


def cell_of(cells: Cells, scenario: str, task: str, days: int) -> Cell | None:
    """A scenario's own, or else that of all together."""
    return cells.get((scenario, task, days)) or cells.get((ALL_SCENARIOS, task, days))


def with_unsound(cells: Cells, broken: pl.DataFrame, version: str) -> Cells:
    """The same where in cells whose forecasts broke a rule against the day before their best baseline serves too."""
    more = dict(cells)
    for scenario, task, days, rule in broken.select(*CELL, "rule").iter_rows():
        known = cell_of(cells, scenario, task, days)
        more[scenario, task, days] = Cell(known.baseline if known else UNJUDGED, f"{BROKE}{version} broke {rule}")
    return more


def in_cells(cells: Cells, scenario_N: Strings, targets: Sequence[Target]) -> tuple[Strings, Strings] | None:
    """The baseline that serves each forecast and why, (N, M) each, None where the model does; None where it always
    does."""
    if not any(cell.reason for cell in cells.values()):
        return None
    scenarios, code_N = np.unique(scenario_N.astype(str), return_inverse=True)
    who_SM, why_SM = (np.full((len(scenarios), len(targets)), None, object) for _ in range(2))
    for s, scenario in enumerate(scenarios):
        for m, target in enumerate(targets):
            cell = cell_of(cells, str(scenario), target.name, target.horizon_days)
            if cell and cell.reason:
                who_SM[s, m], why_SM[s, m] = cell.baseline, cell.reason
    return who_SM[code_N], why_SM[code_N]


def reason(no_champion: str | None, cell_X: Strings | None = None) -> pl.Expr:
    """Why its method made a row of marts.forecast_daily.

    Args:
        no_champion: why the best baseline serves all, if it does.
        cell_X: of X rows, why a baseline serves the row's cell in the model's place; None where none does.
    """
    method = pl.col("method")
    alone = pl.lit("champion, which gives the network no part here")
    model = pl.when(method.str.starts_with("baseline:")).then(alone).otherwise(pl.lit("champion"))
    whole = model if no_champion is None else pl.lit(no_champion)
    if cell_X is not None:  # of an array that begins with None polars makes no text
        whole = pl.coalesce(pl.lit(pl.Series(cell_X.tolist(), dtype=pl.String)), whole)
    return (
        pl.when(method == SILENT)
        .then(pl.lit("silent: no recent row"))
        .when(method.str.contains(COLD_START, literal=True))
        .then(pl.lit(f"young: under {COLD_START_DAYS} days of history"))
        .otherwise(whole)
    )


def newest(pin: Pin, version: str, before: date | None = None) -> pl.DataFrame:
    """The newest rows of ``TABLE`` of a version, of dates before one; none if it was never judged."""
    from pipelines.warehouse.pins import on_day  # with PyIceberg, which workers do not need for the rest

    for ds in reversed(pin.days_written()):
        if before is None or ds < before:
            rows = pin.scan(on_day(ds)).filter(model_version=version)
            if rows.height:
                return rows
    return pin.scan(limit=0)


def cells_of(rows: pl.DataFrame) -> dict[tuple[str, str, int], Cell]:
    """Rows of ``TABLE``, as score asks them."""
    return {
        (s, t, d): Cell(baseline, reason)
        for s, t, d, baseline, reason in rows.select(*CELL, "baseline", "reason").iter_rows()
    }


def in_words(serving: Mapping[str, pl.DataFrame], forecaster: str) -> str:
    """Where a baseline serves in the place of one of those that were judged; empty if nowhere."""
    rows = serving.get(forecaster, pl.DataFrame({"falls_back": []}, {"falls_back": pl.Boolean}))
    fallen = rows.filter("falls_back")
    if fallen.is_empty():
        return ""
    more = f"; and {fallen.height - 3} more in {TABLE}" if fallen.height > 3 else ""
    return f"a baseline serves {fallen.height} of its {rows.height} cells: {'; '.join(lines(fallen.head(3)))}{more}"


def lines(fallen: pl.DataFrame) -> list[str]:
    """Each cell, and why a baseline serves it."""
    return [f"{_name(row)} {str(row['reason']).removeprefix(IN_CELL)}" for row in fallen.iter_rows(named=True)]


def _name(row: Mapping[str, object]) -> str:
    scenario = "all other scenarios" if row["scenario_id"] == ALL_SCENARIOS else row["scenario_id"]
    return f"{scenario} {row['task']} {row['horizon_days']}d"
