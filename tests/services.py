"""What a deployment has beside itself, real ones on loopback: an object store, PostgreSQL, an Iceberg REST catalog."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import boto3
import pytest
from flask import Flask, Response, jsonify, request
from local_cluster import free_port
from pyiceberg.catalog.rest import CreateTableRequest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.table import CommitTableRequest, Table
from werkzeug.serving import make_server

BUCKET = "m2m"


@dataclass(frozen=True)
class ObjectStore:
    """An S3 server with one bucket; every key is taken, and the region is none that a client would guess."""

    endpoint: str
    server: subprocess.Popen[bytes]
    region: str = "eu-north-1"
    access_key: str = "of-the-deployment"
    secret_key: str = "and-no-other"

    @property
    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
        )

    @property
    def keys(self) -> list[str]:
        """Of all objects in the bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]

    @property
    def properties(self) -> dict[str, str]:
        """What PyIceberg's file IO takes."""
        return {
            "s3.endpoint": self.endpoint,
            "s3.region": self.region,
            "s3.access-key-id": self.access_key,
            "s3.secret-access-key": self.secret_key,
        }


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """In a process of its own: within one, all of moto's servers have the same objects."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(server, lambda: socket.create_connection(("127.0.0.1", port)).close())
            store = ObjectStore(f"http://127.0.0.1:{port}", server)
            store.client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": store.region})
            yield store
        finally:
            server.kill()


@contextmanager
def rest_catalog(folder: Path, warehouse: str, store: ObjectStore) -> Iterator[str]:
    """An Iceberg REST catalog over a SQL one; yields its address. Endpoint and region are in its configuration, the
    keys it hands out with each table alone."""
    tables = SqlCatalog("rest", uri=f"sqlite:///{folder}/rest.db", warehouse=warehouse, **store.properties)
    app = Flask("rest_catalog")
    known = ("s3.endpoint", "s3.region")
    handed_out = {key: value for key, value in store.properties.items() if key not in known}

    def answer(table: Table) -> Response:
        found = {"metadata-location": table.metadata_location, "metadata": json.loads(table.metadata.model_dump_json())}
        return jsonify(found | {"config": handed_out})

    @app.errorhandler(Exception)
    def refuse(error: Exception) -> tuple[Response, int]:
        codes = {NoSuchTableError: 404, NoSuchNamespaceError: 404, NamespaceAlreadyExistsError: 409}
        codes |= {TableAlreadyExistsError: 409, CommitFailedException: 409}
        code = codes.get(type(error), 500)
        return jsonify({"error": {"message": str(error), "type": type(error).__name__, "code": code}}), code

    @app.get("/v1/config")
    def config() -> Response:
        return jsonify({"defaults": {key: store.properties[key] for key in known}, "overrides": {}})

    @app.post("/v1/namespaces")
    def create_namespace() -> Response:
        tables.create_namespace(tuple(request.get_json()["namespace"]))
        return jsonify(request.get_json())

    @app.post("/v1/namespaces/<namespace>/tables")
    def create_table(namespace: str) -> Response:
        asked = CreateTableRequest.model_validate({"location": None, "write-order": None} | request.get_json())
        identifier = (namespace, asked.name)
        return answer(
            tables.create_table(
                identifier, asked.table_schema, partition_spec=asked.partition_spec, properties=asked.properties
            )
        )

    @app.post("/v1/namespaces/<namespace>/register")
    def register(namespace: str) -> Response:
        asked = request.get_json()
        return answer(tables.register_table((namespace, asked["name"]), asked["metadata-location"]))

    @app.get("/v1/namespaces/<namespace>/tables/<name>")  # HEAD as well
    def load_table(namespace: str, name: str) -> Response:
        return answer(tables.load_table((namespace, name)))

    @app.post("/v1/namespaces/<namespace>/tables/<name>")
    def commit(namespace: str, name: str) -> Response:
        asked = CommitTableRequest.model_validate_json(request.data)
        tables.commit_table(tables.load_table((namespace, name)), asked.requirements, asked.updates)
        return answer(tables.load_table((namespace, name)))

    @app.delete("/v1/namespaces/<namespace>/tables/<name>")
    def drop_table(namespace: str, name: str) -> tuple[str, int]:
        tables.drop_table((namespace, name))
        return "", 204

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()


@contextmanager
def postgres(*databases: str) -> Iterator[str]:
    """A PostgreSQL of our own in a temporary folder, with some databases beside ``postgres``; yields the beginning of
    their addresses. It does not run as root."""
    found = shutil.which("initdb") or next(iter(sorted(glob("/usr/lib/postgresql/*/bin/initdb"))), None)
    if not found:
        pytest.skip("PostgreSQL is not installed; this test needs it: apt-get install postgresql")
    programs = Path(found).resolve().parent
    with tempfile.TemporaryDirectory(prefix="m2m-pg-") as name:
        folder, user, port = Path(name), {}, free_port()
        if os.getuid() == 0:
            user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            shutil.chown(folder, "nobody", "nogroup")
        make = [programs / "initdb", "-D", folder / "data", "-U", "m2m", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(make, check=True, capture_output=True, cwd=folder, **user)
        start = [programs / "postgres", "-D", folder / "data", "-k", folder, "-h", "127.0.0.1", "-p", str(port), "-F"]
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(start, cwd=folder, stdout=log, stderr=log, **user)
        try:
            ready = [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
            wait_for(server, lambda: subprocess.run(ready, check=True, capture_output=True))
            for database in databases:
                make = [programs / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "m2m", database]
                subprocess.run(make, check=True, cwd=folder)
            yield f"postgresql+psycopg2://m2m@127.0.0.1:{port}"
        finally:
            server.send_signal(signal.SIGINT)  # at once, whoever is connected
            server.wait(30)


def wait_for(server: subprocess.Popen[bytes], answers: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while True:
        assert server.poll() is None, f"{server.args} ended with {server.returncode}"
        try:
            answers()
            return
        except (OSError, subprocess.CalledProcessError):
            assert time.monotonic() < end, f"{server.args} does not answer"
            time.sleep(0.1)
