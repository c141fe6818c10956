"""Who is champion: ops.promotion says it, and the registry's aliases follow.

MLflow sets an alias to a version whatever it named before: of two promoters at once each would believe that it won. So
a move is a line of ops.promotion that is committed only onto the snapshot by which it was decided. That is Iceberg's
own compare-and-swap, in every catalog and among all machines: one of them commits, the other is told who was first. A
lock is not enough, for whoever holds one and is stopped for a while goes on when another has taken it over. The aliases
are set after the line, and again until they are what the newest line says. A kill in between leaves a line without its
alias, which the next run sets; an alias that was moved in MLflow itself is told by ``status``, and gets its line by the
next run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
from pyiceberg.exceptions import CommitFailedException
from sqlalchemy import Connection, NullPool, create_engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from pipelines.chain import CHAMPION, PREVIOUS
from pipelines.cli import Run, code_version
from pipelines.config import Config
from pipelines.errors import DataError
from pipelines.paths import sqlite_path
from pipelines.warehouse.commits import COMMIT_ATTEMPTS, Warehouse
from pipelines.warehouse.pins import Pin, Reads

if TYPE_CHECKING:
    from pipelines.life.registry import Registry

TABLE = "ops.promotion"
GATE, OUTSIDE = "the gate", "outside the ledger"  # in ``decided_by``, where no person decided
BY_HAND = "by hand, "  # how the reason of a person's own choice begins
_MOVE = ("run_id", "decided_at", "challenger", "champion", "promoted", "reason", "decided_by")
_LOOKS = 10
_LOOKS_AGAIN, _UNDER_WAY_S = 3, 0.7


class LostRaceError(DataError):
    """Another promotion was first; nothing was moved."""

    title = "another promotion was first"


class RegistryAwayError(Exception):
    """The registry cannot be asked."""


@dataclass(frozen=True)
class Ledger:
    """The moves of the champion by one snapshot of ops.promotion, oldest first."""

    pin: Pin
    moves: pl.DataFrame

    @classmethod
    def read(cls, warehouse: Warehouse) -> Ledger:
        pin = warehouse.pin(TABLE)
        return cls(pin, pin.scan(columns=_MOVE).filter("promoted").sort("decided_at"))

    @property
    def last(self) -> dict[str, Any] | None:
        return self.moves.row(-1, named=True) if self.moves.height else None

    @property
    def champion(self) -> str | None:
        return self.last["challenger"] if self.last else None

    @property
    def replaced(self) -> set[str]:
        """Versions that were champion and are no more."""
        return set(self.moves["challenger"]) - {self.champion}

    @property
    def previous(self) -> str | None:
        """The last of them."""
        others = self.moves["challenger"].filter(self.moves["challenger"] != self.champion)
        return others[-1] if len(others) else None

    def kept_by_hand(self, made_at: datetime) -> str:
        """Why no challenger that was made at that time replaces the champion, however good: a person chose it later
        than that. Empty where none did."""
        last = self.last
        if last is None or not last["reason"].startswith(BY_HAND) or made_at > last["decided_at"]:
            return ""
        return (
            f"champion {self.champion} was chosen {last['reason']} (at {last['decided_at']:%Y-%m-%d %H:%M} UTC, and "
            f"this one was made at {made_at:%Y-%m-%d %H:%M}); one that is trained later may replace it"
        )


def write_line(
    run: Run, warehouse: Warehouse, reads: Reads, line: Mapping[str, Any], onto: Ledger | None = None
) -> None:
    """One line of the ledger; a move goes ``onto`` the ledger by which it was decided.

    Raises:
        LostRaceError: another move was committed since.
    """
    whole = {"ds": run.ds, "run_id": run.run_id, "dry_run": False, "decided_by": GATE}
    whole |= {"config_hash": run.config.hash, "code_version": code_version(), **line}
    schema = pl.DataFrame(warehouse.arrow_schema(TABLE).empty_table()).schema
    for attempt in range(COMMIT_ATTEMPTS):
        now = datetime.now(UTC).replace(tzinfo=None)
        if onto and onto.last:  # moves stand in the order of their commits, whatever the clocks of two machines say
            now = max(now, onto.last["decided_at"] + timedelta(microseconds=1))
        row = pl.DataFrame([{name: (whole | {"decided_at": now}).get(name) for name in schema}], schema=schema)
        try:
            warehouse.append(TABLE, row.to_arrow(), run.lineage(**reads.recorded), onto.pin if onto else None)
            return
        except CommitFailedException:
            if onto is None or attempt == COMMIT_ATTEMPTS - 1:
                raise
            onto = refuse_overtaken(warehouse, onto, str(whole["challenger"]))
            time.sleep(0.1 * 2**attempt)


def refuse_overtaken(warehouse: Warehouse, ledger: Ledger, version: str) -> Ledger:
    """The ledger of now, whose last move is the same.

    Raises:
        LostRaceError: it is another.
    """
    newer = Ledger.read(warehouse)
    if (last := newer.last) is None or last == ledger.last:
        return newer
    raise LostRaceError(
        f"{TABLE}: version {last['challenger']} was promoted first, at {last['decided_at']:%Y-%m-%d %H:%M:%S} UTC by "
        f"{last['decided_by']} (run {last['run_id']}), so version {version} was not. If it still shall be: backtest and"
        f" promote once more, or python -m pipelines.promote --to {version} --reason TEXT"
    )


def follow(warehouse: Warehouse, registry: Registry) -> Ledger:
    """Let the aliases name what the newest line says, and read them back: whoever is overtaken while he sets them sets
    what is right by then.

    Raises:
        RuntimeError: they do not name it afterwards.
    """
    for _ in range(_LOOKS):
        ledger = Ledger.read(warehouse)
        assert ledger.last is not None
        registry.promote(ledger.last["challenger"], ledger.previous, ledger.last["run_id"])
        found, newest = registry.version_of(CHAMPION), Ledger.read(warehouse)
        if found == ledger.champion == newest.champion and newest.last == ledger.last:
            return ledger
    raise RuntimeError(f"model {registry.name}: the alias champion should be version {newest.champion}, and is {found}")


def settled(run: Run, warehouse: Warehouse, registry: Registry, reads: Reads, dry_run: bool = False) -> Ledger:
    """The ledger, when it and the aliases say the same: a promotion that was killed before its alias is ended, a
    champion that was moved outside gets its line, and ``previous``, which only tells, is set again. A dry run moves no
    alias."""
    ledger, now = Ledger.read(warehouse), registry.version_of(CHAMPION)
    last = ledger.last  # who decided is not known of lines of before, which were written after the alias
    begun = last and last["decided_by"] and now == last["champion"] != ledger.champion
    if last and begun and not registry.followed(last["run_id"]):
        run.say(f"warning: the promotion of version {ledger.champion} (run {last['run_id']}) ended before its alias")
        return ledger if dry_run else follow(warehouse, registry)
    if now is None or now == ledger.champion:
        before = registry.version_of(PREVIOUS)
        if now is None or dry_run or before in (None, ledger.previous):
            return ledger
        run.say(f"warning: alias {PREVIOUS} named version {before}, {TABLE} tells {ledger.previous or 'of none'}")
        return follow(warehouse, registry)
    reason = f"found as champion instead of {ledger.champion}: the alias was moved outside the ledger"
    line = {"challenger": now, "champion": ledger.champion, "promoted": True, "reason": reason, "decided_by": OUTSIDE}
    write_line(run, warehouse, reads, line, ledger)
    run.say(f"warning: version {now} {reason}")
    return Ledger.read(warehouse) if dry_run else follow(warehouse, registry)


def aliases(config: Config) -> dict[str, str]:
    """Versions by the aliases that name them. Where MLflow's database can be asked it is: importing MLflow takes longer
    than all else that a reader of tables does.

    Raises:
        RegistryAwayError: it cannot be asked.
    """
    if has_server(config):
        with server(config) as registry:
            return registry.aliases()
    with database(config, "registered_model_aliases") as connection:
        if connection is None:
            return {}
        chosen = text("select alias, version from registered_model_aliases where name = :name")
        return {alias: str(version) for alias, version in connection.execute(chosen, {"name": config.model_name})}


def has_server(config: Config) -> bool:
    """Whether MLflow is asked over the network; else it is its database that is asked."""
    return config.mlflow_uri.startswith(("http", "databricks"))


@contextmanager
def database(config: Config, table: str) -> Iterator[Connection | None]:
    """MLflow's database, for who reads one of its tables; None where that is not there yet.

    Raises:
        RegistryAwayError: it cannot be asked.
    """
    uri = config.mlflow_uri
    if (file := sqlite_path(uri)) and not file.is_file():
        yield None
        return
    try:
        with create_engine(uri, poolclass=NullPool).connect() as connection:
            yield connection if inspect(connection).has_table(table) else None
    except (SQLAlchemyError, ImportError) as error:
        raise RegistryAwayError(str(error).partition("\n")[0]) from error


@contextmanager
def server(config: Config) -> Iterator[Registry]:
    """MLflow's server, for who only looks: it is not waited for.

    Raises:
        RegistryAwayError: it cannot be asked.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    from mlflow.exceptions import MlflowException

    from pipelines.life.registry import Registry

    try:
        yield Registry(config)
    except (MlflowException, OSError) as error:
        raise RegistryAwayError(str(error).partition("\n")[0]) from error


