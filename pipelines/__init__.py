"""Airflow's stages: from raw rows to forecasts in the warehouse."""

import os

os.environ.setdefault("PGCONNECT_TIMEOUT", "10")  # a PostgreSQL that takes a connection and says nothing is waited for
