"""Which days of which table are missing or stale, and the commands that mend them, in order.

Reads only the tables' Iceberg metadata: no Spark, no rows. Looks at the --days (default 28) up to --date (default:
yesterday). A table is expected to have every day since its first one. A day is *stale* when a day that it was made
from has been written since, with other rows or for the first time: its lineage names the input snapshots that it read.
Writes nothing.
Fails (4) when a day is missing or stale, (2) on wrong use.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property

from pipelines import chain
from pipelines.cli import config_of, count, exit_status, stage_parser
from pipelines.config import Config
from pipelines.errors import EXIT_HOLES
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.days import days_between, in_words, ranges


@dataclass(frozen=True)
class TableStatus:
    """What is wrong with one table within the days looked at."""

    table: str
    stage: chain.Stage
    lag: int
    present: list[date]
    missing: list[date]
    stale: dict[date, str]  # day -> why

    @property
    def to_run(self) -> list[date]:
        """Dates that the stage has to run for, in order."""
        late = timedelta(days=self.lag)
        return sorted(day + late for day in {*self.missing, *self.stale})


class Lineage:
    """The files of a table as each of its snapshots sees them; every snapshot is planned once."""

    def __init__(self, warehouse: Warehouse, table: str) -> None:
        self.warehouse, self.table = warehouse, table
        self.planned: dict[int | None, dict[date, set[str]]] = {}

    @cached_property
    def by_day(self) -> dict[date, dict[str, str]]:
        """Snapshot properties of the commit that wrote each day."""
        return self.warehouse.lineage(self.table)

    @cached_property
    def snapshots(self) -> set[int]:
        return {int(snapshot.snapshot_id) for snapshot in self.warehouse.table(self.table).snapshots()}

    def files(self, snapshot_id: int | None = None) -> dict[date, set[str]]:
        """Paths by day, now or then."""
        if snapshot_id not in self.planned:
            by_day: dict[date, set[str]] = {}
            for file in self.warehouse.files(self.table, snapshot_id=snapshot_id):
                by_day.setdefault(file.ds, set()).add(file.path)
            self.planned[snapshot_id] = by_day
        return self.planned[snapshot_id]


def status(warehouse: Warehouse, first: date, last: date) -> list[TableStatus]:
    """Every table of the chain within ``first``..``last``; what a mended input would make stale is stale as well."""
    config = warehouse.config
    daily = [(stage, table) for stage in chain.CHAIN for table in stage.daily if chain.has(config, table)]
    lineages = {table: Lineage(warehouse, table) for _, table in daily}
    found: dict[str, TableStatus] = {}
    for stage, name in daily:
        written, lag = warehouse.days(name), stage.lag(config)
        due = last - timedelta(days=lag)
        begun = max(first, min(written, default=due + timedelta(days=1)))
        present = [day for day in written if begun <= day <= due]
        missing = [day for day in days_between(begun, due) if day not in written]
        stale = {}
        for day in present:
            for source in (source for source in stage.reads if source in found):
                read = stage.reads[source].of(config, day, ())
                upstream = found[source]
                mending = [d for d in read if d in upstream.missing or d in upstream.stale]
                changed = mending or _changed(lineages[name], lineages[source], day, read)
                if changed:
                    word = "is to be mended" if mending else "was written since"
                    more = f" and {len(changed) - 1} more days" if len(changed) > 1 else ""
                    stale[day] = f"{source} {changed[0]}{more} {word}"
                    break
        found[name] = TableStatus(name, stage, lag, present, missing, stale)
    return list(found.values())


def _changed(own: Lineage, source: Lineage, day: date, read: list[date]) -> list[date]:
    """Days of the source that are not what ``day`` of the table was made from; none where lineage does not reach."""
    stored = own.by_day.get(day, {}).get(f"m2m.input.{source.table}", "")
    if not (stored.isdigit() and int(stored) in source.snapshots):
        return []
    then, now = source.files(int(stored)), source.files()
    return [d for d in read if then.get(d) != now.get(d)]


def commands(config: Config, tables: list[TableStatus]) -> list[str]:
    """What to run, in order: staging by range, the other stages day by day."""
    days: dict[str, set[date]] = {}
    for table in tables:
        days.setdefault(table.stage.name, set()).update(table.to_run)
    module, lines = "python -m pipelines", []
    for stage, to_run in days.items():
        if stage == "stage_sources":
            folded = ranges(sorted(to_run))
            lines += [f"{module}.{stage} --config {config.path} --from {first} --to {last}" for first, last in folded]
        else:
            lines += [f"{module}.{stage} --config {config.path} --date {day}" for day in sorted(to_run)]
    return lines


def report(config: Config, tables: list[TableStatus], first: date, last: date) -> list[str]:
    """The lines to print."""
    lines = [f"{config.dataset.name}, {first}..{last}"]
    for table in tables:
        ends = f"{table.present[0]}..{table.present[-1]}" if table.present else "nothing yet"
        counts = f"{len(table.present)} present, {len(table.missing)} missing, {len(table.stale)} stale"
        lines.append(f"  {table.table:30} {counts}; {ends}")
        if table.missing:
            lines.append(f"    missing: {in_words(table.missing)}")
        if table.stale:
            day, why = next(iter(table.stale.items()))
            lines.append(f"    stale: {in_words(table.stale)}. {day}: {why}")
    todo = commands(config, tables)
    if todo:
        lines += ["to mend, in this order:", *(f"  {line}" for line in todo)]
    else:
        lines.append("nothing is missing or stale")
    return lines


def main(argv: list[str] | None = None) -> int:
    parser = stage_parser(__doc__ or "")
    parser.add_argument(
        "--days", type=count(3660), default=28, help="how many days up to --date to look at (default 28)"
    )
    arguments = parser.parse_args(argv)
    config = config_of(arguments)
    last = arguments.date or datetime.now(UTC).date() - timedelta(days=1)
    first = max(config.dataset.first_day, last - timedelta(days=arguments.days - 1))
    tables = status(Warehouse(config), first, last)
    print("\n".join(report(config, tables, first, last)))
    return EXIT_HOLES if any(table.to_run for table in tables) else 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
