"""What was made from what, by the commits' own words: back from a day, and forward from days that went wrong.

Facts only: no table is read, and what has expired is said to be unknown. The model versions are commits of a kind: of
each, what its training read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import cached_property

from pipelines import chain
from pipelines.chain import MODEL
from pipelines.config import Config
from pipelines.warehouse.pins import inputs_of

EXPIRED = 0  # in place of a snapshot's id


@dataclass(frozen=True)
class Commit:
    """A snapshot of a table: the days that it wrote, and what it says of itself."""

    table: str
    snapshot_id: int
    at_ms: int
    days: tuple[date, ...]
    said: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def stage(self) -> str:
        return self.said.get("m2m.stage", "")

    @property
    def run_id(self) -> str:
        return self.said.get("m2m.run-id", "")

    @property
    def at(self) -> str:
        return f"{datetime.fromtimestamp(self.at_ms / 1000, UTC):%Y-%m-%d %H:%M}"

    @property
    def inputs(self) -> dict[str, str]:
        """The snapshot of each table, and the version of each model, that it read."""
        return inputs_of(self.said)


@dataclass(frozen=True)
class Version:
    """A model version: what its training read, as of which day."""

    number: str
    run_id: str
    ds: date | None
    at_ms: int
    said: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    aliases: tuple[str, ...] = ()

    @property
    def inputs(self) -> dict[str, str]:
        return inputs_of(self.said)


@dataclass(frozen=True)
class Part:
    """Days of a table that one commit wrote; None where it has expired."""

    table: str
    days: tuple[date, ...]
    commit: Commit | None


@dataclass
class Node:
    """A part, and what it was made from. ``again``: it stands elsewhere in the tree already."""

    part: Part | None = None
    version: Version | None = None
    lost: str = ""
    made_from: list[Node] = field(default_factory=list)
    again: bool = False


@dataclass
class Reached:
    """What was made from days that went wrong: as it is now, what was made again since without them, and what nobody
    can tell any more."""

    now: dict[str, list[date]]
    mended: dict[str, list[date]]
    versions: list[Version]
    unknown: dict[str, list[date]]
    unknown_versions: list[Version]


class Traces:
    """All commits that are kept, by table, and all model versions; ``days``: what each table has now."""

    def __init__(
        self,
        config: Config,
        commits: Iterable[Commit],
        versions: Sequence[Version] = (),
        days: Mapping[str, Collection[date]] | None = None,
    ) -> None:
        self.config, self.versions, self.days = config, {v.number: v for v in versions}, dict(days or {})
        self.by_table: dict[str, list[Commit]] = defaultdict(list)
        for commit in commits:
            self.by_table[commit.table].append(commit)

    @cached_property
    def _positions(self) -> dict[tuple[str, str], int]:
        return {(c.table, str(c.snapshot_id)): n for of in self.by_table.values() for n, c in enumerate(of)}

    def knows(self, table: str, snapshot: str) -> bool:
        return (table, snapshot) in self._positions

    def writers(self, table: str, snapshot: str | None = None) -> dict[date, Commit]:
        """The newest commit of each day, as of a snapshot."""
        commits = self.by_table.get(table, [])
        last = len(commits) - 1 if snapshot is None else self._positions[table, snapshot]
        return {day: commit for commit in commits[: last + 1] for day in commit.days}

    def read(self, stage: str, table: str, inputs: Mapping[str, str]) -> dict[str, str]:
        """Of what a stage read, what went into a day of a table: not the table itself, whose other days are beside it,
        and not the parts that a stage keeps for itself, since what these are of is read, too."""
        reads = chain.STAGES[stage].reads if stage in chain.STAGES else {}
        return {name: value for name, value in inputs.items() if name in reads and name not in (table, *PARTS)}

    def days_read(self, stage: str, source: str, day: date, there: Collection[date]) -> list[date]:
        """The days of an input that a stage reads for a day; ``there``: those that it has. Of a ledger that is read as
        it is now, the newest; of a table that the stage writes itself, what goes into its others is of the same day."""
        declared = chain.STAGES[stage]
        if declared.reads[source] is chain.NOW:
            return [max(there)] if there else []
        wanted = [day] if source in declared.daily else declared.reads[source].of(self.config, day, there)
        return [ds for ds in wanted if ds in there]

    def back(self, table: str, day: date) -> Node:
        """What a day was made from, down to the staged days and the model's training."""
        return self._node(Part(table, (day,), self.writers(table).get(day)), set())

    def _node(self, part: Part, seen: set[object]) -> Node:
        node = Node(part)
        if part.commit is None:
            return node
        key = (part.table, part.days, part.commit.snapshot_id)
        if key in seen:
            return replace(node, again=True)
        seen.add(key)
        inputs = self.read(part.commit.stage, part.table, part.commit.inputs)
        for name, value in inputs.items():
            if name.startswith(MODEL):
                node.made_from.append(self._of_version(value, seen))
            else:
                node.made_from += self._of_table(part.commit.stage, name, value, part.days, seen)
        return node

    def _of_version(self, number: str, seen: set[object]) -> Node:
        version = self.versions.get(number)
        if version is None:
            return Node(lost=f"model version {number}: not in the registry")
        node = Node(version=version, again=number in seen)
        if number in seen or version.ds is None:
            return node
        seen.add(number)
        for name, value in self.read("train", MODEL, version.inputs).items():
            node.made_from += self._of_table("train", name, value, (version.ds,), seen)
        return node

    def _of_table(
        self,
        stage: str,
        source: str,
        snapshot: str,
        days: Sequence[date],
        seen: set[object],
    ) -> list[Node]:
        if not self.knows(source, snapshot):
            return [Node(lost=f"{source} snapshot {snapshot}: expired, so what it was made from is not known")]
        writers = self.writers(source, snapshot)
        there = {*writers, *(ds for ds in self.days.get(source, ()) if ds not in writers)}
        wanted = sorted({ds for day in days for ds in self.days_read(stage, source, day, there)})
        groups: dict[int | None, list[date]] = defaultdict(list)
        for ds in wanted:
            groups[writers[ds].snapshot_id if ds in writers else None].append(ds)
        parts = [Part(source, tuple(of), writers.get(of[0])) for of in groups.values()]
        return [self._node(part, seen) for part in parts]

    def forward(self, wrong: Collection[tuple[str, int, date]]) -> Reached:
        """Follow days, each as one snapshot wrote it (``EXPIRED``: one that is not known), to all that was made from
        them."""
        made, versions = set(wrong), set[str]()
        steps: list[tuple[int, Commit | Version]] = [(c.at_ms, c) for of in self.by_table.values() for c in of]
        steps += [(version.at_ms, version) for version in self.versions.values()]
        steps.sort(key=lambda step: step[0])
        marked: dict[tuple[str, str], frozenset[date]] = {}  # by snapshot: its days that are
        present: dict[tuple[str, str], frozenset[date]] = {}
        grown = -1
        while grown != (grown := len(made) + len(versions) + sum(map(len, marked.values()))):
            self._sweep([step for _, step in steps], made, versions, marked, present)  # again where clocks differ
        return self._reached(made, versions)

    def _sweep(
        self,
        steps: Sequence[Commit | Version],
        made: set[tuple[str, int, date]],
        versions: set[str],
        marked: dict[tuple[str, str], frozenset[date]],
        present: dict[tuple[str, str], frozenset[date]],
    ) -> None:
        """Go through all commits and trainings in the order of time, and add what reads from what is marked."""
        there = {table: {*self.days.get(table, ())} - {*self.writers(table)} for table in self.by_table}
        of: dict[str, set[date]] = defaultdict(set)
        for table, snapshot_id, day in made:
            if snapshot_id == EXPIRED:
                of[table].add(day)

        def touched(stage: str, table: str, day: date, inputs: Mapping[str, str]) -> bool:
            for name, value in self.read(stage, table, inputs).items():
                if name.startswith(MODEL):
                    if value in versions:
                        return True
                elif marked.get((name, value)):
                    read = self.days_read(stage, name, day, present[name, value])
                    if not marked[name, value].isdisjoint(read):
                        return True
            return False

        for step in steps:
            if isinstance(step, Version):
                if step.ds and touched("train", MODEL, step.ds, step.inputs):
                    versions.add(step.number)
                continue
            days, snapshot = of[step.table], (step.table, str(step.snapshot_id))
            there[step.table] |= {*step.days}
            for day in step.days:
                key = (step.table, step.snapshot_id, day)
                if key in made or touched(step.stage, step.table, day, step.inputs):
                    made.add(key)
                    days.add(day)
                else:
                    days.discard(day)
            marked[snapshot], present[snapshot] = frozenset(days), frozenset(there[step.table])

    def _reached(self, made: set[tuple[str, int, date]], versions: set[str]) -> Reached:
        now: dict[str, list[date]] = {}
        mended: dict[str, list[date]] = {}
        unknown: dict[str, list[date]] = {}
        for table in self.by_table:
            if table in PARTS or table == chain.LEDGER:
                continue
            writers = self.writers(table)
            ever = {day for name, _, day in made if name == table}
            still = sorted(
                day for day in ever if (table, writers[day].snapshot_id if day in writers else EXPIRED, day) in made
            )
            if still:
                now[table] = still
            if gone := sorted(ever - {*still}):
                mended[table] = gone
            since = min((day for _, _, day in made), default=date.max)
            older = {day for day in self.days.get(table, ()) if day not in writers}
            blind = {day for day, commit in writers.items() if day not in ever and self._blind(commit)}
            if lost := sorted(day for day in older | blind if day >= since and not table.startswith("staged.")):
                unknown[table] = lost
        reached = [v for v in self.versions.values() if v.number in versions]
        unsure = [v for v in self.versions.values() if v.number in self._blind_versions - versions]
        return Reached(now, mended, reached, unknown, unsure)

    def _blind(self, commit: Commit) -> bool:
        """Whether what a commit read cannot be followed any more."""
        read = self.read(commit.stage, commit.table, commit.inputs)
        return any(
            value in self._blind_versions if name.startswith(MODEL) else not self.knows(name, value)
            for name, value in read.items()
        )

    @cached_property
    def _blind_versions(self) -> set[str]:
        """Versions of which it cannot be followed what they learnt from."""
        found = set()
        for number, version in self.versions.items():
            for name, value in self.read("train", MODEL, version.inputs).items():
                commit = self.writers(name, value).get(version.ds) if version.ds and self.knows(name, value) else None
                inputs = commit.inputs if commit else {}
                if commit is None or any(not self.knows(*one) for one in inputs.items() if one[0] not in PARTS):
                    found.add(number)
        return found


# What a stage keeps for itself to make another table from, which is read with all that they are of.
PARTS = {name for stage in chain.CHAIN for name in stage.writes if name in stage.reads and name.startswith("features.")}
