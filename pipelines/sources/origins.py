"""Which source files a staged table was made from: said by its commit in a few words, listed whole beside its data.

The commit has what does not grow: for each source a count, the bytes and a digest. The list, a line a file, lies in the
folder that the run wrote its data files to, and is kept for as long as the snapshot is (`maintain`).
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from pipelines.errors import plain
from pipelines.events import EVENTS
from pipelines.warehouse.files import fingerprint
from pipelines.warehouse.store import Folder, Store

if TYPE_CHECKING:
    from pipelines.sources.views import View

SOURCES = "sources"  # of a commit: see ``kept``
LIST = "sources.json.gz"


@dataclass(frozen=True)
class Origin:
    """A source file as it was read. ``ds``: the day that its path names; None where it may hold any day of the run."""

    source: str
    path: str
    ds: date | None
    size: int
    modified: str

    @property
    def line(self) -> list[Any]:
        return [self.source, self.path, self.ds and str(self.ds), self.size, self.modified]


def named(query: str, views: Sequence[View]) -> list[View]:
    """The sources whose name stands in a query, its comments apart: the others are not read."""
    words = re.sub(r"--[^\n]*|/\*.*?\*/", " ", query, flags=re.DOTALL).lower()
    return [view for view in views if re.search(rf"(?<!\w){re.escape(view.source.name.lower())}(?!\w)", words)]


def kept(folder: Folder, views: Sequence[View]) -> dict[str, str]:
    """Write the list into a run's folder; returns what the commit says of it."""
    told, lines = dict[str, Any](), list[list[Any]]()
    for view in views:
        source = view.source
        if source.format in ("table", "jdbc"):
            told[source.name] = {source.format: plain(source.path) or _asked(source.options)}
            EVENTS.staged_from(source.name, told[source.name])
            continue
        files = [
            Origin(source.name, plain(file.shown), file.ds, file.size, _time(file.modified))
            for file in sorted(view.files, key=lambda file: file.shown)
        ]
        own = [file.line for file in files]
        told[source.name] = {
            "files": len(files),
            "bytes": sum(file.size for file in files),
            "digest": fingerprint(json.dumps(own)),
        }
        EVENTS.staged_from(source.name, told[source.name])
        lines += own
    if lines:
        folder.write(LIST, gzip.compress(json.dumps(lines).encode(), mtime=0))
    return {SOURCES: json.dumps(told)}


def recorded(said: Mapping[str, str]) -> dict[str, dict[str, Any]] | None:
    """What a commit says of each source; None if it is older than this record."""
    text = said.get(f"m2m.{SOURCES}")
    found: dict[str, dict[str, Any]] | None = json.loads(text) if text else None
    return found


def list_path(said: Mapping[str, str], location: str) -> str | None:
    """Where the list of a commit lies, in the table at ``location``; None if it has none. By its run, not by an address
    that it says: a table may be moved."""
    if not any("files" in of for of in (recorded(said) or {}).values()):
        return None
    return f"{location}/data/run={said['m2m.run-id']}/{LIST}"


def read_list(store: Store, path: str) -> list[Origin]:
    """The files of a list.

    Raises:
        OSError: it is gone, or the store does not answer.
    """
    lines = json.loads(gzip.decompress(store.read(path)))
    return [Origin(s, p, date.fromisoformat(ds) if ds else None, size, at) for s, p, ds, size, at in lines]


def _asked(options: Mapping[str, object]) -> str:
    """What a database is asked for: its table, or that it is a query."""
    given = {key.lower(): str(value) for key, value in options.items()}
    return plain(given.get("dbtable") or "a query")[:200]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
