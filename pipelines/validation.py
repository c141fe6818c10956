"""Checks of a run: judge, keep every result in ``ops.validation``, stop on what is critical."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

import polars as pl

from pipelines.checks import counters_frame
from pipelines.cli import Run
from pipelines.expectations import Check, CheckResult, failures, format_failure, raise_on_critical, run_checks
from pipelines.sources import Finding
from pipelines.warehouse import Warehouse


def judge(run: Run, table: str, report: pl.DataFrame, checks: Sequence[Check]) -> list[CheckResult]:
    """Results of the checks of one table, and one ``info`` result per day and dirt rule."""
    dirt = pl.col("counter").str.starts_with("dirt:")
    counted = report.filter(~dirt & (pl.col("counter") != "file"))
    results = list(run_checks(table, counters_frame(counted, checks), checks, run, run.config.home / "data_docs"))
    per_day = report.filter(dirt).group_by("ds", "scenario_id", "counter").agg(pl.sum("value"), pl.first("example"))
    for ds, scenario, counter, value, example in per_day.sort("ds", "counter", "scenario_id").iter_rows():
        results.append(
            _result(run, table, ds, counter, None, scenario, "info", "counted, not judged", value, example, True)
        )
    return results


def new_column(run: Run, finding: Finding) -> CheckResult:
    """Result of a source column that nobody declared: it is ignored, and said."""
    expected = "only declared columns"
    return _result(
        run,
        finding.source,
        run.ds,
        finding.check,
        finding.column,
        None,
        "warning",
        expected,
        finding.count,
        finding.example,
        False,
    )


def record(run: Run, warehouse: Warehouse, results: Sequence[CheckResult]) -> None:
    """Append every result to ``ops.validation``, print the warnings, and stop the run on a critical failure.

    Raises:
        DataError: with one line per critical failure.
    """
    if results:
        rows = pl.DataFrame([dataclasses.asdict(result) for result in results], infer_schema_length=None)
        schema = warehouse.arrow_schema("ops.validation")
        warehouse.append("ops.validation", rows.select(schema.names).to_arrow(), run.lineage())
    for result in failures(results):
        if result.severity == "warning":
            print(f"warning: {format_failure(result)}", file=sys.stderr, flush=True)
    raise_on_critical(results)


def _result(
    run: Run,
    table: str,
    ds: object,
    check: str,
    column: str | None,
    scenario: str | None,
    severity: str,
    expected: str,
    found: float,
    example: str | None,
    passed: bool,
) -> CheckResult:
    raise NotImplementedError
