"""Configurations, each kept once by its hash: what a day was made with is read from there when the day is made again.

Kept are pipeline.toml and its SQL files as they stand: a ${NAME} stays a reference, and a secret may not stand there.
Where tables, models and Spark are is no part of what a forecast is made with: of those the present one says it.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.config import Config, hash_of, load_config
from pipelines.errors import ConfigError, DataError
from pipelines.toml_tables import Text, shown
from pipelines.warehouse.store import Folder

_PLACES = ("warehouse", "storage", "mlflow", "spark", "distributor")
_TABLE = object()  # stands for a table of a list, beside its settings
_SHOWN = 5  # differences that are told


def keep(config: Config, folder: Folder) -> None:
    """Write the configuration, unless it is there."""
    name, files = f"{config.hash}.json", config.files
    if not folder.store.exists(f"{folder.uri}/{name}"):
        texts = [(file, content.decode(errors="surrogateescape")) for file, content in files]
        folder.write(name, json.dumps(texts, indent=1).encode())


@contextmanager
def kept(folder: Folder, digest: str, now: Config) -> Iterator[Config]:
    """The configuration of that hash, with the places of the present one; its files are there as long as it is used.

    Raises:
        FileNotFoundError: it was never kept.
        DataError: what is kept is not of that hash.
        ConfigError: this code cannot read it.
    """
    texts = json.loads(folder.read(f"{digest}.json"))
    files = [(file, text.encode(errors="surrogateescape")) for file, text in texts]
    if hash_of(files) != digest:
        raise DataError(f"{folder.uri}/{digest}.json was changed: it is not the configuration {digest}")
    above = max(Path(file).parts.count("..") for file, _ in files)
    with tempfile.TemporaryDirectory(prefix="m2m-config-") as root:
        place = Path(root, *["below"] * above).resolve()
        for file, content in files:
            path = (place / file).resolve()
            if path.is_relative_to(Path(root).resolve()):  # an absolute path is looked for where it was
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        then = load_config(place / files[0][0])
        try:
            then = replace(then, home=now.home, **{name: getattr(now, name) for name in _PLACES})
        except ValueError as error:
            raise ConfigError(f"configuration {digest}: {error}") from None
        yield then


def differing(then: Config, now: Config) -> str:
    """Which settings and SQL files are otherwise now, in words; of two configurations of different hashes."""
    before, after = (_flat(config, "") for config in (then, now))
    names = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
    tables = tuple(f"{name} " for name in names if _TABLE in (before.get(name), after.get(name)))
    told = [name for name in names if not name.startswith(tables)]  # of a table that one has alone no setting
    words = [f"{name} ({_shown(name, before)}, now {_shown(name, after)})" for name in told]
    sql, sql_now = (dict(config.files[1:]) for config in (then, now))
    words += [name for name in dict.fromkeys([*sql, *sql_now]) if sql.get(name) != sql_now.get(name)]
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more or "comments or layout alone"


def _flat(value: Any, where: str) -> dict[str, Any]:
    """Every setting by the place where a person finds it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, Text):
        found: dict[str, Any] = {}
        for field in dataclasses.fields(value):
            inner = getattr(value, field.name)
            if isinstance(inner, tuple) and inner and dataclasses.is_dataclass(inner[0]):
                for one in inner:
                    place = f"[[{field.name}]] {getattr(one, 'name', '')}".strip()
                    found |= {place: _TABLE} | _flat(one, place)
            elif field.name not in ("path", "home") and inner not in ((), None):
                found |= _flat(inner, f"{where} {field.name}" if where else f"[{field.name}]")
        return found
    return {where: value}


def _shown(name: str, settings: dict[str, Any]) -> str:
    if name not in settings:
        return "not there"
    value = settings[name]
    if value is _TABLE:
        return "there"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        value = ", ".join(map(str, value))
    return shown(name, str(value) if isinstance(value, Text) else value)
