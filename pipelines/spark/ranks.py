"""Training ranks under TorchDistributor: start them, hear how they fare, start them again from the checkpoint.

Function mode, because file mode returns None when a rank raised. What Spark says of a failure is generic and often
names the wrong rank, the one whose neighbor went away; so the driver listens to each (`pipelines.spark.rank`).
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any

from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import SparkSession

from m2m_model.training.loop import NotTrainableError
from pipelines.cli import LOG, warn
from pipelines.config import Distributor
from pipelines.errors import ConfigError, DataError, said_by_worker
from pipelines.spark.code import installed, is_local
from pipelines.spark.executors import executors, slots, wait_for_slots
from pipelines.spark.rank import SILENT_S, Terms, sit

_WORDS_S = 5.0  # how long the driver waits for the words of ranks after Spark has given up
_BY_OTHERS = re.compile(r"gloo|nccl|Connection (closed|reset)|Broken pipe|[Tt]imed out|ProcessGroup", re.IGNORECASE)
_IN_VAIN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)  # again would be the same
_FINAL = {ConfigError.__name__: ConfigError, NotTrainableError.__name__: DataError}  # by what a rank raised
_LOST = re.compile(
    r"barrier task \w+\(\d+, (?P<rank>\d+)\) finished unsuccessfully\.\s+ExecutorLostFailure .* Reason: (?P<reason>.*)"
)
_GPU_SLOTS = (
    " with a GPU each ([distributor] use_gpu = false does without; workers offer theirs with "
    "spark.worker.resource.gpu.amount and .discoveryScript)"
)
_QUIET_S = SILENT_S + 10  # a sitter speaks every two seconds
_PATIENCE = struct.pack("ll", int(_QUIET_S) + 5, 0)  # of the kernel, with a caller: it is looked at before
_UNEVEN = 0.25  # of the time, that others wait for a straggler


class RankError(Exception):
    """A rank failed, more often than [distributor] attempts allows or in a way that another attempt cannot mend."""


@dataclass
class Seat:
    """What the driver knows of a rank. ``fate`` is how it ended: 0 done, 1.. the further from the cause the higher."""

    rank: int
    host: str
    pid: int
    heard: float
    step: int = 0
    waited_s: float = 0.0
    rows: int = 0
    trained_s: float = 0.0
    fate: int | None = None
    ended: float = 0.0
    words: str = ""
    raised: dict[str, Any] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return f"rank {self.rank} on {self.host} at step {self.step}"


@dataclass(frozen=True)
class Trained:
    """Rank 0's result, and of each rank the share of its time in which it waited for others, and its rows a second."""

    result: Any
    idle: Mapping[int, float]
    rows_per_second: Mapping[int, float]


def run_on_ranks(
    spark: SparkSession,
    settings: Distributor,
    work: Callable[..., Any],
    arguments: Mapping[str, Any],
    resume: bool,
    say: Callable[[str], object],
    told: Callable[[dict[str, Any]], object] = lambda figures: None,
) -> Trained:
    """``work(**arguments, resume=..., say=..., at=..., tell=...)`` on every rank; ``told`` hears what rank 0 tells.

    A failed barrier stage is not retried by Spark, so this does, from the last checkpoint, once a lost executor's place
    is taken, or with fewer ranks.

    Raises:
        ConfigError: a rank has other packages or code than the driver; there are no GPUs.
        DataError: there is nothing to train or validate on.
        RankError: the ranks failed ``attempts`` times, or there are too few slots; it says which rank was the first.
    """
    local = settings.local or is_local(spark)
    for attempt in range(1, settings.attempts + 1):
        processes = wait_for_ranks(spark, settings, say)
        watch = Watch(spark, local, say, told)
        gpus = settings.use_gpu and not local  # on the driver's machine a rank takes the GPU of its number
        distributor = TorchDistributor(num_processes=processes, local_mode=local, use_gpu=gpus)
        threads = settings.threads or _threads(spark, local, processes)
        terms = Terms(watch.address, watch.key, installed(), settings.use_gpu, threads)
        try:
            with _own_code_first(local):
                result = distributor.run(sit, terms, work, {**arguments, "resume": resume or attempt > 1})
            return Trained(result, watch.idle(), watch.rows_per_second())
        except Exception as error:
            first = watch.first(str(error))
            if refused := said_by_worker(str(error)):
                raise refused from None
            LOG.write(first.raised.get("traceback", first.words) if first else str(error))
            words = watch.words(first, str(error), processes)
            if first and (final := _FINAL.get(first.raised.get("raised", ""))):
                raise final(f"training: {first.raised['message']}") from None
            if attempt == settings.attempts or (first and first.raised.get("errno") in _IN_VAIN):
                raise RankError(f"training failed {attempt} times; the last time, first: {words}") from error
            warn(f"train: attempt {attempt} of {settings.attempts} failed, going on from the checkpoint: {words}")
        finally:
            watch.close()
    raise AssertionError("unreachable")


