"""The work of `status`: pipelines/status.py says what it reads and writes, and when it fails."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property

from pyiceberg.table.snapshots import Snapshot

from pipelines import chain
from pipelines.config import Config
from pipelines.errors import plain
from pipelines.life.champions import RegistryAwayError, looked_at, outside, to_mend
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.days import days_between, in_words, ranges
from pipelines.warehouse.files import DataFile, lost
from pipelines.warehouse.pins import Pin, properties_of, replaced
from pipelines.warehouse.sequences import TABLE, open_sequences


@dataclass(frozen=True)
class TableStatus:
    """What is wrong with one table within the days looked at; of a stale or lost day, why."""

    table: str
    stage: chain.Stage
    lag: int
    present: list[date]
    missing: list[date]
    stale: dict[date, str]
    lost: dict[date, str]

    @property
    def to_run(self) -> list[date]:
        """Dates that the stage has to run for, in order."""
        late = timedelta(days=self.lag)
        return sorted(day + late for day in {*self.missing, *self.stale, *self.lost})


class Story:
    """One table now, and what its snapshots tell."""

    def __init__(self, pin: Pin) -> None:
        self.now = pin

    @cached_property
    def days(self) -> dict[date, int]:
        return self.now.days()

    @cached_property
    def writers(self) -> dict[date, Snapshot]:
        """The commit that wrote each day."""
        return self.now.writers()

    @cached_property
    def runs(self) -> set[str]:
        return {properties_of(snapshot).get("m2m.run-id", "") for snapshot in self.now.snapshots()}

    def changed(self, snapshot_id: int, days: Collection[date]) -> list[date]:
        """Which of some days have other rows now than a snapshot had. Only those that a commit replaced since are
        looked at; where one of these commits has expired, all are."""
        since, at = set[date](), self.now.snapshot_id
        while at is not None and at != snapshot_id and (snapshot := self.now.snapshot(at)):
            since |= {*replaced(snapshot)}
            at = snapshot.parent_snapshot_id
        touched = sorted(since & {*days} if at == snapshot_id else days)
        if not touched:
            return []
        then, now = (_identities(pin.files(touched[0], touched[-1])) for pin in (self.now.at(snapshot_id), self.now))
        return [day for day in touched if then.get(day) != now.get(day)]


def _identities(files: Collection[DataFile]) -> dict[date, set[tuple[date, int, str]]]:
    by_day: dict[date, set[tuple[date, int, str]]] = {}
    for file in files:
        by_day.setdefault(file.ds, set()).add(file.identity)
    return by_day


def status(warehouse: Warehouse, first: date, last: date) -> list[TableStatus]:
    """Every table of the daily stages within ``first``..``last``, and of those that commit several; what a mended input
    would make stale is stale too."""
    config = warehouse.config
    stages = [stage for stage in chain.CHAIN if stage.daily or len(_written(stage)) > 1]
    names = [table for stage in stages for table in _written(stage) if chain.has(config, table)]
    stories = {table: Story(warehouse.pin(table)) for table in names}
    found: dict[str, TableStatus] = {}
    for stage in stages:
        lag = stage.lag(config)
        due, begun = last - timedelta(days=lag), _begun(config, stage, stories)
        expected = days_between(max(begun, first if stage.reads else begun), due) if begun else []
        for table in filter(stories.__contains__, stage.tables):
            if table in stage.writes and table in stage.reads:
                continue  # parts of the stage's other table, whose days are what counts
            story = stories[table]
            present = [day for day in story.days if first <= day <= due]
            missing = [day for day in expected if table in stage.daily and day not in story.days]
            stale = {day: why for day, why in _unfinished(stage, table, stories).items() if first <= day <= due}
            for day in present if stage.daily else []:  # a judgement of models is of what was known then
                if day not in stale and (why := _outdated(config, stage, story, day, stories, found)):
                    stale[day] = why
            lost_days = _lost(warehouse, story, present)
            found[table] = TableStatus(table, stage, lag, present, missing, dict(sorted(stale.items())), lost_days)
    return list(found.values())


def _written(stage: chain.Stage) -> list[str]:
    return [table for table in stage.tables if not table.startswith(chain.MODEL)]


def _begun(config: Config, stage: chain.Stage, stories: Mapping[str, Story]) -> date | None:
    """The first day that the stage wrote; of one that writes a day later than it is, the first that was there for it,
    for the run of that one may have been left out. Where nothing was ever staged, all is missing from the first day on.
    """
    days = [day for table in stage.daily if table in stories for day in stories[table].days]
    if days and stage.lag(config):
        of_the_day = [table for table, read in stage.reads.items() if read is chain.THE_DAY]
        days += [day for table in of_the_day if table in stories for day in stories[table].days]
    return min(days, default=None if stage.reads else config.dataset.first_day)


def _outdated(
    config: Config,
    stage: chain.Stage,
    story: Story,
    day: date,
    stories: Mapping[str, Story],
    found: Mapping[str, TableStatus],
) -> str:
    """Why a day is not what its inputs are now; empty if it is, or if its lineage does not reach."""
    writer = story.writers.get(day)
    made_from = properties_of(writer) if writer else {}
    for source, days in stage.reads.items():
        if source in stage.tables or source not in found:
            continue
        read, upstream = days.of(config, day, stories[source].days), found[source]
        mending = [d for d in read if d in upstream.missing or d in upstream.stale]
        then = made_from.get(chain.INPUT + source, "")
        known = then.isdigit() and stories[source].now.knows(int(then))
        changed = mending or (stories[source].changed(int(then), read) if known else [])
        if changed:
            word = "is to be mended" if mending else "was written since"
            more = f" and {len(changed) - 1} more days" if len(changed) > 1 else ""
            return f"{source} {changed[0]}{more} {word}"
    return ""


def _unfinished(stage: chain.Stage, table: str, stories: Mapping[str, Story]) -> dict[date, str]:
    """Days of the last table of a run that wrote another one, and ended before this, or was overtaken here by a run of
    the same day."""
    old: dict[date, str] = {}
    for other in filter(stories.__contains__, stage.tables):
        same_days = other in stage.daily or not stage.daily
        for day, snapshot in stories[other].writers.items():
            said = properties_of(snapshot)
            run, tables, days = (said.get(f"m2m.{key}", "") for key in ("run-id", "tables", "days"))
            ds = day if same_days else date.fromisoformat(days.split("..")[-1])
            own = stories[table].writers.get(ds)
            if tables.split(", ")[-1] != table or (own and properties_of(own).get("m2m.run-id") == run):
                continue
            if run not in stories[table].runs and (own is None or own.timestamp_ms < snapshot.timestamp_ms):
                old.setdefault(ds, f"run {run} wrote {other} and ended before this table")
            elif same_days:
                old.setdefault(ds, f"run {run} wrote {other}, another one this table")
    return old


def _lost(warehouse: Warehouse, story: Story, present: list[date]) -> dict[date, str]:
    """Days of which a file is gone; for the newest sequences, that is also a week that they are put together from."""
    if not present:
        return {}
    of_day = [(file.ds, file) for file in story.now.files(present[0], present[-1])]
    if story.now.name == TABLE and story.days[present[-1]]:
        weeks = open_sequences(warehouse.config, warehouse, present[-1]).weeks
        of_day += [(present[-1], file) for files in weeks.values() for file in files]
    gone = lost(file for _, file in of_day)
    return {day: f"{file.path} is gone" for day, file in of_day if file.path in gone}


def commands(config: Config, tables: list[TableStatus]) -> list[str]:
    """What to run, in order: staging by range, the other stages day by day."""
    days: dict[str, set[date]] = {}
    for table in tables:
        days.setdefault(table.stage.name, set()).update(table.to_run)
    lines = []
    for stage, to_run in days.items():
        command = f"python -m pipelines.{stage} --config {config.path}"
        if chain.STAGES[stage].reads:
            lines += [f"{command} --date {day}" for day in sorted(to_run)]
        else:
            lines += [f"{command} --from {first} --to {last}" for first, last in ranges(to_run)]
    return lines


@dataclass(frozen=True)
class Aliases:
    """What is wrong with the registry's aliases, in words, and the commands of which one mends it."""

    lines: list[str]
    commands: list[str]

    @classmethod
    def of(cls, config: Config, warehouse: Warehouse) -> Aliases:
        try:
            ledger, named = looked_at(config, warehouse)
        except RegistryAwayError as error:
            return cls([f"aliases: MLflow cannot be asked, so nobody looked: {plain(error)[:200]}"], [])
        lines = outside(ledger, named)
        return cls(lines, to_mend(config, ledger, named) if lines else [])


