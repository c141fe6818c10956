"""Stage: the gate. The challenger's backtest -> alias `champion`, and a line in ops.promotion.

Reads marts.backtest of --date. The challenger is promoted when its NMAE, averaged over tasks, is not above
the champion's and not above the best single baseline's ([gate] sets both ratios). Writes every decision
to ops.promotion, with its figures; --dry-run only records it. A rejected challenger is not an error:
yesterday's champion, or the best baseline, goes on serving.
Fails (3) when the date has no backtest of the present challenger.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from m2m_model.forecasts.baselines import BASELINES
from pipelines.cli import Run, exit_status, run_of, stage_parser
from pipelines.config import ALL_SCENARIOS, Gate
from pipelines.errors import DataError
from pipelines.life.registry import CHALLENGER, CHAMPION, Registry
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.pins import Reads, on_day


@dataclass(frozen=True)
class Decision:
    """What the gate decided, and why."""

    promoted: bool
    reason: str
    challenger_nmae: float
    champion_nmae: float | None
    baseline: str
    baseline_nmae: float


def decide(mean_nmae: dict[str, float], gate: Gate) -> Decision:
    """Apply the gate to the mean NMAE of each forecaster.

    Raises:
        DataError: the challenger or every baseline is missing from the backtest.
    """
    baselines = {name: mean_nmae[name] for name in BASELINES if name in mean_nmae}
    if CHALLENGER not in mean_nmae or not baselines:
        raise DataError(
            f"marts.backtest: expected the challenger and a baseline, found {', '.join(mean_nmae) or 'no row'}"
        )
    challenger, champion = mean_nmae[CHALLENGER], mean_nmae.get(CHAMPION)
    baseline = min(baselines, key=lambda name: baselines[name])
    bars = [(f"best baseline {baseline}", baselines[baseline], gate.max_ratio_to_baseline)]
    if champion is not None:
        bars.append(("champion", champion, gate.max_ratio_to_champion))
    # Written so that a NaN on either side fails the gate.
    failed = [(name, value, limit) for name, value, limit in bars if not challenger <= limit * value]
    ratios = "; ".join(
        f"NMAE {challenger:.4f} is {challenger / value:.3f} of {name}'s {value:.4f} (at most {limit:g})"
        for name, value, limit in failed or bars
    )
    return Decision(not failed, ratios, challenger, champion, baseline, baselines[baseline])


def promote(run: Run, warehouse: Warehouse, registry: Registry, dry_run: bool = False) -> Decision:
    """Decide, record, and move the alias."""
    ds = run.ds
    reads = Reads(run.stage, warehouse)
    rows = reads.pin("marts.backtest").scan(on_day(ds))
    overall = rows.filter(pl.col("cutoff").is_null(), scenario_id=ALL_SCENARIOS)
    if overall.is_empty():
        raise DataError(f"marts.backtest ds={ds}: no rows; run backtest for that date first")
    challenger, champion = registry.get(CHALLENGER), registry.get(CHAMPION)
    for alias, version in ((CHALLENGER, challenger), (CHAMPION, champion)):
        reads.model(alias, version.version if version else None)
    judged = overall.filter(forecaster=CHALLENGER)["model_version"].unique().to_list()
    if challenger is None or judged != [challenger.version]:
        now = challenger.version if challenger else "none"
        raise DataError(
            f"marts.backtest ds={ds}: judged version {judged}, but the challenger is {now}; run backtest again"
        )
    means = overall.group_by("forecaster").agg(
        pl.when(pl.col("nmae").null_count() == 0).then(pl.mean("nmae")).otherwise(float("nan"))
    )
    decision = decide(dict(means.iter_rows()), run.config.gate)
    ledger = pl.DataFrame(
        {
            "ds": [ds],
            "run_id": [run.run_id],
            "decided_at": [datetime.now(UTC).replace(tzinfo=None)],
            "challenger": [challenger.version],
            "champion": [champion.version if champion else None],
            "challenger_nmae": [decision.challenger_nmae],
            "champion_nmae": [decision.champion_nmae],
            "baseline": [decision.baseline],
            "baseline_nmae": [decision.baseline_nmae],
            "promoted": [decision.promoted and not dry_run],
            "dry_run": [dry_run],
            "reason": [decision.reason],
        },
        schema_overrides={"champion": pl.String, "champion_nmae": pl.Float64},
    )
    # The ledger first: an alias that moved without a line would have no story.
    warehouse.append("ops.promotion", ledger.to_arrow(), run.lineage(**reads.recorded))
    if decision.promoted and not dry_run:
        registry.promote(challenger.version)
    verb = "promoted" if decision.promoted else "not promoted"
    run.say(f"version {challenger.version} {verb}{' (dry run)' if dry_run else ''}: {decision.reason}")
    return decision


def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__doc__ or "")
    parser.add_argument("--dry-run", action="store_true", help="decide and record, but do not move the alias")
    arguments = parser.parse_args(argv)
    run = run_of("promote", arguments)
    promote(run, Warehouse(run.config), Registry(run.config), arguments.dry_run)


if __name__ == "__main__":
    sys.exit(exit_status(main))
