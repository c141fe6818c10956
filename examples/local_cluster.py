"""A Spark standalone cluster on this machine: a master and workers from pip's Spark, on loopback and free ports.

``python examples/local_cluster.py [WORKERS]`` prints the master's address and runs until Ctrl-C; then
``M2M_MASTER=spark://... python -m pipelines.train ...`` in another shell. Tests and benchmarks start it as well.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path

import psutil

SPARK = Path(str(distribution("pyspark").locate_file("pyspark")))
START_S = 60.0


@dataclass
class LocalCluster:
    """Every process has a folder of its own, and nothing of the caller's environment but PATH and Java."""

    folder: Path
    workers: int = 2
    cores: int = 1
    memory: str = "2g"
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __enter__(self) -> LocalCluster:
        try:
            self.port = free_port()
            self._start("master", "master.Master", "--port", str(self.port))
            self._until(self.port)
            for number in range(self.workers):
                self.add_worker(f"worker-{number}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.started):
            for child in [*psutil.Process(process.pid).children(recursive=True), process]:
                child.kill()
            process.wait()

    @property
    def master(self) -> str:
        return f"spark://127.0.0.1:{self.port}"

    def add_worker(self, name: str) -> None:
        """One more worker, once it has begun to listen."""
        port = free_port()
        offers = ["--cores", str(self.cores), "--memory", self.memory]
        work = ["--work-dir", str(self.folder / name / "work")]
        self._start(name, "worker.Worker", "--port", str(port), *offers, *work, self.master)
        self._until(port)

    def executors(self) -> list[psutil.Process]:
        """The JVMs that run tasks now."""
        found = []
        for process in self.started:
            for child in psutil.Process(process.pid).children():
                with suppress(psutil.Error):  # it may end meanwhile
                    if "org.apache.spark.executor.CoarseGrainedExecutorBackend" in child.cmdline():
                        found.append(child)
        return found

    def _start(self, name: str, kind: str, *arguments: str) -> None:
        folder = self.folder / name
        folder.mkdir(parents=True)
        kept = {key: os.environ[key] for key in ("PATH", "JAVA_HOME", "LANG") if key in os.environ}
        env = kept | {"SPARK_HOME": str(SPARK), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_DIRS": str(folder)}
        env["SPARK_DAEMON_JAVA_OPTS"] = "-XX:TieredStopAtLevel=1"  # they do little, and soon
        command = [str(SPARK / "bin" / "spark-class"), f"org.apache.spark.deploy.{kind}"]
        command += ["--host", "127.0.0.1", "--webui-port", "0", *arguments]
        with (folder / "log").open("wb") as log:
            # A session of its own: Ctrl-C is this process's to take. Its end, be it a kill, ends them too.
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=env,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self.started.append(process)

    def _until(self, port: int) -> None:
        process, end = self.started[-1], time.monotonic() + START_S
        while time.monotonic() < end and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"{process.args!r} does not start; its log is in {self.folder}")


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (
        suppress(KeyboardInterrupt),
        tempfile.TemporaryDirectory() as made,
        LocalCluster(Path(made), int(sys.argv[1]) if len(sys.argv) > 1 else 2) as cluster,
    ):
        print(f"M2M_MASTER={cluster.master}", flush=True)
        signal.pause()
