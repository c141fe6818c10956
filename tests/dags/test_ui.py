"""``make ui`` serves its pages and leaves no process behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]


def alive(process: psutil.Process) -> bool:
    """Not ended. A zombie has: it only waits for init, which may take its time, to note its exit status."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_ctrl_c_stops_all_servers_and_all_that_they_started(tmp_path: Path, free_port: Callable[[], int]) -> None:
    airflow, mlflow, console = free_port(), free_port(), free_port()
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "M2M_"))}
    env = clean | {"M2M_HOME": str(tmp_path), "AIRFLOW_PORT": str(airflow), "MLFLOW_PORT": str(mlflow)}
    env["CONSOLE_PORT"] = str(console)
    command = [sys.executable, "-u", str(REPOSITORY / "examples" / "ui.py")]
    ui = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    printed: list[str] = []
    try:
        assert ui.stdout is not None
        for line in ui.stdout:  # ends when the program says how to stop it, or when it ends itself
            printed.append(line)
            if "Ctrl-C stops them" in line:
                break
        text = "".join(printed)
        assert ui.poll() is None, text
        assert f"http://localhost:{airflow}" in text
        assert f"http://localhost:{console}" in text
        assert "log in as admin, password" in text
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for url in (
            f"http://127.0.0.1:{airflow}/api/v2/monitor/health",
            f"http://127.0.0.1:{mlflow}/health",
            f"http://127.0.0.1:{console}/_stcore/health",
        ):
            with opener.open(url, timeout=10) as answer:
                assert answer.status == 200
        started = psutil.Process(ui.pid).children(recursive=True)
        assert len(started) > 4
        # Whatever it starts listens on this machine alone, and what it writes is this user's alone.
        listening = {
            place.laddr.ip for process in started for place in process.net_connections() if place.status == "LISTEN"
        }
        assert listening <= {"127.0.0.1", "::1"}
        assert [str(file) for file in tmp_path.rglob("*") if file.is_file() and file.stat().st_mode & 0o077] == []
        password = text.split("log in as admin, password ")[1].split()[0]
        assert [str(log) for log in (tmp_path / "logs").rglob("*.log") if password in log.read_text()] == []
        ui.send_signal(signal.SIGINT)
        assert ui.wait(timeout=60) == 0
        assert [process for process in started if alive(process)] == []
    finally:
        if ui.poll() is None:
            ui.send_signal(signal.SIGTERM)
            ui.wait(timeout=60)


def test_port_in_use_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        env = dict(os.environ) | {"M2M_HOME": str(tmp_path), "AIRFLOW_PORT": str(port)}
        done = subprocess.run(
            [sys.executable, str(REPOSITORY / "examples" / "ui.py")],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert f"Port {port} is in use" in done.stderr
    assert list(tmp_path.iterdir()) == []
