"""The tables of a data set into another catalog: their metadata is registered there, every file stays where it is.

Reads the tables of --config's catalog and registers them in that of --to, a pipeline.toml of the same data set
with another [warehouse]; then the old catalog forgets them, since two catalogs of one table would write over each
other. Writes no row and no file, and without --apply only shows what it would do. Stop the DAGs first; afterwards
go on with the new file.
Fails (2) when the new catalog has another table of that name, cannot read the files, or is the old one.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from pyiceberg.table import StaticTable

from pipelines.cli import config_of, exit_status, stage_parser
from pipelines.config import load_config
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


def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__doc__ or "")
    parser.add_argument("--to", required=True, metavar="FILE", help="pipeline.toml with the new [warehouse]")
    parser.add_argument("--apply", action="store_true", help="move them (default: only show it)")
    arguments = parser.parse_args(argv)
    config, target = config_of(arguments), load_config(arguments.to)
    if config.dataset.name != target.dataset.name:
        raise ConfigError(f"{target.path}: is of data set {target.dataset.name}, and not of {config.dataset.name}")
    old, new = Warehouse.existing(config), Warehouse(target)
    moves = plan(old, new)
    for move in moves:
        print(f"  {move.table:30} {move.words}: {move.metadata}")
    if not moves:
        print("the catalog has no table of this data set: nothing to move")
    elif arguments.apply:
        apply(old, new, moves)
        print(f"moved {len(moves)} tables; go on with {target.path}")
    else:
        print(f"{len(moves)} tables would move; --apply does it")


if __name__ == "__main__":
    sys.exit(exit_status(main))
