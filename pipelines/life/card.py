"""The model card: what a version forecasts, from what it learned, how well, and what it is not for. In Markdown."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import polars as pl

from m2m_model.forecasts.baselines import BASELINES
from m2m_model.forecasts.cells import CELL_ROWS
from pipelines.chain import CHALLENGER
from pipelines.cli import Run
from pipelines.config import ALL_SCENARIOS
from pipelines.life.evaluation import titled
from pipelines.life.registry import ModelVersion

_COUNTS = {"sum": "sum of", "days": "days with"}
_LOSES = 1.05  # times the best baseline's error, from which a scenario is named
_NAMED = 12  # scenarios at most


def model_card(run: Run, version: ModelVersion, backtest: pl.DataFrame, why: str) -> str:
    """``backtest``: the rows of marts.backtest that the gate decided by; ``why``: its reason."""
    config, spec = run.config, run.config.sequence_spec
    learned = json.loads((version.folder / "config.json").read_text(encoding="utf-8"))["metadata"]
    rows = titled(backtest, spec)
    cutoffs = sorted(rows["cutoff"].drop_nulls().unique())
    cells = _against_best(rows.filter(pl.col("cutoff").is_null()))
    overall = cells.filter(scenario_id=ALL_SCENARIOS)
    lost = cells.filter(pl.col("scenario_id") != ALL_SCENARIOS, pl.col("n") >= CELL_ROWS, pl.col("ratio") > _LOSES)
    tasks = ", ".join(f"{task.name} ({_COUNTS[task.aggregate]} {task.metric})" for task in spec.tasks)
    days = " and ".join(map(str, spec.horizons_days))
    refit = learned["refit"]
    served = f"weights that learned once more from all labels to {run.ds}" if refit else "the weights that were judged"
    return "\n".join(
        [
            f"# m2m_{config.dataset.name}, version {version.version}",
            "",
            f"Promoted {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. {why}.",
            "",
            f"**Forecasts** {tasks}, over the {days} days after an as-of date, for every advertiser in every scenario "
            f"with a row in the {spec.eligible_days} days before it, and for newcomers: median, mean and quantiles of "
            "what will come. `method` in marts.forecast_daily says of each row who made it: the network, a simple or "
            "learned baseline, or a mix of both.",
            "",
            f"**Learned from** features.advertiser_sequence as of {run.ds}: {learned['training_windows']:,} windows, "
            f"{learned['steps']:,} steps, seed {learned['train_config']['seed']}; stopped by and calibrated on "
            f"{', '.join(learned['validation_cutoffs'])}. Serves {served}. Parameters, snapshot, code version and "
            f"packages: MLflow run {version.run_id}.",
            "",
            f"**Judged** on {len(cutoffs)} cutoffs that it never saw, {cutoffs[0]} to {cutoffs[-1]}. NMAE is the sum "
            "of absolute errors over the sum of what happened; the best baseline is picked afterwards, per line.",
            "",
            "| task | rows | NMAE | best baseline | its NMAE | ratio | inside the 90 % interval |",
            "| --- | ---: | ---: | --- | ---: | ---: | ---: |",
            *(
                f"| {row['task']} | {row['n']:,} | {_figure(row['nmae'])} | {row['best']} | "
                f"{_figure(row['best_nmae'])} | {_figure(row['ratio'])} | {_share(row['coverage_90'])} |"
                for row in overall.iter_rows(named=True)
            ),
            "",
            *_losses(lost),
            "",
            "**Not for** deciding about one advertiser without looking at its interval; for totals, which "
            "marts.forecast_total has with intervals of their own; for breaks that nothing in the history or in "
            "declared plans announces. Known weaknesses: docs/model.md.",
            "",
            f"**Take it back**: `m2m promote --config {config.path.name} --to VERSION --reason TEXT`.",
            "",
        ]
    )


def _against_best(rows: pl.DataFrame) -> pl.DataFrame:
    """A line for each scenario and task: the challenger beside the best baseline."""
    key = ["scenario_id", "task"]
    simple = rows.filter(pl.col("forecaster").is_in(list(BASELINES))).drop_nulls("nmae").sort("nmae")
    best = simple.unique(key, keep="first", maintain_order=True).select(*key, best="forecaster", best_nmae="nmae")
    own = rows.filter(forecaster=CHALLENGER).join(best, on=key, how="left", maintain_order="left")
    return own.with_columns(ratio=pl.col("nmae") / pl.col("best_nmae"))


def _losses(lost: pl.DataFrame) -> list[str]:
    if lost.is_empty():
        return [
            f"No scenario with {CELL_ROWS} rows or more loses more than {_LOSES - 1:.0%} to the best simple baseline."
        ]
    worst = lost.sort("ratio", descending=True).head(_NAMED)
    named = [f"{row['scenario_id']} {row['task']} ({row['ratio']:.2f})" for row in worst.iter_rows(named=True)]
    more = f", and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
    return [f"**Loses** more than {_LOSES - 1:.0%} to the best simple baseline on {', '.join(named)}{more}."]


def _figure(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
