"""The work of `promote`: pipelines/promote.py says what it reads and writes, and when it fails."""

from __future__ import annotations

import getpass
import socket
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from pipelines.chain import CHALLENGER, CHAMPION, MODEL
from pipelines.cli import Run
from pipelines.config import ALL_SCENARIOS
from pipelines.errors import DataError, plain
from pipelines.life.card import model_card
from pipelines.life.gate import Decision, decide
from pipelines.life.registry import Registry
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.pins import Reads, on_day

TABLE, CELLS, BACKTEST, PAIRS = "ops.promotion", "ops.promotion_cell", "marts.backtest", "marts.backtest_pair"


def promote(run: Run, warehouse: Warehouse, registry: Registry, dry_run: bool = False) -> Decision:
    """Decide, move the alias, and record what happened."""
    ds = run.ds
    reads = Reads(run.stage, warehouse)
    backtest = reads.pin(BACKTEST)
    rows = backtest.scan(on_day(ds))
    overall = rows.filter(pl.col("cutoff").is_null(), scenario_id=ALL_SCENARIOS)
    if overall.is_empty():
        raise DataError(f"{BACKTEST} ds={ds}: no rows; run backtest for that date first")
    challenger, champion = registry.version_of(CHALLENGER), registry.version_of(CHAMPION)
    if challenger is None:
        raise DataError(f"{BACKTEST} ds={ds}: there is no challenger; train one for {ds} first")
    reads.model(CHALLENGER, challenger)
    reads.model(CHAMPION, champion)
    replaced = champions_before(run, warehouse, reads, champion)
    compared: dict[str, str | None] = {CHALLENGER: challenger}
    if champion != challenger:  # else it was promoted already, and this is the same decision once more
        compared[CHAMPION] = champion
    judged = backtest.lineage().get(ds, {})
    for alias, now in compared.items():
        if (then := judged.get(f"m2m.input.{MODEL}{alias}")) != str(now):
            raise DataError(f"{BACKTEST} ds={ds}: judged {alias} {then}, but it is {now} now; run backtest again")
    pairs = reads.pin(PAIRS).scan(on_day(ds))
    if set(pairs["run_id"]) != set(rows["run_id"]):
        raise DataError(f"{PAIRS} ds={ds}: not of the same run as {BACKTEST}; run backtest for that date again")
    broken = dict(overall.drop_nulls("broken").select("forecaster", "broken").unique().iter_rows())
    decision = decide(pairs.drop("ds", "run_id"), run.config.gate, broken)
    if decision.promoted and challenger in replaced:
        decision = replace(
            decision,
            promoted=False,
            reason=f"version {challenger} was champion before and was replaced: what somebody took back, the "
            f"gate does not bring back. {decision.reason}",
        )
    if champion == challenger:
        run.say(f"version {challenger} is champion already: {decision.reason}")
        return decision
    opened = None
    if decision.promoted:
        opened = registry.get(CHALLENGER)  # its files too: what score would refuse is not promoted
        if (opened and opened.version, registry.version_of(CHAMPION)) != (challenger, champion):
            raise DataError(f"model {registry.name}: an alias was moved while promote ran; run it again")
    moved = decision.promoted and not dry_run
    _write_cells(run, warehouse, reads, decision.cells)
    # The alias first: a line says what happened, and a move without a line is found by the next run.
    if moved:
        registry.promote(challenger)
    line = {
        "challenger": challenger,
        "champion": champion,
        "challenger_nmae": decision.challenger_nmae,
        "champion_nmae": decision.champion_nmae,
        "baseline": decision.baseline,
        "baseline_nmae": decision.baseline_nmae,
        "promoted": moved,
        "dry_run": dry_run,
        "reason": decision.reason,
    }
    _write_line(run, warehouse, reads, line)
    if moved and opened:
        registry.describe(opened, model_card(run, opened, rows, decision.reason))
    verb = "promoted" if decision.promoted else "not promoted"
    run.say(f"version {challenger} {verb}{' (dry run)' if dry_run else ''}: {decision.reason}")
    return decision


def champions_before(run: Run, warehouse: Warehouse, reads: Reads, now: str | None) -> set[str]:
    """Versions that were champion and are no more, by the ledger. A champion that the ledger does not know gets its
    line: the alias was moved by hand, or a promotion ended before its line."""
    lines = warehouse.scan(TABLE).filter(promoted=True).sort("decided_at")
    last = lines["challenger"].to_list()[-1] if lines.height else None
    if now is not None and now != last:
        reason = f"found as champion instead of {last}: the alias was moved outside the gate, or a promotion was killed"
        _write_line(run, warehouse, reads, {"challenger": now, "champion": last, "promoted": True, "reason": reason})
        run.say(f"warning: version {now} {reason}")
    return set(lines["challenger"]) - {now}


def _write_cells(run: Run, warehouse: Warehouse, reads: Reads, cells: pl.DataFrame) -> None:
    """The decision in full."""
    names = [column.name for column in warehouse.declared(CELLS).columns]
    rows = cells.with_columns(ds=pl.lit(run.ds), run_id=pl.lit(run.run_id)).select(names)
    warehouse.append(CELLS, rows.to_arrow(), run.lineage(**reads.recorded))


def _write_line(run: Run, warehouse: Warehouse, reads: Reads, line: dict[str, Any]) -> None:
    """One line of the ledger."""
    whole = {"ds": run.ds, "run_id": run.run_id, "decided_at": datetime.now(UTC).replace(tzinfo=None)}
    whole |= {"champion": None, "dry_run": False, "baseline": None}
    whole |= dict.fromkeys(("challenger_nmae", "champion_nmae", "baseline_nmae")) | line
    numbers = {name: pl.Float64 for name in whole if name.endswith("_nmae")}
    row = pl.DataFrame([whole], schema_overrides=numbers | {"champion": pl.String, "baseline": pl.String})
    names = [column.name for column in warehouse.declared(TABLE).columns]
    warehouse.append(TABLE, row.select(names).to_arrow(), run.lineage(**reads.recorded))


def by_hand(run: Run, version: str, reason: str) -> None:
    """Make a version champion because a person says so."""
    warehouse, registry = Warehouse.existing(run.config, run.ds), Registry(run.config)
    reads = Reads(run.stage, warehouse)
    opened, before = registry.version(version), registry.version_of(CHAMPION)
    reads.model(CHALLENGER, version)
    reads.model(CHAMPION, before)
    champions_before(run, warehouse, reads, before)
    if before == opened.version:
        run.say(f"version {version} is champion already; nothing was changed")
        return
    registry.promote(opened.version)
    as_of = date.fromisoformat(registry.client.get_run(opened.run_id).data.tags.get("m2m.ds", str(run.ds)))
    by = f"by hand, {getpass.getuser()} on {socket.gethostname()}: {plain(reason)}"
    line = {"ds": as_of, "challenger": version, "champion": before, "promoted": True, "reason": by}
    _write_line(run, warehouse, reads, line)
    run.say(f"version {version} is champion in place of {before or 'none'}, {by}; score forecasts with it from now on")


def work(run: Run, dry_run: bool) -> None:
    promote(run, Warehouse.existing(run.config, run.ds), Registry(run.config), dry_run)
