"""The work of `lineage`: pipelines/lineage.py says what it reads."""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path
from typing import Any

from pipelines import chain
from pipelines.cli import warn
from pipelines.config import Config
from pipelines.errors import ConfigError, plain
from pipelines.life.champions import RegistryAwayError
from pipelines.reading.rows import bucket_of
from pipelines.reading.terminal import plural
from pipelines.sources.origins import Origin, list_path, read_list, recorded
from pipelines.trace.graph import EXPIRED, Commit, Node, Reached, Traces, Version
from pipelines.trace.versions import versions
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.days import in_words, ranges
from pipelines.warehouse.pins import Pin, properties_of, replaced
from pipelines.warehouse.store import Store

SHOWN = 4  # commits, files and ranges of days that are written out
_INDENT = "  "
_AT_ONCE = 16  # lists that are read: of a store, each answers after some tens of milliseconds


@dataclass(frozen=True)
class Match:
    """A source file, or a source that has none, that was asked for; and the commit that it is in."""

    commit: Commit
    origin: Origin | None
    words: str
    days: tuple[date, ...]


@dataclass(frozen=True)
class Home:
    """The tables of a deployment, and what is known of their making."""

    config: Config
    pins: dict[str, Pin]
    traces: Traces

    @classmethod
    def of(cls, warehouse: Warehouse) -> Home:
        config = warehouse.config
        names = [name for name in chain.TABLES if chain.has(config, name) and name != chain.LEDGER]
        pins = {name: pin for name in names if (pin := warehouse.pin(name)).table}
        try:
            models = versions(config)
        except RegistryAwayError as error:
            warn(f"the model registry cannot be asked, so no version is followed: {error}")
            models = []
        commits = [commit for pin in pins.values() for commit in commits_of(pin)]
        days = {name: pin.days_written() for name, pin in pins.items()}
        return cls(config, pins, Traces(config, commits, models, days))

    def days(self, table: str) -> set[date]:
        """Days that a table has, or wrote without a row."""
        return {*self.traces.days.get(table, ()), *self.traces.writers(table)}

    def origins(self, commit: Commit) -> list[Origin]:
        """The source files of a commit, as far as they are listed."""
        table = self.pins[commit.table].table
        assert table is not None
        path = list_path(commit.said, table.location())
        if not path:
            return []
        try:
            return read_list(Store.of(table.io.properties), path)
        except OSError as error:
            warn(f"{commit.table}: {path}: {error}: which files these days are of is not known")
            return []


def commits_of(pin: Pin) -> Iterator[Commit]:
    """The commits that are kept, oldest first; of one that replaced no day, the day of its run."""
    for snapshot in pin.snapshots():
        said, days = properties_of(snapshot), replaced(snapshot)
        if not days and (of_run := said.get("m2m.days")):
            days = [date.fromisoformat(of_run.split("..")[-1])]
        yield Commit(pin.name, int(snapshot.snapshot_id), int(snapshot.timestamp_ms), tuple(days), said)


def of_days(origins: Sequence[Origin], commit: Commit, days: Collection[date]) -> list[Origin]:
    """The files that days of a commit may be of: those whose path names the day, and those that name none of its."""
    return [origin for origin in origins if origin.ds in days or origin.ds not in commit.days]


# Back


def tree(home: Home, node: Node, depth: int = 0) -> Iterator[str]:
    """A node and what it was made from, in lines; children of one table together."""
    yield from (_INDENT * depth + line for line in _heading(home, node))
    if not node.again:
        yield from _children(home, node, depth + 1)


def _heading(home: Home, node: Node) -> Iterator[str]:
    if node.lost:
        yield node.lost
    elif version := node.version:
        yield f"model version {version.number}{_aliases(version)}{', as above' if node.again else ''}"
        if not node.again:
            yield f"  MLflow run {version.run_id}, trained as of {version.ds or 'an unknown day'}"
            yield f"  {_made_with(version.said)}"
    elif part := node.part:
        count = f" ({len(part.days)} days)" if len(part.days) > 1 else ""
        yield f"{part.table} {in_words(part.days, SHOWN)}{count}{', as above' if node.again else ''}"
        if part.commit is None:
            yield "  its commit has expired, so what it was made from is not known"
        elif not node.again:
            yield f"  run {part.commit.run_id}, {part.commit.at} UTC"
            yield f"  snapshot {part.commit.snapshot_id}, {_made_with(part.commit.said)}"
            yield from (f"  {line}" for line in _source_lines(home, part.commit, part.days))


