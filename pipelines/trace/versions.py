"""All model versions and what each was trained on, by the tags of its run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import date

from sqlalchemy import NullPool, create_engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from pipelines.config import Config
from pipelines.life.champions import RegistryAwayError, aliases, model_name
from pipelines.paths import sqlite_path
from pipelines.trace.graph import Version


def versions(config: Config) -> list[Version]:
    """Every version that is registered. As ``champions.aliases``, MLflow's database is asked where it can be.

    Raises:
        RegistryAwayError: the registry cannot be asked.
    """
    uri, named = config.mlflow_uri, defaultdict[str, list[str]](list)
    for alias, version in aliases(config).items():
        named[version].append(alias)
    if uri.startswith(("http", "databricks")):
        return _by_server(config, named)
    if (file := sqlite_path(uri)) and not file.is_file():
        return []
    try:
        with create_engine(uri, poolclass=NullPool).connect() as connection:
            if not inspect(connection).has_table("model_versions"):
                return []
            name = {"name": model_name(config)}
            chosen = text("select version, run_id, creation_time from model_versions where name = :name")
            found = connection.execute(chosen, name).all()
            tagged = text(
                "select run_uuid, key, value from tags where run_uuid in "
                "(select run_id from model_versions where name = :name)"
            ).columns()
            tags = defaultdict[str, dict[str, str]](dict)
            for run_id, key, value in connection.execute(tagged, name):
                tags[run_id][key] = value
    except (SQLAlchemyError, ImportError) as error:
        raise RegistryAwayError(str(error).partition("\n")[0]) from error
    return _sorted([_version(str(n), run_id, at, tags[run_id], named) for n, run_id, at in found])


def _by_server(config: Config, named: Mapping[str, list[str]]) -> list[Version]:
    from mlflow.exceptions import MlflowException

    from pipelines.life.registry import Registry

    try:
        client = Registry(config).client
        found = client.search_model_versions(f"name = '{model_name(config)}'")
        runs = {version.run_id: client.get_run(version.run_id).data.tags for version in found}
    except (MlflowException, OSError) as error:
        raise RegistryAwayError(str(error).partition("\n")[0]) from error
    return _sorted([_version(str(v.version), v.run_id, v.creation_timestamp, runs[v.run_id], named) for v in found])


def _version(number: str, run_id: str, at_ms: int, tags: Mapping[str, str], named: Mapping[str, list[str]]) -> Version:
    said = {key: value for key, value in tags.items() if key.startswith("m2m.")}
    ds = said.get("m2m.ds")
    return Version(
        number, run_id, date.fromisoformat(ds) if ds else None, at_ms, said, tuple(sorted(named.get(number, ())))
    )


def _sorted(found: list[Version]) -> list[Version]:
    return sorted(found, key=lambda version: int(version.number))
