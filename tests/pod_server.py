"""A stand-in for Kubernetes' API server on loopback: what Spark in client mode asks of one. Pods are processes here."""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.serving import make_server

Pod = dict[str, Any]


@contextmanager
def pod_server(driver: str, start: Callable[[Pod], subprocess.Popen[bytes]]) -> Iterator[tuple[str, list[Pod]]]:
    """Yields its address, and the pods that were ever asked for. ``driver`` is a pod that is there."""
    app = Flask("pods")
    pods: dict[str, Pod] = {driver: {"metadata": {"name": driver, "uid": "1", "labels": {}}}}
    made: list[Pod] = []
    processes: dict[str, subprocess.Popen[bytes]] = {}

    def seen(pod: Pod) -> Pod:
        process = processes.get(pod["metadata"]["name"])
        ended = process.poll() if process else None
        phase = "Running" if ended is None else "Failed" if ended else "Succeeded"
        state = {"running": {}} if ended is None else {"terminated": {"exitCode": ended}}
        containers = [
            {"name": container["name"], "state": state} for container in pod.get("spec", {}).get("containers", [])
        ]
        ready = [{"type": "Ready", "status": str(ended is None)}]
        status = {"phase": phase, "podIP": "127.0.0.1", "conditions": ready, "containerStatuses": containers}
        return {"kind": "Pod", "apiVersion": "v1", **pod, "status": status}

    def asked_for() -> list[Pod]:
        name = request.args.get("fieldSelector", "").removeprefix("metadata.name=")
        labels = [
            part.split("=") for part in request.args.get("labelSelector", "").split(",") if part and "!" not in part
        ]
        found = pods.values() if not name else filter(None, [pods.get(name)])
        return [pod for pod in found if all(pod["metadata"]["labels"].get(key) == value for key, value in labels)]

    def remove(pod: Pod) -> None:
        name = pod["metadata"]["name"]
        pods.pop(name, None)
        if name in processes:
            processes[name].terminate()

    @app.get("/api/v1/namespaces/<_>/pods")
    def find(_: str) -> Response:
        return jsonify({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(map(seen, asked_for()))})

    @app.get("/api/v1/namespaces/<_>/pods/<name>")
    def one(_: str, name: str) -> Response:
        return jsonify(seen(pods[name]))

    @app.post("/api/v1/namespaces/<namespace>/pods")
    def create(namespace: str) -> Response:
        pod = request.get_json(force=True)
        times = {"uid": str(len(made) + 2), "creationTimestamp": "2024-01-01T00:00:00Z"}
        pod["metadata"] |= times | {"namespace": namespace}
        made.append(pod)
        pods[pod["metadata"]["name"]] = pod
        processes[pod["metadata"]["name"]] = start(pod)
        return jsonify(seen(pod))

    @app.delete("/api/v1/namespaces/<_>/pods")
    @app.delete("/api/v1/namespaces/<_>/pods/<name>")
    def delete(_: str, name: str = "") -> Response:
        for pod in [pods[name]] if name in pods else asked_for() if not name else []:
            remove(pod)
        return jsonify({"kind": "Status", "status": "Success"})

    @app.route("/api/v1/namespaces/<_>/<path:_other>", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    def other(_: str, _other: str) -> Response:
        """Configuration maps, volumes: taken, and none is there."""
        if request.method in ("POST", "PUT"):
            return jsonify(request.get_json(force=True))
        return jsonify({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []})

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.port}", made
    finally:
        server.shutdown()
        for process in processes.values():
            process.kill()
            process.wait()
