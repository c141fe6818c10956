"""What ``make demo`` prints at its end: read from the tables, as ``python -m pipelines.show`` reads them."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import polars as pl

from m2m_model.forecasts.baselines import BASELINES
from m2m_model.rivals import NAMES as RIVALS
from pipelines.chain import CHALLENGER, CHAMPION
from pipelines.config import ALL_SCENARIOS, Config, load_config
from pipelines.life.evaluation import titled
from pipelines.reading.rows import rows_of
from pipelines.warehouse.commits import Warehouse

SERIES_SHOWN = 4


def summary(config_file: Path, trained_on: date, last_day: date) -> str:
    """The whole text; ``trained_on`` is the date of the backtest and the gate, ``last_day`` that of the forecasts."""
    config = load_config(str(config_file))
    warehouse, days = Warehouse(config), " and ".join(map(str, config.dataset.horizons))
    parts = [
        ("DATA", data(warehouse, last_day)),
        (
            f"BACKTEST: NMAE as of {trained_on}, all cutoffs together; lower is better",
            backtest(config, warehouse, trained_on),
        ),
        ("GATE", gate(warehouse, trained_on)),
        (f"FORECASTS: the {days} days after {last_day}", forecasts(config, warehouse, last_day)),
        ("LOOK FURTHER", look_further(config_file, last_day)),
    ]
    return "\n".join(f"\n{title}\n{indented(text)}" for title, text in parts)


def data(warehouse: Warehouse, last_day: date) -> str:
    days = warehouse.days("staged.performance_daily")
    series = warehouse.days("features.advertiser_sequence", last_day, last_day).get(last_day, 0)
    checked = rows_of(warehouse, "ops.validation")
    # A day that is staged again is counted again, and says the same.
    checked = checked.unique(["table", "ds", "check", "column", "scenario"], keep="last")
    lines = [
        f"{sum(days.values()):,} rows in staged.performance_daily, {min(days)} to {max(days)} ({len(days)} days)",
        f"{series:,} series (advertiser x scenario) as of {last_day}",
    ]
    dirt = checked.filter(pl.col("check").str.starts_with("dirt:"))
    lines += [
        f"dirt: {int(found):,} source rows {check.removeprefix('dirt:')}"
        for check, found in dirt.group_by("check").agg(pl.sum("found")).sort("found", descending=True).iter_rows()
    ] or ["dirt: none"]
    judged = checked.filter(pl.col("severity") != "info")
    warnings = judged.filter(~pl.col("passed"))
    lines.append(f"{len(judged):,} checks: {judged['passed'].sum():,} passed, {len(warnings):,} not")
    by_check = warnings.group_by("severity", "table", "check", "column").agg(pl.len(), pl.min("ds").alias("first"))
    lines += [
        f"  {severity} {table} {check}{f' {column}' if column else ''}: {count} times, first {first}"
        for severity, table, check, column, count, first in by_check.sort("severity", "table", "check").iter_rows()
    ]
    return "\n".join(lines)


def backtest(config: Config, warehouse: Warehouse, day: date) -> str:
    rows = rows_of(warehouse, "marts.backtest", day).filter(pl.col("cutoff").is_null())
    names = [name for name in (CHALLENGER, CHAMPION, *BASELINES, *RIVALS) if name in set(rows["forecaster"])]
    rows, tasks = titled(rows, config.sequence_spec), config.sequence_spec.titles
    cells: dict[tuple[str, str], dict[str, float | None]] = {
        (scenario, task): {} for scenario, task in rows.select("scenario_id", "task").iter_rows()
    }
    for scenario, task, forecaster, nmae in rows.select("scenario_id", "task", "forecaster", "nmae").iter_rows():
        cells[scenario, task][forecaster] = nmae
    # All scenarios together first, then each; tasks as they are declared.
    order = sorted(cells, key=lambda cell: (cell[0] != ALL_SCENARIOS, cell[0], tasks.index(cell[1])))
    body, lost = [], 0
    for scenario, task in order:
        nmae = cells[scenario, task]
        best = min((error for name in (*BASELINES, *RIVALS) if (error := nmae.get(name)) is not None), default=None)
        m2m = nmae.get(CHALLENGER)
        ratio = m2m / best if m2m is not None and best else None
        lost += ratio is not None and ratio > 1
        values = ["-" if nmae.get(name) is None else f"{nmae[name]:.3f}" for name in names]
        verdict = "" if ratio is None else f"{ratio:.2f} x best{', loses' if ratio > 1 else ''}"
        body.append([task, "all" if scenario == ALL_SCENARIOS else scenario, *values, verdict])
    titles = ["M2M" if name == CHALLENGER else name for name in names]
    shown = aligned([["task", "scenario", *titles, "M2M against the best baseline"], *body])
    return f"{shown}\nM2M loses to the best baseline in {lost} of {len(body)} lines."


def gate(warehouse: Warehouse, day: date) -> str:
    decision = rows_of(warehouse, "ops.promotion", day).sort("decided_at").row(-1, named=True)
    verdict = "promoted to champion" if decision["promoted"] else "not promoted"
    if decision["dry_run"]:
        verdict += " (dry run)"
    return f"version {decision['challenger']} {verdict}: {decision['reason']}"


def forecasts(config: Config, warehouse: Warehouse, day: date) -> str:
    spec = config.sequence_spec
    rows = titled(rows_of(warehouse, "marts.forecast_daily", day), spec)
    by_method = rows.group_by(pl.col("method").str.split("@").list.first()).len().sort("len", "method")
    methods = ", ".join(f"{count:,} by {method}" for method, count in by_method.iter_rows())
    key, first_task = ["advertiser_id", "scenario_id"], spec.titles[0]
    largest = rows.filter(task=first_task).sort("point", *key, descending=[True, False, False]).select(key)
    chosen = largest.head(SERIES_SHOWN).with_row_index("rank").join(rows, on=key).sort("rank", "horizon_days", "task")
    body = [
        [advertiser, scenario, task, f"{point:,.1f}", f"{p05:,.1f} .. {p95:,.1f}", method]
        for advertiser, scenario, task, point, p05, p95, method in chosen.select(
            *key, "task", "point", "p05", "p95", "method"
        ).iter_rows()
    ]
    table = aligned([["advertiser", "scenario", "task", "forecast", "90 % interval", "method"], *body])
    weights = "; after @ the network's weight" if rows["method"].str.contains("@").any() else ""
    return f"{len(rows):,} forecasts: {methods}{weights}. The series with the largest {first_task}:\n{table}"


def look_further(config_file: Path, day: date) -> str:
    config = os_relative(config_file)
    show = ".venv/bin/python -m pipelines.show"
    return "\n".join(
        [
            f"{show} tables --config {config}",
            f"{show} marts.forecast_daily --config {config} --date {day} --limit 20",
            f"{show} ops.validation --config {config} --date {day} --format json",
            f".venv/bin/python -m pipelines.score --config {config} --date {day}    # any stage by hand",
            "make console    # the forecasts in the browser; make ui: Airflow and MLflow too",
        ]
    )


def os_relative(path: Path) -> Path:
    """Relative to the current folder where it is below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def aligned(rows: list[list[str]]) -> str:
    """Columns with two spaces between; those whose body is numbers are right-aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    numeric = [all(re.fullmatch(r"[\d,.]+( \.\. [\d,.]+)?|-", row[i]) for row in rows[1:]) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in rows
    )


def indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
