"""All model versions and what each was trained on, by the tags of its run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import date

from sqlalchemy import text

from pipelines.config import Config
from pipelines.life.champions import aliases, database, has_server, server
from pipelines.trace.graph import Version


def versions(config: Config) -> list[Version]:
    """Every version that is registered. As ``champions.aliases``, MLflow's database is asked where it can be.

    Raises:
        RegistryAwayError: the registry cannot be asked.
    """
    named = defaultdict[str, list[str]](list)
    for alias, version in aliases(config).items():
        named[version].append(alias)
    if has_server(config):
        with server(config) as registry:
            found = registry.client.search_model_versions(f"name = '{config.model_name}'")
            runs = {version.run_id: registry.client.get_run(version.run_id).data.tags for version in found}
        return _sorted([_version(str(v.version), v.run_id, v.creation_timestamp, runs[v.run_id], named) for v in found])
    with database(config, "model_versions") as connection:
        if connection is None:
            return []
        name = {"name": config.model_name}
        chosen = text("select version, run_id, creation_time from model_versions where name = :name")
        rows = connection.execute(chosen, name).all()
        tagged = text(
            "select run_uuid, key, value from tags where run_uuid in "
            "(select run_id from model_versions where name = :name)"
        ).columns()
        tags = defaultdict[str, dict[str, str]](dict)
        for run_id, key, value in connection.execute(tagged, name):
            tags[run_id][key] = value
    return _sorted([_version(str(n), run_id, at, tags[run_id], named) for n, run_id, at in rows])


def _version(number: str, run_id: str, at_ms: int, tags: Mapping[str, str], named: Mapping[str, list[str]]) -> Version:
    said = {key: value for key, value in tags.items() if key.startswith("m2m.")}
    ds = said.get("m2m.ds")
    return Version(
        number, run_id, date.fromisoformat(ds) if ds else None, at_ms, said, tuple(sorted(named.get(number, ())))
    )


def _sorted(found: list[Version]) -> list[Version]:
    return sorted(found, key=lambda version: int(version.number))
