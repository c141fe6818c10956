"""The one way to publish: judge everything that a run wrote, keep the verdicts, then commit each table once.

A stage writes files and counts, and hands over *drafts*. Nothing is committed before every draft is judged; every
commit records the snapshots and model versions that the run read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

import polars as pl

from pipelines import chain
from pipelines.cli import Run
from pipelines.config import Severity
from pipelines.quality import ledger
from pipelines.quality.judge import CheckResult
from pipelines.quality.rules import Check, day_counters, day_rules
from pipelines.spark import buckets
from pipelines.spark.buckets import REPORT
from pipelines.warehouse import configurations
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.files import DataFile
from pipelines.warehouse.pins import Reads

_USUAL_DAYS = 28  # how far back the usual volume of a day is looked for


@dataclass(frozen=True)
class Draft:
    """One table of a run, written and counted, not yet judged or committed: ``files`` are all that ``days`` will have.

    ``volume``: how bad a day with far fewer rows than usual is; None where volume says nothing. ``said``: what its
    commit says beside the lineage of the run.
    """

    table: str
    days: Sequence[date]
    files: Sequence[DataFile]
    report: pl.DataFrame
    checks: Sequence[Check] = ()
    volume: Severity | None = None
    said: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def counted(
        cls,
        table: str,
        days: Sequence[date],
        report: pl.DataFrame,
        checks: Sequence[Check] = (),
        volume: Severity | None = None,
    ) -> Draft:
        """A table whose report names its files."""
        return cls(table, days, buckets.files_in(report), report, checks, volume)

    @classmethod
    def uncounted(cls, table: str, days: Sequence[date], files: Sequence[DataFile]) -> Draft:
        """A table that is read from others: nothing of it is judged."""
        return cls(table, days, files, pl.DataFrame(schema=REPORT))

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)


def publish(
    run: Run, warehouse: Warehouse, reads: Reads, drafts: Sequence[Draft], noticed: Sequence[CheckResult] = ()
) -> None:
    """Judge all drafts, keep every verdict (``noticed`` among them) in the ledger, commit each table once.

    Tables are committed in the order in which the chain names them; one that the stage reads as well is, for those
    after it, what has just been committed.

    Raises:
        DataError: a check failed; nothing was committed.
        LookupError: the chain does not say that the stage writes one of the tables.
    """
    order = chain.STAGES[run.stage].tables
    if unknown := [draft.table for draft in drafts if draft.table not in order]:
        raise LookupError(
            f"{run.stage} writes {', '.join(unknown)} without saying so: declare it in pipelines/chain.py"
        )
    drafts = sorted(drafts, key=lambda draft: order.index(draft.table))
    judged = {draft.table: _with_volume(run, warehouse, draft) for draft in drafts if draft.checks or draft.volume}
    ledger.check(run, warehouse, judged, noticed)
    configurations.keep(run.config, warehouse.configurations)
    recorded, tables = reads.recorded, ", ".join(draft.table for draft in drafts)
    for draft in drafts:
        properties = run.lineage(**recorded) | {"tables": tables} | dict(draft.said)
        snapshot_id = warehouse.commit(draft.table, draft.days, draft.files, properties)
        if draft.table in recorded:
            recorded[draft.table] = snapshot_id


def _with_volume(run: Run, warehouse: Warehouse, draft: Draft) -> tuple[pl.DataFrame, Sequence[Check]]:
    """The draft's report and checks, and, if its volume is judged, those of its days as a whole."""
    if not draft.volume:
        return draft.report, draft.checks
    first, last = min(draft.days), max(draft.days)
    known = warehouse.days(draft.table, first - timedelta(days=_USUAL_DAYS), last)
    written = draft.report.filter(counter="rows").group_by("ds").agg(pl.sum("value"))
    rows = {day: count for day, count in known.items() if day not in draft.days}
    rows |= {ds: int(value) for ds, value in written.iter_rows() if ds is not None}
    counters = day_counters(rows, draft.days)
    return buckets.concat([draft.report, counters]), [*draft.checks, *day_rules(run.config, draft.volume)]
