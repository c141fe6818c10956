"""Checks before a commit: Great Expectations rules on the counters that a build makes in its own pass.

The counters are a small frame, one row per (ds, scenario_id), either of which may be null, with a column per
counter and, beside it, ``<counter>!example``. Judging them costs the same whatever the table's size: no rule
reads the table. A null counter was not counted there and is not judged. Great Expectations decides whether a
rule holds; what a failure does to the run depends on the check's severity and is decided here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import pandas as pd

from pipelines.config import Severity
from pipelines.errors import DataError, plain
from pipelines.quality.rules import Check

MAX_LINES = 20
KEY = ["ds", "scenario_id"]  # of the counters that are judged


@dataclass(frozen=True)
class CheckResult:
    """One row of ``ops.validation``. ``severity`` is ``info`` for what is counted and not judged."""

    run_id: str
    stage: str
    table: str
    ds: date | None
    check: str
    column: str | None
    scenario: str | None
    severity: Severity | Literal["info"]
    expected: str
    found: float
    example: str | None
    passed: bool


class RunInfo(Protocol):
    """What a result keeps of the run that made it."""

    @property
    def run_id(self) -> str: ...

    @property
    def stage(self) -> str: ...


def run_checks(table: str, counters: pd.DataFrame, checks: Sequence[Check], run: RunInfo) -> list[CheckResult]:
    """Judge the counters of one table.

    Returns:
        In the order of ``checks``, then of days (an unknown day last): one result per (ds, check) that held everywhere,
        with the value nearest to its bound; else one per failing (ds, scenario).

    Raises:
        ValueError: a check without its counter, a check given twice, or two rows for one (ds, scenario_id).
    """
    _refuse_misuse(table, counters, checks)
    if counters.empty or not checks:
        return []
    frame = counters.reset_index(drop=True)
    days = [_day(value) for value in frame["ds"]]
    scenarios = [None if pd.isna(value) else str(value) for value in frame["scenario_id"]]
    judged = frame[list(dict.fromkeys(check.counter for check in checks))].astype("float64")
    validation = _validate(table, judged, checks)
    broken = _broken_rows(table, validation, checks)

    # Days are grouped by position: a bad row may carry a year that nanosecond timestamps cannot hold.
    calendar = sorted(set(days), key=lambda day: (day is None, day or date.min))
    places = {day: place for place, day in enumerate(calendar)}
    by_day = judged.groupby([places[day] for day in days])
    highest, lowest = by_day.max(), by_day.min()

    results = []
    for check, rows in zip(checks, broken, strict=True):
        result = partial(
            CheckResult,
            run_id=run.run_id,
            stage=run.stage,
            table=table,
            check=check.name,
            column=check.column,
            severity=check.severity,
            expected=check.expected,
        )
        failing: dict[date | None, list[CheckResult]] = {}
        values = judged[check.counter].to_numpy()
        examples = frame.get(f"{check.counter}!example")
        for row in rows:
            ds, found = days[row], float(values[row])
            shown = None if examples is None or pd.isna(examples.iat[row]) else str(examples.iat[row])
            failure = result(ds=ds, scenario=scenarios[row], found=found, example=shown, passed=False)
            failing.setdefault(ds, []).append(failure)
        nearest = (lowest if check.max_value is None else highest)[check.counter].to_numpy()
        for ds, found in zip(calendar, nearest.tolist(), strict=True):
            if ds in failing:
                results += failing[ds]
            elif not math.isnan(found):
                results.append(result(ds=ds, scenario=None, found=found, example=None, passed=True))
    return results


def failures(results: Sequence[CheckResult]) -> list[CheckResult]:
    """What failed, critical first, otherwise in the given order."""
    return sorted((result for result in results if not result.passed), key=lambda result: result.severity != "critical")


def format_failure(result: CheckResult) -> str:
    """One line: table, day, scenario, check, column, what was found and expected, and an example."""
    where = f"{result.table} ds={result.ds or 'null'}"
    if result.scenario is not None:
        where += f" scenario={result.scenario}"
    check = f"{result.check} {result.column}" if result.column else result.check
    found = f"{result.found:.0f}" if result.found.is_integer() else f"{result.found:.4g}"
    line = f"{where}: {check}: found {found}; expected {result.expected}"
    return plain(f"{line}. First: {result.example}" if result.example else line)


def raise_on_critical(results: Sequence[CheckResult], page: Path | None = None) -> None:
    """Stop on critical failures; ``page`` has every check of the run.

    Raises:
        DataError: with one line per critical failure, at most ``MAX_LINES`` of them.
    """
    critical = [result for result in failures(results) if result.severity == "critical"]
    if critical:
        lines = [format_failure(result) for result in critical[:MAX_LINES]]
        if len(critical) > MAX_LINES:
            lines.append(f"... and {len(critical) - MAX_LINES} more in ops.validation")
        if page:
            lines.append(f"every check of this run, and what to do: {page}")
        raise DataError(lines)


def _validate(table: str, judged: pd.DataFrame, checks: Sequence[Check]) -> Any:
    """Great Expectations' own result: one outcome per check, with the positions of the failing rows.

    The largest (or smallest) value of a counter says that a check holds at a fifth of the price; for the checks that
    fail, every row is judged, and that is the outcome.
    """
    import great_expectations as gx
    from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults
    from great_expectations.expectations import (
        ExpectColumnMaxToBeBetween,
        ExpectColumnMinToBeBetween,
        ExpectColumnValuesToBeBetween,
    )

    context = gx.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(),
            analytics_enabled=False,
            progress_bars={"globally": False},
        ),
    )
    asset = context.data_sources.add_pandas("counters").add_dataframe_asset(table)
    batch = asset.add_batch_definition_whole_dataframe("run").get_batch({"dataframe": judged})

    def outcomes(expectations: Sequence[tuple[Any, Check]]) -> Any:
        made = [
            expectation(
                column=check.counter,
                min_value=check.min_value,
                max_value=check.max_value,
                severity=check.severity,
                meta={"check": check.name, "column": check.column, "severity": check.severity},
            )
            for expectation, check in expectations
        ]
        suite = gx.ExpectationSuite(name=table, expectations=made)
        # Positions alone: with unexpected_index_column_names the same rules cost three times as much when rows fail.
        return batch.validate(suite, result_format={"result_format": "COMPLETE"})

    def quickest(check: Check) -> Any:
        if None not in (check.min_value, check.max_value) or judged[check.counter].isna().all():
            return ExpectColumnValuesToBeBetween
        return ExpectColumnMaxToBeBetween if check.min_value is None else ExpectColumnMinToBeBetween

    validation = outcomes([(quickest(check), check) for check in checks])
    failed = [place for place, outcome in enumerate(validation.results) if not outcome.success]
    if failed:
        exact = outcomes([(ExpectColumnValuesToBeBetween, checks[place]) for place in failed])
        for place, outcome in zip(failed, exact.results, strict=True):
            validation.results[place] = outcome
    return validation


def _broken_rows(table: str, validation: Any, checks: Sequence[Check]) -> list[list[int]]:
    """Positions of the failing rows per check.

    Raises:
        RuntimeError: Great Expectations could not judge, which is a defect of ours and never a pass.
    """
    broken = []
    for check, outcome in zip(checks, validation.results, strict=True):
        meta = outcome.expectation_config.meta
        rows = outcome.result.get("unexpected_index_list") or []
        if (meta["check"], meta["column"]) != (check.name, check.column) or outcome.success is bool(rows):
            found = f"success={outcome.success} with {len(rows)} failing rows; {outcome.exception_info}"
            raise RuntimeError(f"{table}: expected Great Expectations' verdict on {check.title}, found {found}")
        broken.append([int(row) for row in rows])
    return broken


def _refuse_misuse(table: str, counters: pd.DataFrame, checks: Sequence[Check]) -> None:
    missing = [name for name in [*KEY, *(check.counter for check in checks)] if name not in counters.columns]
    if missing:
        found = ", ".join(map(str, counters.columns))
        raise ValueError(f"{table}: the counters have no column {', '.join(missing)}; found: {found}")
    titles = [check.title for check in checks]
    twice = sorted({title for title in titles if titles.count(title) > 1})
    if twice:
        raise ValueError(f"{table}: check given twice: {', '.join(twice)}; expected one per (name, column)")
    repeated = counters.duplicated(KEY)
    if repeated.any():
        ds, scenario = counters.loc[repeated, KEY].iloc[0]
        raise ValueError(f"{table}: two rows of counters for ds={ds} scenario={scenario}; expected one")


def _day(value: Any) -> date | None:
    if pd.isna(value):
        return None
    found = value.date() if isinstance(value, datetime) else value
    if not isinstance(found, date):
        raise ValueError(f"counters: expected a date in ds, found {value!r}")
    return found
