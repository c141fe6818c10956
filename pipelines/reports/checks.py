"""The page of what a run judged, and the index of these pages by day."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import groupby
from pathlib import Path
from typing import Protocol, get_args

from pipelines.reading.terminal import plural
from pipelines.reports.advice import ADVICE, OTHER
from pipelines.reports.page import Block, Code, Flag, Folded, Kind, Link, Note, Page, Section, Table

FOLDER, INDEX = "checks", "index.html"  # the folder is below the home
_MOST_ROWS = 200
_HEAD = re.compile(r'<meta name="description" content="(\w*)\|(.*?)">', re.DOTALL)
_RUN = re.compile(r"(\w+)-(\d{4}-\d\d-\d\d)-\w+")


class Run(Protocol):
    """Whose checks they are."""

    @property
    def run_id(self) -> str: ...

    @property
    def stage(self) -> str: ...


@dataclass(frozen=True)
class Kept:
    """A row of ops.validation as it is stored."""

    ds: date | None
    run_id: str
    stage: str
    table: str
    check: str
    column: str | None
    scenario: str | None
    severity: str
    expected: str
    found: float
    example: str | None
    passed: bool


class Judged(Protocol):
    """A row of ops.validation."""

    @property
    def table(self) -> str: ...

    @property
    def ds(self) -> date | None: ...

    @property
    def check(self) -> str: ...

    @property
    def column(self) -> str | None: ...

    @property
    def scenario(self) -> str | None: ...

    @property
    def severity(self) -> str: ...

    @property
    def expected(self) -> str: ...

    @property
    def found(self) -> float: ...

    @property
    def example(self) -> str | None: ...

    @property
    def passed(self) -> bool: ...


def page_of(run: Run, results: Sequence[Judged]) -> Page:
    """One run of one stage: what failed first, what held folded, what was counted."""
    failed = sorted((r for r in results if not r.passed), key=lambda result: result.severity != "critical")
    critical = [result for result in failed if result.severity == "critical"]
    judged = [result for result in results if result.severity != "info"]
    tables = sorted({result.table for result in results})
    kind: Kind = "bad" if critical else "warn" if failed else "good"
    blocks: list[Block] = [Table(FAILED, [failed_row(result) for result in failed[:_MOST_ROWS]], _more(run, failed))]
    if not failed:
        blocks = [Note("Nothing failed.", "good")]
    held = list(_held([result for result in judged if result.passed]))
    counted = list(_counted([result for result in results if result.severity == "info"]))
    sections = [Section("failed", "What failed", blocks)]
    if counted:
        head = ("Table", "Rule", "Rows", "Days", "Scenarios", "Example")
        told = "Rows that the data set's SQL dropped, merged or repaired: counted, not judged."
        sections.append(Section("dirt", "Dirt", [Note(told), Table(head, counted[:_MOST_ROWS], _rest(counted))]))
    if held:
        columns = ("Table", "Check", "Column", "Severity", "Expected", "Found", "Days")
        fold = Folded(f"{plural(len(held), 'check')} of {plural(len(tables), 'table')}", [Table(columns, held)])
        sections.append(Section("held", "What held", [fold]))
    days = sorted({result.ds for result in results if result.ds})
    facts: list[tuple[str, object]] = [("Run", run.run_id), ("Tables", ", ".join(tables))]
    facts += [("Written (UTC)", datetime.now(UTC)), ("Other runs", Link("by day", INDEX))]
    if days:
        facts.insert(1, ("Days", f"{days[0]}" if len(days) == 1 else f"{days[0]} to {days[-1]}, {len(days)} of them"))
    said = verdict(critical, failed, len(judged))
    foot = "Every figure is a row of ops.validation. What each check means: docs/operations.md#exit-3-data"
    return Page(f"Checks of {run.stage}", said, kind, sections, facts, foot)


FAILED = ("Severity", "Table", "Day", "Scenario", "Check", "Found", "Expected", "Example", "What to do")


def failed_row(result: Judged) -> tuple[object, ...]:
    """A failure as a row below ``FAILED``."""
    flag = Flag(result.severity, "bad" if result.severity == "critical" else "warn")
    where = (flag, result.table, result.ds or "no day", result.scenario, f"{result.check} {result.column or ''}")
    advice = ADVICE.get(result.check, OTHER)
    return (*where, result.found, result.expected, Code(result.example) if result.example else None, advice)


def verdict(critical: Sequence[Judged], failed: Sequence[Judged], judged: int) -> str:
    """What the checks of a run come to."""
    warnings = plural(len(failed) - len(critical), "warning")
    if critical:
        tables = ", ".join(dict.fromkeys(result.table for result in critical))
        return f"{plural(len(critical), 'critical failure')} in {tables}: nothing was published. {warnings}."
    return (
        f"{warnings} in {plural(judged, 'judgement')}; nothing critical."
        if failed
        else f"All {judged:,} judgements held."
    )


def _more(run: Run, failed: Sequence[Judged]) -> str:
    rest = len(failed) - _MOST_ROWS
    day = next((result.ds for result in failed[_MOST_ROWS:] if result.ds), "DAY")
    return (
        f"{rest:,} more: m2m show ops.validation --date {day} --limit 100000; the run is {run.run_id}"
        if rest > 0
        else ""
    )


def _rest(rows: Sequence[object]) -> str:
    return f"{len(rows) - _MOST_ROWS:,} more in ops.validation" if len(rows) > _MOST_ROWS else ""


def _held(passed: Sequence[Judged]) -> Iterator[tuple[object, ...]]:
    """A row a check that held, over all its days."""
    rows: dict[tuple[str | None, ...], list[float]] = {}
    for result in passed:
        of = result.table, result.check, result.column, result.severity, result.expected
        rows.setdefault(of, []).append(result.found)
    for key, found in rows.items():
        spread = found[0] if min(found) == max(found) else f"{min(found):.4g} to {max(found):.4g}"
        yield *key, spread, len(found)


def _counted(counts: Sequence[Judged]) -> Iterator[tuple[object, ...]]:
    """A row a rule of dirt, over all its days and scenarios."""
    rows: dict[tuple[str, str], list[Judged]] = {}
    for result in counts:
        rows.setdefault((result.table, result.check), []).append(result)
    for (table, rule), of_rule in rows.items():
        days, scenarios = {result.ds for result in of_rule}, {result.scenario for result in of_rule}
        example = next((result.example for result in of_rule if result.example), None)
        total = sum(result.found for result in of_rule)
        yield table, rule.removeprefix("dirt:"), total, len(days), len(scenarios), Code(example) if example else None


def index_of(files: Iterable[Path]) -> Page:
    """Every run that has a page, the newest day first; of each page the first lines are read."""
    runs = sorted((_listed(file) for file in files), key=lambda run: (run[0], run[1]), reverse=True)
    sections = []
    for day, of_day in groupby(runs, key=lambda run: run[0]):
        rows = [row for _, _, row in of_day]
        table = Table(("Stage", "Result", "What was found", "Written (UTC)"), rows)
        sections.append(Section(f"day-{day}", str(day) if day != date.min else "No day", [table]))
    failed = sum(row[1].kind == "bad" for _, _, row in runs)
    said = f"{plural(len(runs), 'run')}; {failed:,} failed. The newest day is first."
    return Page("Checks by day", said, runs[0][2][1].kind if runs else "", sections)


def _listed(file: Path) -> tuple[date, datetime, tuple[Link, Flag, str, datetime]]:
    with file.open(encoding="utf-8") as page:
        found = _HEAD.search(page.read(2000))
    kind, said = (found[1], html.unescape(found[2])) if found else ("", "")
    name, written = _RUN.fullmatch(file.stem), datetime.fromtimestamp(file.stat().st_mtime, UTC)
    look: Kind = next((known for known in get_args(Kind) if known == kind), "")
    words = {"bad": "failed", "warn": "warnings", "good": "held"}.get(look, "?")
    link = Link(name[1] if name else file.stem, file.name)
    day = date.fromisoformat(name[2]) if name else date.min
    return day, written, (link, Flag(words, look), said, written)
