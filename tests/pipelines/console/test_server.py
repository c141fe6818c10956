"""The console as a process: where it listens, whom it answers, how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from pipelines.cli import exit_status
from pipelines.console import main

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def server(bed: Path, home: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "pipelines", "console", "--config", str(bed), "--port", str(port)]
    command += ["--host", "ads.example.com"]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=os.environ, stdout=subprocess.PIPE, text=True)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(300):
        try:
            opener.open(f"http://127.0.0.1:{port}/_stcore/health", timeout=5).close()
            break
        except OSError:
            assert process.poll() is None
            time.sleep(0.2)
    yield port, process
    if process.poll() is None:
        process.kill()
        process.wait()


def test_it_listens_here_alone_answers_its_own_pages_alone_and_ends_when_told(
    server: tuple[int, subprocess.Popen[str]],
) -> None:
    port, process = server
    listening = {place.laddr.ip for place in psutil.Process(process.pid).net_connections() if place.status == "LISTEN"}
    assert listening == {"127.0.0.1"}
    url = f"ws://127.0.0.1:{port}/_stcore/stream"

    def answers(host: str, origin: str) -> bool:
        try:
            # The socket is given: the address is what the request says, not where it goes.
            with connect(
                url.replace("127.0.0.1", host),
                origin=origin,  # type: ignore[arg-type]
                sock=socket.create_connection(("127.0.0.1", port)),
                proxy=None,
            ):
                return True
        except InvalidStatus:
            return False

    assert answers("127.0.0.1", f"http://127.0.0.1:{port}")
    assert answers("ads.example.com", f"http://ads.example.com:{port}")
    assert not answers("evil.example.com", f"http://evil.example.com:{port}")  # a name that was made to lead here
    assert not answers("127.0.0.1", "http://evil.example.com")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) in (0, 130)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--address", "0.0.0.0"], "--address 0.0.0.0: say with --host by which names people may reach it"),
        (["--address", "203.0.113.7"], "on 203.0.113.7: "),
    ],
)
def test_an_address_that_cannot_be_is_refused(
    bed: Path, home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert exit_status(main, ["--config", str(bed), *arguments]) == 2
    assert said in capsys.readouterr().err
