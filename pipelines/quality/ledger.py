"""Checks of a run: judge, keep every result in ``ops.validation``, stop on what is critical."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import polars as pl

from pipelines.cli import Run, warn
from pipelines.events import EVENTS
from pipelines.quality import pages
from pipelines.quality.judge import (
    CheckResult,
    failures,
    format_failure,
    raise_on_critical,
    run_checks,
)
from pipelines.quality.rules import Check, counters_frame
from pipelines.reports.checks import FOLDER as CHECKS
from pipelines.sources.files import Finding
from pipelines.spark.buckets import FILE
from pipelines.warehouse.commits import Warehouse


def check(
    run: Run,
    warehouse: Warehouse,
    tables: Mapping[str, tuple[pl.DataFrame, Sequence[Check]]],
    noticed: Sequence[CheckResult] = (),
) -> None:
    """Judge the reports of a stage's tables, keep every result (``noticed`` among them) in ``ops.validation`` and as
    a page, print the warnings, and stop the run on a critical failure.

    Raises:
        DataError: with one line per critical failure.
    """
    results = list(noticed)
    for table, (report, checks) in tables.items():
        results += _judge(run, table, report, checks)
    EVENTS.judged(results)
    page = pages.publish(run.config.home / CHECKS, run, results)
    if results:
        schema = warehouse.arrow_schema("ops.validation")
        rows = pl.DataFrame([asdict(result) for result in results], infer_schema_length=None)
        warehouse.append("ops.validation", rows.select(schema.names).to_arrow(), run.lineage())
    for first, count in _grouped([result for result in failures(results) if result.severity == "warning"]):
        more = f" (and {count - 1} more like it in ops.validation)" if count > 1 else ""
        warn(f"{format_failure(first)}{more}")
    raise_on_critical(results, page)
    if failures(results) and page:
        print(f"every check of this run, and what to do: {page}", file=sys.stderr, flush=True)


def _judge(run: Run, table: str, report: pl.DataFrame, checks: Sequence[Check]) -> list[CheckResult]:
    """Results of the checks of one table, and one ``info`` result per day, scenario and dirt rule."""
    dirt = pl.col("counter").str.starts_with("dirt:")
    counted = report.filter(~dirt & (pl.col("counter") != FILE))
    results = run_checks(table, counters_frame(counted, checks), checks, run)
    rows = report.filter(dirt).group_by("ds", "scenario_id", "counter").agg(pl.sum("value"), pl.first("example"))
    for ds, scenario, rule, count, example in rows.sort("ds", "counter", "scenario_id", nulls_last=True).iter_rows():
        results.append(
            CheckResult(
                run.run_id,
                run.stage,
                table,
                ds,
                rule,
                None,
                scenario,
                "info",
                "counted, not judged",
                count,
                example,
                True,
            )
        )
    return results


def noticed(run: Run, finding: Finding) -> CheckResult:
    """Result of what was found in a source, or in what a query returns, and stops nothing."""
    return CheckResult(
        run.run_id,
        run.stage,
        finding.of,
        run.ds,
        finding.check,
        finding.column,
        None,
        "warning",
        finding.expected,
        finding.found,
        finding.example,
        False,
    )


def _grouped(warnings: Sequence[CheckResult]) -> list[tuple[CheckResult, int]]:
    """The first warning of each rule, and how many there are: a first load may find one on every closed day."""
    groups: dict[tuple[str, str, str | None], list[CheckResult]] = {}
    for warning in warnings:
        groups.setdefault((warning.table, warning.check, warning.column), []).append(warning)
    return [(group[0], len(group)) for group in groups.values()]