def _children(home: Home, node: Node, depth: int) -> Iterator[str]:
    def table(child: Node) -> str:
        return child.part.table if child.part else ""

    for name, group in groupby(node.made_from, table):
        children = list(group)
        if not name or len(children) <= SHOWN:
            for child in children:
                yield from tree(home, child, depth)
            continue
        days = [day for child in children if child.part for day in child.part.days]
        yield f"{_INDENT * depth}{name} {in_words(days, SHOWN)} ({len(days)} days), by {len(children)} commits"
        newest = sorted(children, key=lambda child: max(child.part.days) if child.part else date.min)
        yield f"{_INDENT * (depth + 1)}the newest {SHOWN - 1} of them; --json has all:"
        for child in newest[1 - SHOWN :]:
            yield from tree(home, child, depth + 1)


def _made_with(said: dict[str, str] | Any) -> str:
    return f"code {said.get('m2m.code-version', 'unknown')}, config {said.get('m2m.config-hash', 'unknown')}"


def _aliases(version: Version) -> str:
    return f" ({', '.join(version.aliases)})" if version.aliases else ""


def _source_lines(home: Home, commit: Commit, days: Sequence[date]) -> Iterator[str]:
    """The sources of staged days."""
    if commit.stage != "stage_sources":
        return
    if (told := recorded(commit.said)) is None:
        yield "source files: not recorded, by a version before 0.3; staged again, they are"
        return
    files = of_days(home.origins(commit), commit, days)
    for name, of in told.items():
        if "files" not in of:
            yield f"source {name}: {', '.join(f'{kind} {what}' for kind, what in of.items())}"
            continue
        own = [origin for origin in files if origin.source == name]
        yield f"source {name}: {plural(len(own), 'file')}, {_size(sum(origin.size for origin in own))}"
        yield from (f"  {_file(origin)}" for origin in own[: SHOWN - 1])
        if len(own) > SHOWN:
            yield f"  ... {_file(own[-1])}"
        elif len(own) == SHOWN:
            yield f"  {_file(own[-1])}"


def _file(origin: Origin) -> str:
    return f"{origin.path}  {_size(origin.size)}, of {origin.modified[:16].replace('T', ' ')}"


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def as_json(home: Home, node: Node) -> dict[str, Any]:
    """A node and what it was made from, whole."""
    if node.lost:
        return {"not_known": node.lost}
    if version := node.version:
        whole: dict[str, Any] = _version(version)
    else:
        assert node.part is not None
        commit = node.part.commit
        whole = {"table": node.part.table, "days": _ranges(node.part.days)}
        whole |= _commit(commit) if commit else {"not_known": "its commit has expired"}
        if commit and commit.stage == "stage_sources" and not node.again:
            whole["sources"] = recorded(commit.said)
            files = of_days(home.origins(commit), commit, node.part.days)
            whole["files"] = [origin.line for origin in files]
    if node.again:
        return whole | {"again": True}
    return whole | {"made_from": [as_json(home, child) for child in node.made_from]}


def _commit(commit: Commit) -> dict[str, Any]:
    said = {key: commit.said.get(f"m2m.{key}") for key in ("code-version", "config-hash")}
    return {"snapshot": commit.snapshot_id, "run": commit.run_id, "at": commit.at, **said}


def _version(version: Version) -> dict[str, Any]:
    ds = version.ds and str(version.ds)
    return {"model_version": version.number, "mlflow_run": version.run_id, "ds": ds, "aliases": list(version.aliases)}


def _ranges(days: Collection[date]) -> list[list[str]]:
    return [[str(first), str(last)] for first, last in ranges(days)]


