"""Which files a source's ``path`` names for the days asked for: all of them there, complete, and none twice."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase

from pipelines.config import Config
from pipelines.errors import ConfigError, DataError, plain
from pipelines.source_config import PLACEHOLDER, Source
from pipelines.sources.storage import Entry, Storage, scheme_of
from pipelines.warehouse.days import days_between

THREADS = 16  # that look at files at once: waiting for a store is most of it
UNFINISHED = (".tmp", ".part", ".partial", ".filepart", ".crdownload", ".inprogress", "._COPYING_")
_OTHER_SHAPES = ("%Y-%m-%d", "%Y%m%d", "%Y_%m_%d", "%Y.%m.%d", "%d-%m-%Y", "%d.%m.%Y", "%Y/%m/%d", "%Y-%m", "%Y%m")


@dataclass(frozen=True)
class Finding:
    """What is worth a word in a source or in what a query returns, and stops nothing. ``of``: which of them."""

    of: str
    check: str
    expected: str
    found: float
    example: str
    column: str | None = None


@dataclass(frozen=True)
class RawFile:
    """A file of a source. ``ds`` is the day whose path named it, if it was one; ``keys`` are the names of the
    ``name=value`` folders right above it, below the folder ``base``."""

    path: str
    shown: str
    ds: date | None
    size: int
    keys: tuple[str, ...]
    base: str
    modified: float


def period(first: date, last: date) -> str:
    return str(first) if first == last else f"{first}..{last}"


def files_of(
    config: Config, source: Source, storage: Storage, first: date, last: date
) -> tuple[list[RawFile], list[Finding]]:
    """The source's data files for the days ``first``..``last``, and what else was noticed.

    Raises:
        ConfigError: the path names what Spark passes over.
        DataError: a day has no file, only an empty folder, or lacks its marker.
    """
    options = {key.lower(): value for key, value in source.options_now().items()}
    path, marker = source.path.resolve(), source.marker.resolve()
    days = days_between(first, last) if "{ds" in path else [None]
    places: dict[str, list[date | None]] = {}
    for ds in days:
        places.setdefault(_filled(config, path, ds), []).append(ds)

    def found_at(place: str) -> list[Entry]:
        return list(_matches(storage, *_split(config, place)))

    with ThreadPoolExecutor(THREADS) as threads:
        matched = dict(zip(places, threads.map(found_at, places), strict=True))
        absent = [place for place, found in matched.items() if not found]
        if absent:
            raise DataError(_missing(config, source, storage, absent, places))
        if marker:
            _ask_for_marker(config, source, storage, marker, matched, places)
        roots = [(entry, places[place]) for place, entries in matched.items() for entry in entries]
        parts = list(threads.map(lambda root: _Folder.of(storage, root[0], options), roots))

    pattern, findings = options.get("pathglobfilter", "*"), list[Finding]()
    files: dict[tuple[str, ...], RawFile] = {}
    for (root, of_days), part in zip(roots, parts, strict=True):
        ds = of_days[0] if len(of_days) == 1 else None
        day = f"source {source.name} ds={ds or period(first, last)}: {shown(config, root.path)}"
        kept = [entry for entry in part.files if fnmatchcase(entry.name, pattern)]
        if not kept:
            raise DataError(f"{day}: {part.why_empty(pattern)}")
        if part.passed_over:
            findings.append(
                Finding(
                    f"source {source.name}",
                    "folder_left_out",
                    'only files and name=value folders; name it in path, or set recursiveFileLookup = "true"',
                    float(len(part.passed_over)),
                    shown(config, part.passed_over[0].path),
                )
            )
        if part.unfinished:
            findings.append(
                Finding(
                    f"source {source.name}",
                    "half_written",
                    "nothing of a writer that is not done; [[source]] marker asks for the file of one that is",
                    float(len(part.unfinished)),
                    shown(config, part.unfinished[0].path),
                )
            )
        for entry in kept:
            # Once, however many links lead to it: "latest" beside the days would count its day twice.
            file = _raw_file(config, entry, ds)
            files.setdefault((storage.real(entry.path), file.path.removeprefix(file.base) if file.keys else ""), file)
    return list(files.values()), findings


def shown(config: Config, path: str) -> str:
    """A path as short as it is clear: relative to pipeline.toml where it lies beside it."""
    if "${" in (reference := plain(path)):  # cut short, a value of the environment would not be known again
        return reference
    folder = f"{config.path.parent}/"
    return path.removeprefix(folder) if path.startswith(folder) else path


def _filled(config: Config, path: str, ds: date | None) -> str:
    """The path with its placeholders filled in."""
    home = str(config.home)
    return PLACEHOLDER.sub(lambda match: home if match[1] == "home" else _day(match[1], ds), path)


def _day(placeholder: str, ds: date | None) -> str:
    assert ds is not None
    return ds.strftime(placeholder.partition(":")[2]) if ":" in placeholder else str(ds)


def _split(config: Config, place: str) -> tuple[str, list[str]]:
    """The folder that is taken as it stands, and the names below it, which may hold ``*``, ``?`` and ``[ab]``."""
    home, place = f"{config.home}/", re.sub(r"^file:/+", "/", place)
    if scheme := scheme_of(place):
        head, _, below = place.removeprefix(f"{scheme}:").removeprefix("//").partition("/")
        root = f"{scheme}://{head}"
    elif place.startswith(home):
        root, below = str(config.home), place.removeprefix(home)
    else:
        root, below = ("/" if place.startswith("/") else str(config.path.parent)), place
    return root, [name for name in below.split("/") if name not in ("", ".")]


def _matches(storage: Storage, root: str, parts: Sequence[str]) -> Iterator[Entry]:
    """What the parts match below ``root``. A name that is there as it stands is meant so, whatever signs it holds."""
    found = [root]
    for place, part in enumerate(parts):
        if part == "..":
            found = [os.path.dirname(folder) for folder in found]
            continue
        if not any(sign in part for sign in "*?["):
            found = [_below(folder, part) for folder in found]
            continue
        within = []
        for folder in found:
            if as_it_is := storage.entry(_below(folder, part)):
                within.append(as_it_is.path)
                continue
            last = place == len(parts) - 1
            within += [
                entry.path
                for entry in storage.entries(folder)
                if fnmatchcase(entry.name, part) and (entry.folder or last) and not _hidden(entry.name)
            ]
        found = within
    for path in found:
        entry = storage.entry(path)
        if entry and not entry.folder and _hidden(entry.name):
            raise ConfigError(f"{path}: Spark passes over files whose name begins with _ or a dot; rename it")
        if entry:
            yield entry


def _below(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def _hidden(name: str) -> bool:
    """Names that Spark passes over."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


