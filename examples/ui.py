"""``make ui``: Airflow, the MLflow server and the console on localhost, until Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

import psutil
from local_deployment import environment, prepare_airflow

# Every process started here inherits it: one way to find them again, whatever parent they end up with.
MARK = "M2M_UI"
PORTS = ("AIRFLOW_PORT", "MLFLOW_PORT", "CONSOLE_PORT")
START_LIMIT_S = 180
STOP_LIMIT_S = 8
# What `airflow standalone` starts, but for its log servers: these listen on every address of the machine, on fixed
# ports, and the pages can read the logs from disk.
AIRFLOW = {
    "airflow-api-server": ["airflow", "api-server"],
    "airflow-scheduler": ["airflow", "scheduler", "--skip-serve-logs"],
    "airflow-dag-processor": ["airflow", "dag-processor"],
}


def main() -> int:
    os.umask(0o077)  # logs, databases and the password are this user's alone
    env = environment() | {MARK: str(os.getpid())}
    home, ports = Path(env["M2M_HOME"]), {name: int(env[name]) for name in PORTS}
    airflow_port, mlflow_port, console_port = ports.values()
    for name, port in ports.items():
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                print(f"Port {port} is in use; choose another one: make ui {name}={port + 1}", file=sys.stderr)
                return 2
    for ending in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a background job of a shell starts with it ignored
        signal.signal(ending, signal.default_int_handler)
    airflow_url, mlflow_url = f"http://localhost:{airflow_port}", f"http://localhost:{mlflow_port}"
    console_url = f"http://localhost:{console_port}"
    logs = home / "logs"
    print("Starting Airflow, MLflow and the console; this takes about half a minute ...", flush=True)
    servers: dict[str, subprocess.Popen[bytes]] = {}
    try:
        prepare_airflow(env, logs / "airflow-setup.log")
        make_password(password_file(env))
        mlflow = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(mlflow_port), "--workers", "1"]
        mlflow += ["--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}"]
        mlflow += ["--default-artifact-root", (home / "mlartifacts").as_uri()]
        console = [sys.executable, "-m", "pipelines", "console", "--port", str(console_port)]
        for name, command in (*AIRFLOW.items(), ("mlflow", mlflow), ("console", console)):
            with (logs / f"{name}.log").open("wb") as log:
                servers[name] = start(command, env, log)
        health = {"airflow-api-server": f"{airflow_url}/api/v2/monitor/health", "mlflow": f"{mlflow_url}/health"}
        health["console"] = f"{console_url}/_stcore/health"
        wait_for(servers, health, logs)
        unpause_once(env, logs / "airflow-setup.log")
        print(addresses(env, console_url, airflow_url, mlflow_url, logs), flush=True)
        while all(server.poll() is None for server in servers.values()):
            time.sleep(0.5)
        gone = next(name for name, server in servers.items() if server.poll() is not None)
        print(f"{gone} has stopped by itself; see {logs / gone}.log", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        # A second Ctrl-C must not leave half of them running.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("\nStopping ...", flush=True)
        stop(servers)
        print("Airflow and MLflow are stopped.", flush=True)


def password_file(env: dict[str, str]) -> Path:
    """Where Airflow keeps the password of its one user."""
    return Path(env["AIRFLOW_HOME"]) / "simple_auth_manager_passwords.json.generated"


def make_password(file: Path) -> None:
    """Airflow would make it itself, and print it into a log."""
    if not file.exists():
        file.write_text(json.dumps({"admin": secrets.token_urlsafe(16)}), encoding="utf-8")


def start(command: list[str], env: dict[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """A server in a process group of its own, so that the terminal's Ctrl-C reaches this program alone."""
    return subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )


def wait_for(servers: dict[str, subprocess.Popen[bytes]], health: dict[str, str], logs: Path) -> None:
    """Until every health address answers and Airflow's scheduler and DAG processor have reported.

    Raises:
        SystemExit: a server stopped, or took too long.
    """
    waiting, limit = dict(health), time.monotonic() + START_LIMIT_S
    while waiting:
        if gone := next((name for name, server in servers.items() if server.poll() is not None), None):
            sys.exit(f"{gone} did not start; see {logs / gone}.log")
        for name in list(waiting):
            if is_healthy(waiting[name]):
                del waiting[name]
        if waiting and time.monotonic() > limit:
            sys.exit(f"No answer within {START_LIMIT_S} s from {', '.join(waiting.values())}; see {logs}")
        time.sleep(0.5)


def is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            body = answer.read()
    except (urllib.error.URLError, OSError):
        return False
    if not body.startswith(b"{"):
        return True
    parts = json.loads(body)
    return all(parts.get(part, {}).get("status") == "healthy" for part in ("scheduler", "dag_processor"))


def unpause_once(env: dict[str, str], log_file: Path) -> None:
    """Forecasting and training follow the sequences from the first start on; what a person pauses stays paused."""
    done = Path(env["AIRFLOW_HOME"]) / "unpaused-once"
    if done.exists():
        return
    followers = "^(advertiser_forecasts|m2m_training)$"
    command = ["airflow", "dags", "unpause", "--yes", "--treat-dag-id-as-regex", followers]
    limit = time.monotonic() + START_LIMIT_S
    while True:  # the DAG processor may not have stored the DAGs yet
        with log_file.open("ab") as log:
            status = subprocess.run(command, env=env, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
        if status == 0:
            done.touch()
            return
        if time.monotonic() > limit:
            sys.exit(f"Airflow does not know the DAGs after {START_LIMIT_S} s; see {log_file}")
        time.sleep(2)


def addresses(env: dict[str, str], console_url: str, airflow_url: str, mlflow_url: str, logs: Path) -> str:
    user, password = next(iter(json.loads(password_file(env).read_text(encoding="utf-8")).items()))
    return f"""
  Console  {console_url}   the forecasts, no log-in
  Airflow  {airflow_url}   log in as {user}, password {password}
  MLflow   {mlflow_url}/#/models   no log-in
  Data set {env["M2M_CONFIG"]}
  Logs     {logs}

  advertiser_forecasts and m2m_training start by themselves when advertiser_sequences has written a day.
  advertiser_sequences is paused, because the example data have ended: trigger it with a date, from its form.

  Ctrl-C stops them."""


def stop(servers: dict[str, subprocess.Popen[bytes]]) -> None:
    """Ask each server to end its parts, then end whatever is left of what it started."""
    for server in servers.values():
        if server.poll() is None:
            server.send_signal(signal.SIGINT)
    for final in (signal.SIGTERM, signal.SIGKILL):
        limit = time.monotonic() + STOP_LIMIT_S
        while started_processes(servers) and time.monotonic() < limit:
            time.sleep(0.2)
        for process in started_processes(servers):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(final)
    psutil.wait_procs(started_processes(servers), timeout=STOP_LIMIT_S)


def started_processes(servers: dict[str, subprocess.Popen[bytes]]) -> list[psutil.Process]:
    """Living processes that a server started, directly or not."""
    sessions, found = {server.pid for server in servers.values()}, []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            # The session finds all but those that made their own; the mark all but those that renamed themselves, which
            # overwrites the environment that others see.
            if os.getsid(process.pid) in sessions or process.environ().get(MARK) == str(os.getpid()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError, PermissionError):
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
