"""Airflow's stages: from raw rows to forecasts in the warehouse."""

import os

os.environ.setdefault("PGCONNECT_TIMEOUT", "10")  # a PostgreSQL that takes a connection and says nothing is waited for
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as on executors: pipelines/spark/session.py says why
