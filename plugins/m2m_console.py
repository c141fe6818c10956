"""A link in Airflow from a DAG run to the console, opened on the run's day: ``$M2M_CONSOLE_URL``.

Airflow fills the ids of a run into such a link and not its date, so the link leads here first. Who may open Airflow's
own pages is not asked: what is told of a run is its date, to who knows its id.
"""

from __future__ import annotations

import os
from urllib.parse import urlencode

from airflow.models import DagRun
from airflow.plugins_manager import AirflowPlugin
from airflow.utils.session import create_session
from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from sqlalchemy import select

CONSOLE = os.environ.get("M2M_CONSOLE_URL") or "http://localhost:8501"
app = FastAPI(title="M2M console")


@app.get("/console/{dag_id}/{run_id:path}")
def console(dag_id: str, run_id: str) -> RedirectResponse:
    """To the console, on the day of a run; on its newest day where the run has none."""
    with create_session() as session:
        run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        day = (run.partition_key or (run.conf or {}).get("date")) if run else None
    page = {"m2m_training": "models", "advertiser_sequences": "checks"}.get(dag_id, "")
    query = urlencode({name: value for name, value in (("date", day), ("page", page)) if value})
    return RedirectResponse(f"{CONSOLE.rstrip('/')}/{'?' if query else ''}{query}")


class ConsolePlugin(AirflowPlugin):
    """The link, and what it leads to."""

    name = "m2m_console"
    fastapi_apps = [{"app": app, "url_prefix": "/m2m", "name": "M2M console"}]  # noqa: RUF012 - as Airflow declares it
    external_views = [  # noqa: RUF012
        {
            "name": "M2M console",
            "href": "/m2m/console/{DAG_ID}/{RUN_ID}",
            "destination": "dag_run",
            "url_route": "m2m_console",  # with one it is a tab of the run
        }
    ]
