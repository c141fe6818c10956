"""The work of `promote`: pipelines/promote.py says what it reads and writes, and when it fails."""

from __future__ import annotations

import getpass
import socket
from dataclasses import dataclass, replace
from datetime import date, timedelta

import polars as pl

from pipelines.chain import CHALLENGER, CHAMPION, INPUT, MODEL
from pipelines.cli import LOG, Run
from pipelines.config import ALL_SCENARIOS
from pipelines.errors import DataError, plain
from pipelines.life import fallback
from pipelines.life.card import model_card
from pipelines.life.cells import in_words
from pipelines.life.champions import BY_HAND, GATE, Ledger, follow, refuse_overtaken, settled, write_line
from pipelines.life.gate import Decision, decide, for_people, in_order
from pipelines.life.registry import Registry
from pipelines.quality.drift import TABLE as DRIFT
from pipelines.quality.drift import doubted, in_doubt
from pipelines.reading.terminal import plural, shown
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.pins import Reads, between, on_day

CELLS, BACKTEST, PAIRS = "ops.promotion_cell", "marts.backtest", "marts.backtest_pair"
_SHOWN, _KEPT, _WIDTH = 20, 5000, 80  # cells in the log, and in MLflow; places of a line in the log


@dataclass(frozen=True)
class Answer:
    """What people said of a challenger that passed, and of which."""

    approved_by: str | None = None
    rejected_by: str | None = None
    challenger: str | None = None

    def of(self, decision: Decision, asked: bool) -> tuple[Decision, str]:
        """What becomes of a decision to promote, and who decided."""
        if self.rejected_by:
            who = plain(self.rejected_by)
            return replace(decision, promoted=False, reason=f"rejected by {who}. {decision.reason}"), who
        if self.approved_by:
            return decision, f"{GATE}, approved by {plain(self.approved_by)}"
        if asked:
            why = "nobody approved it, as [gate] approval_hours asks for (--approved-by WHO)"
            return replace(decision, promoted=False, reason=f"{why}. {decision.reason}"), GATE
        return decision, GATE


def promote(
    run: Run, warehouse: Warehouse, registry: Registry, dry_run: bool = False, answer: Answer | None = None
) -> Decision:
    """Decide, move the alias, and record what happened."""
    answer = answer or Answer()
    ds = run.ds
    reads = Reads(run.stage, warehouse)
    backtest = reads.pin(BACKTEST)
    rows = backtest.scan(on_day(ds))
    overall = rows.filter(pl.col("cutoff").is_null(), scenario_id=ALL_SCENARIOS)
    if overall.is_empty():
        raise DataError(f"{BACKTEST} ds={ds}: no rows; run backtest for that date first")
    ledger = settled(run, warehouse, registry, reads, dry_run)
    challenger, champion = registry.version_of(CHALLENGER), registry.version_of(CHAMPION)
    if challenger is None:
        raise DataError(f"{BACKTEST} ds={ds}: there is no challenger; train one for {ds} first")
    if answer.challenger and answer.challenger != challenger:
        raise DataError(
            f"model {registry.name}: the answer is about version {plain(answer.challenger)}, and the challenger is "
            f"{challenger} by now; run backtest and promote again"
        )
    reads.model(CHALLENGER, challenger)
    reads.model(CHAMPION, champion)
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
    decision = decide(fallback.of_gate(pairs.drop("ds", "run_id")), run.config.gate, broken)
    judged_as = {CHALLENGER: challenger, CHAMPION: judged.get(f"{INPUT}{MODEL}{CHAMPION}", "None")}
    newest = max(reads.pin(DRIFT).days(ds - timedelta(days=3), ds), default=ds)
    last_days = reads.pin(DRIFT).scan(between(newest - timedelta(days=2), newest))
    drifted = doubted(last_days, pairs, several=len(run.config.dataset.horizons) > 1)
    serving = fallback.settle(run, warehouse, reads, pairs, judged_as, broken, drifted, write=not dry_run)
    if CHALLENGER in serving:
        decision = replace(decision, cells=fallback.told(decision.cells, serving[CHALLENGER]))
    if decision.promoted and (why := not_again(ledger, challenger, registry)):
        decision = replace(decision, promoted=False, reason=f"{why}. {decision.reason}")
    doubt = in_doubt(last_days, newest)
    if decision.promoted and doubt and run.config.drift.holds_promotion:
        decision = replace(decision, promoted=False, reason=f"{doubt}. {decision.reason}")
    decided_by = GATE
    if decision.promoted and not dry_run:
        decision, decided_by = answer.of(decision, bool(run.config.gate.approval_hours))
    if champion == challenger:
        run.say(f"version {challenger} is champion already: {decision.reason}")
        return decision
    opened = None
    if decision.promoted:
        opened = registry.get(CHALLENGER)  # its files too: what score would refuse is not promoted
        if (opened and opened.version, registry.version_of(CHAMPION)) != (challenger, champion):
            refuse_overtaken(warehouse, ledger, challenger)
            raise DataError(f"model {registry.name}: an alias was moved while promote ran; run it again")
    moved = decision.promoted and not dry_run
    _write_cells(run, warehouse, reads, decision.cells)
    _show_cells(run, registry, decision.cells)
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
        "decided_by": decided_by,
        "backtest_snapshot_id": backtest.snapshot_id,
    }
    write_line(run, warehouse, reads, line, ledger if moved else None)
    if moved:
        follow(warehouse, registry)
    if moved and opened:
        registry.describe(opened, model_card(run, opened, rows, decision.reason))
    verb = "promoted" if decision.promoted else "not promoted"
    run.say(f"version {challenger} {verb}{' (dry run)' if dry_run else ''}: {decision.reason}")
    if words := in_words(serving, serves := CHALLENGER if decision.promoted else CHAMPION):
        run.say(f"version {judged_as[serves]}: {words}")
    return decision