def back(home: Home, table: str, day: date, who: tuple[str | None, str | None], whole: bool) -> None:
    """Print what a day was made from."""
    node, (advertiser, scenario) = home.traces.back(table, day), who
    files = []
    if advertiser is not None:
        pin = home.pins[table]
        if not any(field.name == "bucket" for field in pin.schema):
            raise ConfigError(f"{table} is not split by advertiser; leave out --advertiser")
        bucket = bucket_of(advertiser, home.config.dataset.buckets)
        files = [file.path for file in pin.files(day) if file.bucket == bucket]
    if whole:
        told = as_json(home, node) | ({"advertiser": advertiser, "data_files": files} if advertiser else {})
        print(json.dumps(told, indent=1))
        return
    lines = list(tree(home, node))
    if advertiser is not None:
        choice = f"--advertiser {shlex.quote(advertiser)}"
        choice += f" --scenario {shlex.quote(scenario)}" if scenario else ""
        lines.append(f"rows of {advertiser}:")
        lines += [f"  {path}" for path in files or ["no data file of the day can hold any"]]
        lines += [f"  m2m show {table} --config {shlex.quote(str(home.config.path))} --date {day} {choice}"]
    print("\n".join(map(plain, lines)))


# Forward


def matches(home: Home, asked: str, day: date | None, run_id: str | None) -> list[Match]:
    """What was staged from the files, or from the source, that somebody names; of one run, or of all.

    Raises:
        ConfigError: nothing was.
    """
    beside = f"{home.config.path.parent}/"  # as paths are recorded
    wanted = {asked.removeprefix(beside), str(Path(asked).absolute()).removeprefix(beside)}
    patterns = [f"*{path.replace('[', '[[]')}*" for path in wanted]
    staged = [commit for name in home.pins for commit in home.traces.by_table[name] if commit.stage == "stage_sources"]
    told = {commit: recorded(commit.said) or {} for commit in staged}
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        lists = dict(zip(staged, threads.map(home.origins, staged), strict=True))
    found, others = list[Match](), dict[str, None]()
    for commit in staged:
        for name, of in told[commit].items():
            others[name] = None
            if "files" not in of and name == asked:
                words = f"{name}: {', '.join(f'{kind} {what}' for kind, what in of.items())}"
                found.append(Match(commit, None, words, commit.days))
        for origin in lists[commit]:
            others[origin.path] = None
            if asked == origin.source or any(fnmatchcase(origin.path, pattern) for pattern in patterns):
                days = (origin.ds,) if origin.ds and origin.ds in commit.days else commit.days
                found.append(Match(commit, origin, origin.path, days))
    runs = {match.commit.run_id for match in found}
    if found and run_id and run_id not in runs:
        raise ConfigError(f"no such file was read by run {run_id}; it was read by {', '.join(sorted(runs)[:SHOWN])}")
    found = [match for match in found if run_id in (None, match.commit.run_id) and day in (None, *match.days)]
    if found:
        return found
    unrecorded = sum(recorded(commit.said) is None for commit in staged)
    near = difflib.get_close_matches(asked, others, n=3, cutoff=0.3) or list(others)[:3]
    known = f"{len(others):,} paths and sources are known, e.g. {', '.join(near)}" if others else "none is recorded"
    older = f"; {unrecorded} of {len(staged)} commits are older than this record: stage their days again"
    raise ConfigError(
        f'no day that is known was staged from a source file with "{asked}" in its path'
        f"{f' for {day}' if day else ''}: {known}{older if unrecorded else ''}"
    )


def forward(home: Home, wrong: set[tuple[str, int, date]], head: list[str], whole: bool) -> None:
    """Print what was made from days of snapshots."""
    reached = home.traces.forward(wrong)
    if whole:
        named = {key: {t: _ranges(d) for t, d in getattr(reached, key).items()} for key in ("now", "mended", "unknown")}
        told: dict[str, Any] = {
            "asked": head,
            "reached": named,
            "model_versions": [_version(v) for v in reached.versions],
        }
        told["not_known_versions"] = [_version(v) for v in reached.unknown_versions]
        print(json.dumps(told | {"to_mend": _to_mend(home, wrong, reached)}, indent=1))
        return
    lines = [*head, "reached:" if reached.now or reached.versions else "nothing that is there now was made from it"]
    lines += [_days_line(table, days) for table, days in reached.now.items()]
    lines += _versions_line(reached.versions)
    if reached.mended:
        lines.append("made from it once, and made again since without it:")
        lines += [_days_line(table, days) for table, days in reached.mended.items()]
    if reached.unknown or reached.unknown_versions:
        lines.append("not known, since what these were made from has expired:")
        lines += [_days_line(table, days) for table, days in reached.unknown.items()]
        lines += _versions_line(reached.unknown_versions)
    if todo := _to_mend(home, wrong, reached):
        lines += ["to mend, when the source is right again:", *(f"  {line}" for line in todo)]
    print("\n".join(map(plain, lines)))


