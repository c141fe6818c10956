"""Sitters and the driver that listens to them, without Spark: each rank is a process that tells how its work ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from pipelines.config import Distributor
from pipelines.errors import ConfigError
from pipelines.spark import rank
from pipelines.spark.code import installed, refuse_other
from pipelines.spark.rank import Terms, sit
from pipelines.spark.ranks import Watch, refuse_missing_gpus, threads_each

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def watch(said: list[str]) -> Iterator[Watch]:
    made = Watch(None, True, said.append, said.append)  # type: ignore[arg-type]
    yield made
    if not made._closed.is_set():
        made.close()


def start(watch: Watch, work: Callable[..., Any], number: int = 0) -> Any:
    """A sitter in a process of its own."""

    def run() -> None:
        os.environ |= {"RANK": str(number), "WORLD_SIZE": "1"}
        sit(Terms(watch.address, watch.key, installed(), False, 1), work, {})

    process = FORK.Process(target=run)
    process.start()
    return process


def fails(say: Any, at: Any, tell: Any) -> None:
    say("three steps")
    tell({"epoch": 1})
    at(3, 0.5, 96)
    raise OSError(28, "No space left on device", "step-3.pt")


def lasts(say: Any, at: Any, tell: Any) -> None:
    at(7, 0.0, 224)
    time.sleep(60)


def loses_its_neighbor(say: Any, at: Any, tell: Any) -> None:
    raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:12345")


def child_of(watch: Watch, process: Any, step: int = 7) -> psutil.Process:
    """The training process, once it has told a step."""
    while not watch._seats or watch._seats[0].step != step:
        assert process.is_alive()
        time.sleep(0.05)
    return psutil.Process(process.pid).children()[0]


def test_a_rank_that_raises_is_quoted_with_its_step(watch: Watch, said: list[str]) -> None:
    process = start(watch, fails)
    process.join(30)
    first = watch.first()
    assert first is not None
    assert process.exitcode == 1
    assert first.where.startswith("rank 0 on ")
    assert first.where.endswith(" at step 3")
    assert first.words == "OSError: [Errno 28] No space left on device: 'step-3.pt'"
    assert first.raised["errno"] == 28
    assert "in fails" in first.raised["traceback"]
    assert said == ["three steps", {"epoch": 1}]


def test_a_killed_rank_is_named_with_its_signal_and_not_its_neighbor(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank, "BEAT_S", 0.1)
    neighbor = start(watch, loses_its_neighbor, 1)
    neighbor.join(30)  # its words come first
    process = start(watch, lasts)
    while 0 not in watch._seats or watch._seats[0].step != 7:
        assert process.is_alive()
        time.sleep(0.05)
    psutil.Process(process.pid).children()[0].kill()
    process.join(30)
    first = watch.first()
    assert first is not None
    assert (first.rank, first.step, first.words) == (0, 7, "killed by SIGKILL")


def test_a_stopped_rank_is_killed(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank, "BEAT_S", 0.1)
    monkeypatch.setattr(rank, "SILENT_S", 1.0)
    process = start(watch, lasts)
    child = child_of(watch, process)
    child.suspend()
    process.join(30)
    first = watch.first()
    assert first is not None
    assert first.words == "no sign of life for 1 s, so it was killed"
    assert not child.is_running()


def test_nothing_stays_of_a_sitter_that_is_gone(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank, "BEAT_S", 0.1)
    process = start(watch, lasts)
    child = child_of(watch, process)
    child.suspend()  # what cannot be asked to end
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    first = watch.first()
    assert first is not None
    assert first.words.startswith("gone without a word")
    psutil.wait_procs([child], 10)
    assert not child.is_running()


@pytest.mark.parametrize("words", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x14" + b"x" * 20, b"\xff" * 64])
def test_a_stranger_at_the_port_keeps_no_rank_out(watch: Watch, words: bytes) -> None:
    """A scanner, a probe: it says nothing, or what nobody understands, and stays."""
    with socket.create_connection(watch.address) as stranger:
        stranger.sendall(words)
        process = start(watch, fails)
        process.join(30)
        assert process.exitcode == 1
    assert [*watch._seats] == [0]


def test_ranks_that_never_called_are_told_before_what_became_of_the_others(watch: Watch) -> None:
    process = start(watch, fails)
    process.join(30)
    first = watch.first()
    assert watch.words(first, "", 1).endswith("at step 3: OSError: [Errno 28] No space left on device: 'step-3.pt'")
    called = f"1 of 2 ranks never called the driver at 127.0.0.1:{watch.address[1]} (are its ports open to executors"
    assert watch.words(first, "", 2).startswith(called)
    assert watch.words(None, "Spark's own words", 2).endswith("no rank left a word; Spark's own words")


def test_a_driver_that_cannot_be_reached_is_told(watch: Watch) -> None:
    """A firewall, or a name that executors do not know; the port is closed with the watch."""
    rank.refuse_unreachable(watch.address)
    watch.close()
    with pytest.raises(ConfigError, match=rf"does not reach the driver at 127.0.0.1:{watch.address[1]}: .*refused"):
        rank.refuse_unreachable(watch.address)
    with pytest.raises(ConfigError, match=r"does not reach the driver at driver.invalid:1: .* Open the driver's ports"):
        rank.refuse_unreachable(("driver.invalid", 1))


@pytest.mark.parametrize(
    ("cores", "executors", "processes", "threads"),
    [(2, 1, 1, 2), (2, 2, 1, 1), (2, 2, 2, 1), (16, 2, 4, 4), (16, 4, 6, 2), (8, 2, 3, 2), (2, 1, 8, 1)],
)
def test_a_process_has_its_share_of_its_executors_cores(
    cores: int, executors: int, processes: int, threads: int
) -> None:
    assert threads_each(cores, executors, processes) == threads


def test_what_differs_is_told_with_the_host() -> None:
    refuse_other(installed())
    with pytest.raises(
        ConfigError, match=r"^the executor on \S+ \(.*\) has torch \S+, not 1\.0; this project \w+, not x"
    ):
        refuse_other({**installed(), "torch": "1.0", "this project": "x"})


def test_gpus_that_this_machine_has_not_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    refuse_missing_gpus(Distributor(), True)
    refuse_missing_gpus(Distributor(use_gpu=True, local=False), False)
    with pytest.raises(ConfigError, match="torch finds 0 GPUs on this machine; set use_gpu = false"):
        refuse_missing_gpus(Distributor(use_gpu=True), False)