def not_again(ledger: Ledger, challenger: str, registry: Registry) -> str:
    """Why a challenger that passed does not undo what a person decided; empty if it does not."""
    if challenger in ledger.replaced:
        return (
            f"version {challenger} was champion before and was replaced: what somebody took back, the gate does not "
            "bring back"
        )
    return ledger.kept_by_hand(registry.made_at(challenger))


def _write_cells(run: Run, warehouse: Warehouse, reads: Reads, cells: pl.DataFrame) -> None:
    """The decision in full."""
    names = [column.name for column in warehouse.declared(CELLS).columns]
    rows = cells.with_columns(ds=pl.lit(run.ds), run_id=pl.lit(run.run_id)).select(names)
    warehouse.append(CELLS, rows.to_arrow(), run.lineage(**reads.recorded))


def _show_cells(run: Run, registry: Registry, cells: pl.DataFrame) -> None:
    """What of it people look at first: in the log, and with the challenger's run in MLflow."""
    rows, file = in_order(cells), f"gate/{run.ds}.csv"
    if run_id := registry.run_id_of(CHALLENGER):
        registry.client.log_text(run_id, rows.drop("first").head(_KEPT).write_csv(), file)
    telling = rows.filter("first")
    table = for_people(telling.head(_SHOWN))
    lines = shown(table, [name for name in table.columns if name != "n"], _WIDTH).lines
    if telling.height > _SHOWN:
        lines.append(f"... and {telling.height - _SHOWN} more that failed or are worse")
    lines.append(
        f"{plural(rows.height, 'comparison')}, all of them in {CELLS} and in {file} of the challenger's MLflow run"
    )
    text = "\n".join(map(plain, lines))
    print(text, flush=True)
    LOG.write(text)


def by_hand(run: Run, version: str, reason: str) -> None:
    """Make a version champion because a person says so."""
    warehouse, registry = Warehouse.existing(run.config, run.ds), Registry(run.config)
    reads = Reads(run.stage, warehouse)
    opened, before = registry.version(version), registry.version_of(CHAMPION)
    version, ledger = opened.version, Ledger.read(warehouse)
    if before == version:
        before = ledger.champion  # the alias was moved to it outside the ledger, or is where it should be
    else:
        ledger = settled(run, warehouse, registry, reads)
        before = registry.version_of(CHAMPION)
    reads.model(CHALLENGER, version)
    reads.model(CHAMPION, before)
    if before == version:
        follow(warehouse, registry)
        run.say(f"version {version} is champion already; nothing was changed")
        return
    as_of = date.fromisoformat(registry.client.get_run(opened.run_id).data.tags.get("m2m.ds", str(run.ds)))
    who = f"{getpass.getuser()} on {socket.gethostname()}"
    by = f"{BY_HAND}{who}: {plain(reason)}"
    line = {"ds": as_of, "challenger": version, "champion": before, "promoted": True, "reason": by, "decided_by": who}
    write_line(run, warehouse, reads, line, ledger)
    follow(warehouse, registry)
    run.say(f"version {version} is champion in place of {before or 'none'}, {by}; score forecasts with it from now on")


def work(run: Run, dry_run: bool, answer: Answer) -> None:
    promote(run, Warehouse.existing(run.config, run.ds), Registry(run.config), dry_run, answer)