def report(config: Config, tables: list[TableStatus], found: Aliases, first: date, last: date) -> list[str]:
    """The lines to print."""
    lines = [f"{config.dataset.name}, {first}..{last}"]
    for table in tables:
        ends = f"{table.present[0]}..{table.present[-1]}" if table.present else "nothing yet"
        kinds = {"missing": table.missing, "stale": table.stale, "lost": table.lost}
        counts = ", ".join(f"{len(days)} {kind}" for kind, days in kinds.items())
        lines.append(f"  {table.table:30} {len(table.present)} present, {counts}; {ends}")
        if table.missing:
            lines.append(f"    missing: {in_words(table.missing)}")
        for kind, why in (("stale", table.stale), ("lost", table.lost)):
            if why:
                day, reason = next(iter(why.items()))
                lines.append(f"    {kind}: {in_words(why)}. {day}: {reason}")
    lines += [f"  {line}" for line in found.lines]
    if found.commands:
        lines += ["to mend the alias, with your reason, one of:", *(f"  {line}" for line in found.commands)]
    todo = commands(config, tables)
    if todo:
        return [*lines, "to mend, in this order:", *(f"  {line}" for line in todo)]
    idle = {table.stage.name: None for table in tables if not any(t.present for t in tables if t.stage is table.stage)}
    return [*lines, "nothing is missing, stale or lost" + (f"; not begun: {', '.join(idle)}" if idle else "")]


def work(config: Config, first: date, last: date) -> bool:
    """Print what is found; returns whether nothing is to be mended."""
    warehouse = Warehouse.existing(config, last)
    tables, found = status(warehouse, first, last), Aliases.of(config, warehouse)
    print("\n".join(report(config, tables, found, first, last)))
    return not found.commands and not any(table.to_run for table in tables)