def _versions_line(versions: Sequence[Version]) -> list[str]:
    return [f"  {'model versions':28} {', '.join(v.number + _aliases(v) for v in versions)}"] if versions else []


def _days_line(table: str, days: Sequence[date]) -> str:
    count = f" ({len(days)} days)" if len(days) > 1 else ""
    return f"  {table:28} {in_words(days, SHOWN)}{count}"


def _to_mend(home: Home, wrong: Collection[tuple[str, int, date]], reached: Reached) -> list[str]:
    """Commands: staging by range; what is stale then, `status` tells; versions that learnt from it."""
    config = f"--config {shlex.quote(str(home.config.path))}"
    staged = {day for table, days in reached.now.items() if table.startswith("staged.") for day in days}
    lines = [f"m2m stage_sources {config} --from {first} --to {last}" for first, last in ranges(staged)]
    made = [day for table, days in reached.now.items() if not table.startswith(("staged.", "ops.")) for day in days]
    if made:
        last = max(made)
        count = (last - min(made)).days + 1
        lines.append(f"m2m status {config} --date {last} --days {count}    (it names each day to be made again)")
    if reached.versions:
        clean = [v for v in home.traces.versions.values() if v not in reached.versions]
        told = ", ".join(version.number for version in reached.versions)
        lines.append(f"m2m train {config} --date DAY    (then backtest, promote; learnt from it: version {told})")
        if clean and any(chain.CHAMPION in version.aliases for version in reached.versions):
            promote = f'm2m promote {config} --to {clean[-1].number} --reason "..."'
            lines.append(f"{promote}    (until then, a version that did not)")
    return lines


def work(
    config: Config,
    table: str | None,
    day: date | None,
    source: str | None,
    follow: bool,
    run_id: str | None,
    who: tuple[str | None, str | None],
    whole: bool,
) -> None:
    """Print what was asked for.

    Raises:
        ConfigError: there is no such day or file.
    """
    home = Home.of(Warehouse.existing(config, day))
    if source:
        found = matches(home, source, day, run_id)
        wrong = {(match.commit.table, match.commit.snapshot_id, ds) for match in found for ds in match.days}
        forward(home, wrong, _asked(found), whole)
        return
    assert table is not None
    assert day is not None
    if day not in (days := home.days(table)):
        there = in_words(days, SHOWN) if days else "none: it was never written"
        raise ConfigError(f"{table}: no day {day}; the days that it has are {there}")
    if not follow:
        back(home, table, day, who, whole)
        return
    wrong = {(table, commit.snapshot_id, day) for commit in home.traces.by_table[table] if day in commit.days}
    if day not in home.traces.writers(table):
        wrong.add((table, EXPIRED, day))
    forward(home, wrong, [f"{table} {day}, {_by(wrong)}"], whole)


def _asked(found: Sequence[Match]) -> list[str]:
    """What matched, in lines: each file once a state of it."""
    states: dict[tuple[str, object], list[Match]] = {}
    for match in found:
        states.setdefault((match.words, match.origin and (match.origin.size, match.origin.modified)), []).append(match)
    files = {words for words, _ in states}
    lines = [f"{plural(len(files), 'source file')}:"]
    for matched in list(states.values())[:SHOWN]:
        origin, last = matched[-1].origin, matched[-1].commit
        lines.append(f"  {_file(origin) if origin else matched[-1].words}")
        runs = {match.commit.run_id: None for match in matched}
        more = f" and {plural(len(runs) - 1, 'run')} before it" if len(runs) > 1 else ""
        lines.append(f"    staged by run {last.run_id}, {last.at} UTC{more}")
    lines += [f"  and {len(states) - SHOWN} more"] if len(states) > SHOWN else []
    other = "  as it was at several times; --run RUN: only as that run read it"
    return lines + ([other] if len(states) > len(files) else [])


def _by(wrong: Collection[tuple[str, int, date]]) -> str:
    known = sum(snapshot_id != EXPIRED for _, snapshot_id, _ in wrong)
    return f"written by {plural(known, 'commit')}" if known else "written by a commit that has expired"
