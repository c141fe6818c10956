"""``[warehouse]``: what PyIceberg's catalogs and file systems take, and the local catalog where nothing is said."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pipelines.errors import ConfigError
from pipelines.paths import ends_early, sqlite_uri
from pipelines.toml_tables import Keys, Text

TYPES = ("sql", "rest", "hive", "glue", "dynamodb", "bigquery")  # in-memory would be empty for the next stage
_SCHEMES = {
    "sqlite": "sql",
    "postgresql": "sql",
    "mysql": "sql",
    "http": "rest",
    "https": "rest",
    "thrift": "hive",
}
_KNOWN = (
    "type uri warehouse py-catalog-impl py-io-impl downcast-ns-timestamp-to-us-on-write"
    " echo pool_pre_ping init_catalog_tables schema_version"  # sql
    " token credential scope audience resource prefix oauth2-server-uri snapshot-loading-mode scan-planning-mode"
    " view-endpoints-supported rest-page-size namespace-separator"  # rest
    " table-name ugi lock-check-min-wait-time lock-check-max-wait-time lock-check-retries"  # dynamodb, hive
).split()
PREFIX = "namespace_prefix"  # ours, and no catalog's
_PREFIXES = ("rest.", "auth.", "ssl.", "header.", "glue.", "dynamodb.", "hive.", "gcp.bigquery.")
_TABLES = ("auth", "ssl")  # what the REST catalog expects as tables in tables


class CatalogTable:
    """The rules of the table: keys of PyIceberg alone, a type that it has, and an address of that type."""

    def fault(self, table: dict[str, Text]) -> str:
        known = Keys((*_KNOWN, PREFIX), _PREFIXES)
        if known.fault(table):
            from pyiceberg import io  # the names of s3.*, gcs.*, adls.* and the like are declared there

            texts = (v for k, v in vars(io).items() if k.isupper() and isinstance(v, str))
            known = Keys((*known.known, *(text for text in texts if re.match("[a-z0-9]+[.]", text))), _PREFIXES)
        return known.fault(table) or _fault(
            {key: str(text) for key, text in table.items() if not text.refers},
            late=any(t.refers for t in table.values()),
        )


def properties(table: dict[str, Text], home: Path) -> dict[str, Any]:
    """What ``load_catalog`` gets: SQLite and local files below ``home`` unless the table says otherwise.

    Raises:
        ConfigError: a variable is not set, or makes an address that no catalog has.
    """
    given = {key: text.resolve() for key, text in table.items()}
    if fault := _fault(given):
        raise ConfigError(f"[warehouse]: {fault}")
    given.pop(PREFIX, None)
    own = {} if "py-catalog-impl" in given else {"type": _type_of(given)}
    if own.get("type") == "sql":
        own |= {"uri": f"{sqlite_uri(home / 'catalog.db')}?timeout=30", "warehouse": str(home / "warehouse")}
    own |= {"s3.retry-strategy-impl": "pipelines.warehouse.store.Patient"}
    if "s3.endpoint" in given:  # else PyIceberg asks the public service where the bucket is
        own |= {"s3.region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"}
    nested: dict[str, Any] = {}
    for key, value in (own | given).items():
        path = key.split(".") if key.split(".")[0] in _TABLES else [key]
        at = nested
        for part in path[:-1]:
            at = at.setdefault(part, {})
        at[path[-1]] = value
    return nested


def _type_of(given: dict[str, str]) -> str:
    return given.get("type") or _SCHEMES.get(_scheme(given.get("uri", "sqlite:")), "")


def _scheme(address: str) -> str:
    return re.split("[+:]", address)[0]


def _fault(given: dict[str, str], late: bool = False) -> str:
    """What cannot work, in words that show no address; ``late``: some of it is known only when it is used."""
    if "py-catalog-impl" in given:
        return 'type and py-catalog-impl exclude each other; leave "type" out' if "type" in given else ""
    kind, uri = _type_of(given), given.get("uri")
    if kind not in TYPES:
        known = ", ".join(TYPES)
        return (
            f'type = "{kind}": must be one of {known}' if kind else f"uri: of no known catalog; give a type ({known})"
        )
    fits = [scheme for scheme, of in _SCHEMES.items() if of == kind]
    if uri and fits and _scheme(uri) not in fits:
        return f"uri: a catalog of type {kind} is at {', '.join(f'{scheme}:' for scheme in fits)}"
    if kind in ("rest", "hive") and not uri and not late:
        return f'missing key "uri", which a catalog of type {kind} needs'
    if uri and relative_sqlite(uri):
        return "uri: write an absolute path, sqlite:////folder/catalog.db; a stage may start anywhere"
    if not re.fullmatch("([A-Za-z_][A-Za-z0-9_]*)?", given.get(PREFIX, "")):
        return f"{PREFIX}: expected letters, digits and underscores, or an empty text"
    if kind != "rest" and not re.match("[a-z0-9]+://|/", given.get("warehouse", "/")):
        return "warehouse: expected an address as s3://bucket/folder, or an absolute path"
    if kind != "rest" and ends_early(given.get("warehouse", "")):
        return "warehouse: an address has no ? and no #"
    return ""


def relative_sqlite(uri: str) -> bool:
    """Whether SQLite would make its file where the process was started."""
    return re.match(r"sqlite[+\w]*:///?(?!/|[A-Za-z]:|:memory:)", uri) is not None