def refuse_missing_gpus(settings: Distributor, master_is_local: bool) -> None:
    """Raises ConfigError where ranks on this machine want GPUs that it has not."""
    if settings.use_gpu and (settings.local or master_is_local):
        import torch

        if (found := torch.cuda.device_count()) < settings.processes:
            raise ConfigError(
                f"[distributor] use_gpu = true, processes = {settings.processes}: torch finds {found} GPUs on this "
                "machine; set use_gpu = false, fewer processes, or local = false with a cluster that has them"
            )


def wait_for_ranks(spark: SparkSession, settings: Distributor, say: Callable[[str], object]) -> int:
    """How many ranks an attempt has: all, or as many as there are slots for.

    Raises:
        RankError: there are too few.
    """
    if settings.local or is_local(spark):
        return settings.processes
    # A slot has one task, and a task that asks for several GPUs is as many ranks.
    each = int(spark.conf.get("spark.task.resource.gpu.amount", "1") or 1) if settings.use_gpu else 1
    found = each * wait_for_slots(spark, -(-settings.processes // each), settings.wait_s, say)
    if found >= settings.processes:
        return settings.processes
    least = settings.min_processes or settings.processes
    if found < least:
        gpus = "" if not settings.use_gpu else _GPU_SLOTS
        raise RankError(
            f"training needs {least} slots{gpus}; the cluster has {found} after {settings.wait_s} s. Add workers, or "
            "set [distributor] processes, min_processes, wait_s or [spark.stages.train] to what there is"
        )
    warn(f"train: {found} slots for {settings.processes} processes, going on with {found} at the same batch size")
    return found


def _threads(spark: SparkSession, local: bool, processes: int) -> int:
    """The cores that a rank has: of this machine, or of the executor that it shares with other ranks."""
    if local:
        return threads_each(len(os.sched_getaffinity(0)), 1, processes)
    count = max(1, executors(spark))
    cores = int(spark.conf.get("spark.executor.cores", "0") or 0) * count
    return threads_each(cores or slots(spark) * int(spark.conf.get("spark.task.cpus", "1") or 1), count, processes)


def threads_each(cores: int, executors: int, processes: int) -> int:
    """Of ``cores`` in all, what each process has when Spark has spread them over the executors."""
    return max(1, cores // executors // -(-processes // executors))


@contextmanager
def _own_code_first(local: bool) -> Iterator[None]:
    """A child of this process imports what this one runs; on executors PYTHONPATH is set with the archive."""
    before = os.environ.get("PYTHONPATH", "")
    if local:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), before]))
    try:
        yield
    finally:
        if local:
            os.environ["PYTHONPATH"] = before