@dataclass(frozen=True)
class _Folder:
    """What lies below a matched path: data files, and what was passed over."""

    files: list[Entry]
    unfinished: list[Entry]
    passed_over: list[Entry]
    hidden: list[Entry]

    @classmethod
    def of(cls, storage: Storage, root: Entry, options: dict[str, str]) -> _Folder:
        if not root.folder:
            return cls([root], [], [], [])
        everywhere = options.get("recursivefilelookup", "false").lower() == "true"
        files, unfinished, passed_over, hidden = list[Entry](), list[Entry](), list[Entry](), list[Entry]()
        folders = [root.path]
        while folders:
            for entry in storage.entries(folders.pop()):
                if entry.name == "_temporary" or (not entry.folder and entry.name.endswith(UNFINISHED)):
                    unfinished.append(entry)
                if _hidden(entry.name) or entry.name.endswith("._COPYING_"):
                    hidden.append(entry)
                elif not entry.folder:
                    files.append(entry)
                elif everywhere or "=" in entry.name:
                    folders.append(entry.path)
                else:
                    passed_over.append(entry)
        return cls(sorted(files, key=lambda entry: entry.path), unfinished, passed_over, hidden)

    def why_empty(self, pattern: str) -> str:
        if self.files:
            return f"the folder holds no file that fits pathGlobFilter {pattern}; found {_some(self.files)}"
        if self.passed_over:
            return (
                f"the folder holds no files, only folders: {_some(self.passed_over)}; write path = "
                '".../*", or options = { recursiveFileLookup = "true" }'
            )
        if self.hidden:
            return f"the folder holds no data files, only {_some(self.hidden)}; if the day is only late, run again"
        return "the folder is empty; if the day is only late, run again when it has arrived"