def looked_at(config: Config, warehouse: Warehouse) -> tuple[Ledger, dict[str, str]]:
    """The ledger and what the aliases name. Where they disagree they are read again: a promotion that is under way has
    its line, and in a moment its aliases.

    Raises:
        RegistryAwayError: the registry cannot be asked.
    """
    ledger, named = Ledger.read(warehouse), aliases(config)
    for _ in range(_LOOKS_AGAIN):
        if not outside(ledger, named):
            break
        time.sleep(_UNDER_WAY_S)
        ledger, named = Ledger.read(warehouse), aliases(config)
    return ledger, named


def outside(ledger: Ledger, named: Mapping[str, str]) -> list[str]:
    """What the aliases name that the ledger does not know of, in words; none where they agree. ``previous`` may be
    missing: a home of before has none until the next promotion."""
    last, now, before = ledger.last, named.get(CHAMPION), named.get(PREVIOUS)
    lines = []
    if now != ledger.champion:
        told = f"version {last['challenger']} since {last['decided_at']:%Y-%m-%d %H:%M} UTC" if last else "of none"
        by = f", by {last['decided_by'] or 'run ' + last['run_id']}" if last else ""
        lines.append(
            f"alias champion names {f'version {now}' if now else 'no version'}, {TABLE} tells {told}{by}: it was moved "
            "outside the ledger, or a promotion was stopped before it moved it"
        )
    if before and before != ledger.previous:
        lines.append(
            f"alias {PREVIOUS} names version {before}, {TABLE} tells {ledger.previous or 'of none'}; the next promote "
            "sets it"
        )
    return lines


def to_mend(config: Config, ledger: Ledger, named: Mapping[str, str]) -> list[str]:
    """The commands that mend what ``outside`` told, either as the ledger says or as the alias says."""
    versions = dict.fromkeys(filter(None, (ledger.champion, named.get(CHAMPION))))
    command = f"python -m pipelines.promote --config {config.path} --reason TEXT"
    return [f"{command} --to {version}" for version in versions]