class Watch:
    """The driver's ear: a port that every rank's sitter calls, and what became of each."""

    def __init__(
        self,
        spark: SparkSession,
        local: bool,
        say: Callable[[str], object],
        told: Callable[[dict[str, Any]], object] = lambda figures: None,
    ) -> None:
        self._spark, self._local, self._say, self._told = spark, local, say, told
        host = "127.0.0.1" if local else str(spark.conf.get("spark.driver.host"))
        bind = host if local else str(spark.conf.get("spark.driver.bindAddress", host))
        self.key, self._seats, self._closed = secrets.token_bytes(32), dict[int, Seat](), threading.Event()
        self._server = socket.create_server((bind, 0), backlog=64)
        self.address = (host, int(self._server.getsockname()[1]))
        self._told_uneven = False
        for task in (self._accept, self._look):
            threading.Thread(target=task, daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept, and would keep the port open
        self._server.close()

    def first(self, said_by_spark: str = "") -> Seat | None:
        """The rank whose end was the cause of the others': after a moment in which they may yet speak. Of a lost
        executor Spark knows more than they do."""
        end = time.monotonic() + _WORDS_S
        while time.monotonic() < end and any(seat.fate is None for seat in self._seats.values()):
            time.sleep(0.1)
        ended = [seat for seat in self._seats.values() if seat.fate]
        lost = _LOST.search(said_by_spark)
        if lost and (seat := self._seats.get(int(lost["rank"]))) and all((one.fate or 0) > 2 for one in ended):
            return replace(seat, words=f"its executor was lost: {lost['reason']}")
        return min(ended, key=lambda seat: (seat.fate or 0, seat.ended), default=None)

    def words(self, first: Seat | None, said_by_spark: str, processes: int) -> str:
        """What became of the ranks, in a line."""
        words = f"{first.where}: {first.words}" if first else f"no rank left a word; {said_by_spark[:400]}"
        if missing := processes - len(self._seats):
            host, port = self.address
            return (
                f"{missing} of {processes} ranks never called the driver at {host}:{port} (are its ports open to "
                f"executors, and do they know spark.driver.host?); {words}"
            )
        return words

    def idle(self) -> dict[int, float]:
        """By rank."""
        return {rank: seat.waited_s / max(seat.trained_s, 1e-9) for rank, seat in sorted(self._seats.items())}

    def rows_per_second(self) -> dict[int, float]:
        """By rank."""
        return {rank: seat.rows / max(seat.trained_s, 1e-9) for rank, seat in sorted(self._seats.items())}

    def _accept(self) -> None:
        while not self._closed.is_set():
            with suppress(OSError):
                caller, _ = self._server.accept()
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)
                threading.Thread(target=self._hear, args=(Connection(caller.detach()),), daemon=True).start()

    def _hear(self, sitter: Connection) -> None:
        """Out of the others' way: a stranger who finds the port, a scanner say, may say nothing at all."""
        with sitter, suppress(OSError, EOFError, AuthenticationError):
            deliver_challenge(sitter, self.key)
            answer_challenge(sitter, self.key)
            hello = json.loads(sitter.recv_bytes())
            seat = Seat(hello["rank"], hello["host"], hello["pid"], time.monotonic())
            self._seats[seat.rank] = seat
            try:
                while seat.fate is None:
                    self._note(seat, json.loads(sitter.recv_bytes()))
            except (EOFError, ConnectionError):
                self._end(seat, 3, "gone without a word: its process, its executor or its machine was lost")

    def _note(self, seat: Seat, words: dict[str, Any]) -> None:
        seat.heard = time.monotonic()
        for name in ("step", "waited_s", "rows", "trained_s"):
            setattr(seat, name, words.get(name, getattr(seat, name)))
        if "says" in words and seat.rank == 0:
            self._say(words["says"])
            self._name_straggler()
        elif "tells" in words:
            if seat.rank == 0:
                self._told(words["tells"])
        elif "raised" in words:
            by_others = _BY_OTHERS.search(words["message"]) and words["raised"] != "ConfigError"
            seat.raised = words
            self._end(seat, 4 if by_others else 1, f"{words['raised']}: {words['message']}")
        elif "killed" in words or "hung" in words:
            self._end(seat, 2, words.get("killed") or words["hung"])
        elif "done" in words:
            self._end(seat, 0, "")

    def _end(self, seat: Seat, fate: int, words: str) -> None:
        if seat.fate is None:
            seat.fate, seat.ended, seat.words = fate, time.monotonic(), words

    def _name_straggler(self) -> None:
        idle = self.idle()
        if len(idle) > 1 and not self._told_uneven and max(idle.values()) - min(idle.values()) > _UNEVEN:
            slow = self._seats[min(idle, key=lambda rank: idle[rank])]
            self._told_uneven = True
            share = max(idle.values())
            self._say(f"rank {slow.rank} on {slow.host} is the slowest: another waits {share:.0%} of its time for it")

    def _look(self) -> None:
        """End an attempt in which a sitter itself is silent: stopped, or on a machine that is gone."""
        while not self._closed.wait(1.0):
            for seat in list(self._seats.values()):
                if seat.fate is None and time.monotonic() - seat.heard > _QUIET_S:
                    self._end(seat, 2, f"no sign of life for {_QUIET_S:.0f} s")
                    if self._local:
                        with suppress(OSError):
                            os.kill(seat.pid, signal.SIGKILL)
                    else:
                        self._spark.sparkContext.cancelAllJobs()
