"""A case of bad input: what is wrong, what is run, how it must be named."""

from __future__ import annotations

import json
import shlex
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deployment import Deployment

STARTS = {2: "configuration error: ", 3: "data error, nothing was published:"}


@dataclass(frozen=True)
class Case:
    """``command`` (a stage and its arguments) over a small deployment in which something is wrong.

    ``words`` must all stand in one line of what is said. The wrong thing is an ``edit`` (old, new) of pipeline.toml or
    ``lines`` put into its tables (table -> text, instead of the keys that stand there), a ``folder`` to run instead of
    the small deployment's, ``files`` written over it (path -> content), or the command.
    ``spark``: it is refused only when Spark runs.
    """

    words: tuple[str, ...]
    command: str = "status --date 2024-01-10"
    status: int = 2
    edit: tuple[str, str] | None = None
    lines: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    spark: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a case came to. ``published``: tables (the ledger of checks apart) that have a snapshot they had not."""

    status: int
    said: str
    line: str
    published: int


def attempt(case: Case, deployment: Deployment, home: Path) -> Outcome:
    """Make what is wrong, and run the command as a person would."""
    if case.folder:
        for file in (file for file in case.folder.rglob("*") if file.is_file()):
            target = deployment.folder / file.relative_to(case.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    if case.edit:
        deployment.edit(*case.edit)
    for table, text in case.lines.items():
        deployment.toml.write_text(_with(deployment.toml.read_text(), table, text))
    for name, content in case.files.items():
        target = deployment.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
    before = snapshots(home)
    stage, *arguments = shlex.split(case.command.format(folder=deployment.folder))
    status, said = deployment.run(stage, *arguments, spark=case.spark)
    line = next((line for line in said.splitlines() if all(word in line for word in case.words)), "")
    return Outcome(status, said, line, len(snapshots(home) - before))


def _with(toml: str, table: str, text: str) -> str:
    """The configuration with lines in a table, made where there is none; of a list of tables, the last."""
    keys = {line.split("=")[0].strip() for line in text.splitlines()}
    before, header, rest = toml.rpartition(f"[{table}]\n")
    if not header:
        return f"{toml}\n[{table}]\n{text}\n"
    own, bracket, others = rest.partition("\n[")
    kept = [line for line in own.splitlines() if line.split("=")[0].strip() not in keys]
    return "\n".join([f"{before}{header}{text}", *kept]) + bracket + others


def snapshots(home: Path) -> set[tuple[str, int]]:
    """(table, current snapshot) of every local catalog, read past our own code; without the ledger of checks."""
    found = set()
    for catalog in home.rglob("catalog.db"):
        with sqlite3.connect(catalog) as database:
            tables = database.execute("select table_name, metadata_location from iceberg_tables").fetchall()
        for name, location in tables:
            metadata = json.loads(Path(location.removeprefix("file://")).read_text(encoding="utf-8"))
            snapshot = metadata.get("current-snapshot-id") or -1
            if snapshot > 0 and name != "validation":
                found.add((f"{catalog} {name}", snapshot))
    return found
