"""What was judged, as pages for people: one a run, and an index by day. They need no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipelines.cli import warn
from pipelines.locks import locked
from pipelines.quality.judge import CheckResult, RunInfo
from pipelines.reports.checks import INDEX, index_of, page_of
from pipelines.reports.page import render
from pipelines.warehouse.store import Folder

_MOST_PAGES = 500  # the index reads the first lines of every page that it lists
_WAIT_S = 30.0


def publish(folder: Path, run: RunInfo, results: Sequence[CheckResult]) -> Path | None:
    """The page of what a run judged, in ``folder``; where it cannot be written, say so and go on."""
    if not results:
        return None
    try:
        busy = f"another process has been writing there for {_WAIT_S:.0f} s"
        with locked(folder / ".lock", busy, _WAIT_S):
            name = f"{run.run_id}.html"
            Folder(str(folder)).write(name, render(page_of(run, results)).encode())
            newest = sorted(folder.glob("*-*.html"), key=lambda file: file.stat().st_mtime)
            for old in newest[:-_MOST_PAGES]:
                old.unlink()
            Folder(str(folder)).write(INDEX, render(index_of(newest[-_MOST_PAGES:])).encode())
        return folder / name
    except Exception as error:  # noqa: BLE001 - whatever breaks in a page for people must not stop the data
        warn(f"the page of checks in {folder} was not written: {type(error).__name__}: {error}")
        return None