def _some(entries: Sequence[Entry], at_most: int = 3) -> str:
    more = f" and {len(entries) - at_most} more" if len(entries) > at_most else ""
    return ", ".join(entry.name for entry in entries[:at_most]) + more


def _raw_file(config: Config, entry: Entry, ds: date | None) -> RawFile:
    folders = entry.path.split("/")[:-1]
    keys: list[str] = []
    while folders and "=" in folders[-1]:
        keys.insert(0, folders.pop().partition("=")[0])
    if len({key.lower() for key in keys}) < len(keys):
        raise DataError(f"{shown(config, entry.path)}: two folders above it name the same column; rename one")
    base = "/".join(folders)
    return RawFile(entry.path, shown(config, entry.path), ds, entry.size, tuple(keys), base, entry.modified)


def _ask_for_marker(
    config: Config,
    source: Source,
    storage: Storage,
    marker: str,
    matched: dict[str, list[Entry]],
    places: dict[str, list[date | None]],
) -> None:
    """A marker that is a name lies in the day's folder, or beside its file; any other is a path of its own.

    Raises:
        DataError: it is not there.
    """
    wanted: dict[str, date | None] = {}
    for place, entries in matched.items():
        for ds in places[place]:
            if "/" in marker or "{" in marker:
                wanted[_joined(*_split(config, _filled(config, marker, ds)))] = ds
            else:
                folders = [entry.path if entry.folder else os.path.dirname(entry.path) for entry in entries]
                wanted |= {_below(folder, marker): ds for folder in folders}
    lacking = [(ds, path) for path, ds in wanted.items() if not storage.entry(path)]
    if lacking:
        ds, path = lacking[0]
        raise DataError(
            f"source {source.name}{f' ds={ds}' if ds else ''}: {len(lacking)} of {len(wanted)} markers are missing; "
            f"expected 0. First: {shown(config, path)}. The writer is not done; run again when it is."
        )


def _joined(root: str, names: Sequence[str]) -> str:
    for name in names:
        root = os.path.dirname(root) if name == ".." else _below(root, name)
    return root


def _missing(
    config: Config, source: Source, storage: Storage, absent: Sequence[str], places: dict[str, list[date | None]]
) -> str:
    """In words: the first day that has no file, and what lies there instead."""
    ds = places[absent[0]][0]
    root, names = _split(config, absent[0])
    path = folder = _joined(root, names)
    while len(folder) > len(root) and not storage.entry(folder):
        folder = os.path.dirname(folder)
    there = [entry for entry in storage.entries(folder) if not _hidden(entry.name)]
    line = (
        f"source {source.name}{f' ds={ds}' if ds else ''}: {len(absent)} of {len(places)} files are missing; expected "
        f"0. First: {shown(config, path)}."
    )
    if not storage.entry(folder):
        line += f" There is no folder {folder} either."
    elif folder != str(config.path.parent):
        line += f" {shown(config, folder)} has {_some(_nearest(there, path)) if there else 'nothing in it'}."
    for shape in _OTHER_SHAPES:
        if ds and any(ds.strftime(shape) in entry.name for entry in there):
            return f"{line} Another shape of date is written {{ds:{shape}}}."
    return f"{line} If the day is only late, run again when it has arrived."


def _nearest(entries: Sequence[Entry], path: str) -> list[Entry]:
    """Entries with the names nearest to the last one of ``path`` first."""
    name = path.rpartition("/")[2]

    def common(entry: Entry) -> int:
        return next((i for i, (a, b) in enumerate(zip(entry.name, name, strict=False)) if a != b), len(name))

    return sorted(entries, key=lambda entry: (-common(entry), entry.name))
