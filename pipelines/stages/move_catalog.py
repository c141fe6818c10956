"""The work of `move_catalog`: pipelines/move_catalog.py says what it reads and writes, and when it fails."""

from __future__ import annotations

from dataclasses import dataclass

from pyiceberg.table import StaticTable

from pipelines.config import Config
from pipelines.errors import ConfigError
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.tables import DECLARATIONS


@dataclass(frozen=True)
class Move:
    """One table, by its newest metadata; ``there``: the new catalog has it already, from a move that was stopped."""

    table: str
    metadata: str
    there: bool
    words: str


def plan(old: Warehouse, new: Warehouse) -> list[Move]:
    """What is to be moved.

    Raises:
        ConfigError: the new catalog has another table of a name, or cannot read what it would register.
    """
    moves = []
    for name in DECLARATIONS:
        metadata, there = old.metadata(name), new.metadata(name)
        if metadata is None:
            continue
        if there not in (None, metadata):
            raise ConfigError(
                f"{name}: the new catalog has a table of that name, with metadata of its own: {there}. Nothing was "
                f"moved. Give the new one a [warehouse] namespace_prefix that is free"
            )
        try:
            table = StaticTable.from_metadata(metadata, new.catalog.properties)
            snapshot = table.current_snapshot()
            files = len(list(table.scan().plan_files()))
        except Exception as error:
            raise ConfigError(
                f"{name}: {metadata} cannot be read with what the new [warehouse] says: {error}. Nothing was moved"
            ) from error
        words = f"snapshot {snapshot.snapshot_id}, {files} data files" if snapshot else "no snapshot"
        moves.append(Move(name, metadata, there is not None, words))
    return moves


def apply(old: Warehouse, new: Warehouse, moves: list[Move]) -> None:
    """Register, then forget.

    Raises:
        ConfigError: somebody wrote to a table meanwhile, or both are one catalog; that table is where it was.
    """
    for move in moves:
        if not move.there:
            new.register(move.table, move.metadata)
        if old.metadata(move.table) != move.metadata:
            new.drop(move.table)
            raise ConfigError(f"{move.table}: another process wrote to it; stop the DAGs, then move the rest")
        old.drop(move.table)
        if new.metadata(move.table) is None:
            old.register(move.table, move.metadata)
            raise ConfigError(f"{move.table}: both configurations name the same catalog and tables: nothing was moved")


def work(config: Config, target: Config, apply_it: bool) -> None:
    """Show what would move, or move it."""
    old, new = Warehouse.existing(config), Warehouse(target)
    moves = plan(old, new)
    for move in moves:
        print(f"  {move.table:30} {move.words}: {move.metadata}")
    if not moves:
        print("the catalog has no table of this data set: nothing to move")
    elif apply_it:
        apply(old, new, moves)
        print(f"moved {len(moves)} tables; go on with {target.path}")
    else:
        print(f"{len(moves)} tables would move; --apply does it")
