"""A day's report in MLflow: one run a day, beside those that train."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.config import Config
from pipelines.life.registry import Registry

KIND, DS = "m2m.kind", "m2m.ds"
FOLDER = "report"


def daily_run(registry: Registry, ds: date) -> str:
    """The run of a day, made on first use."""
    experiment = registry.experiment_id()
    found = registry.client.search_runs(
        [experiment], f"tags.`{KIND}` = 'daily' and tags.`{DS}` = '{ds}'", max_results=1
    )
    if found:
        return str(found[0].info.run_id)
    made = registry.client.create_run(experiment, run_name=f"daily {ds}", tags={KIND: "daily", DS: str(ds)})
    return str(made.info.run_id)


def address(config: Config, registry: Registry, run_id: str, name: str) -> str:
    """Where a browser finds a file of the run; nothing where no server is known. Passwords stay out."""
    uri, port = urlsplit(config.mlflow_uri), os.environ.get("MLFLOW_PORT")
    if uri.scheme in ("http", "https"):
        server = f"{uri.scheme}://{uri.netloc.rpartition('@')[2]}{uri.path.rstrip('/')}"
    elif port:  # of `make ui`
        server = f"http://localhost:{port}"
    else:
        return ""
    return f"{server}/#/experiments/{registry.experiment_id()}/runs/{run_id}/artifacts/{FOLDER}/{name}"


def log_page(
    registry: Registry, run_id: str, page: Path, metrics: Mapping[tuple[str, ...], float], now_ms: int
) -> None:
    """The page and figures of it, in place of those of an earlier run."""
    registry.client.log_artifact(run_id, str(page), FOLDER)
    registry.log_metrics(run_id, metrics, timestamp_ms=now_ms)
    registry.client.set_terminated(run_id, "FINISHED")
