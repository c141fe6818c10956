"""A training rank: a sitter, which torchrun starts, and the training itself, which is the sitter's child.

The child may raise, be killed or stopped. The sitter lives on, and tells the driver which of it happened, by signal and
step; a child that gives no sign of life it kills. All that the child says travels the same way: no shared folder is
needed, and whoever is silent is known.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import Client, Connection
from typing import Any

from pipelines.errors import ConfigError
from pipelines.spark.code import refuse_other

BEAT_S = 2.0
SILENT_S = 25.0  # a machine that is short of cores may keep a living rank from its beat for some seconds
_COLLECTIVE = timedelta(seconds=120)  # what a collective waits for a rank that lives and does not come
_REACHED_S = 20.0
_LEAVES_S = 5.0  # what a child may take to end after its last word
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Terms:
    """What the driver tells every rank: where it listens, what must be installed, how to compute."""

    address: tuple[str, int]
    key: bytes = field(repr=False)
    installed: Mapping[str, str]
    use_gpu: bool
    threads: int


def sit(terms: Terms, work: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Run ``work(**arguments, say=..., at=..., tell=...)`` in a child, inside the ranks' process group, and return its
    result.

    ``say`` takes a line for the driver's log; ``at`` the step that was reached, and so far the seconds that it
    has waited for others and the rows that it has trained on; ``tell`` what the caller of ``run_on_ranks`` wants to
    hear. Ends the process where the child did not get to its end; the driver knows by then.
    """
    _die_with_parent()
    refuse_unreachable(terms.address)
    with Client(terms.address, authkey=terms.key) as driver:
        ours, childs = multiprocessing.Pipe()
        child = multiprocessing.get_context("fork").Process(target=_child, args=(childs, ours, terms, work, arguments))

        def tell(**words: Any) -> None:
            driver.send_bytes(json.dumps(words).encode())

        child.start()
        childs.close()
        try:
            tell(rank=int(os.environ.get("RANK", "0")), host=socket.gethostname(), pid=os.getpid())
            while True:
                if not ours.poll(SILENT_S):
                    child.kill()
                    tell(hung=f"no sign of life for {SILENT_S:.0f} s, so it was killed")
                    sys.exit(1)
                try:
                    words, result = ours.recv()
                except EOFError:
                    child.join()
                    code = child.exitcode or 0
                    name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
                    tell(killed=f"killed by {name}" if code < 0 else f"ended with {name}")
                    sys.exit(1)
                tell(**words)
                if "raised" in words:
                    sys.exit(1)
                if "done" in words:
                    return result
        finally:
            child.join(_LEAVES_S)
            child.kill()


def refuse_unreachable(driver: tuple[str, int]) -> None:
    """Raises ConfigError where the driver's port is closed to this host; ``Client`` would wait for two minutes."""
    try:
        socket.create_connection(driver, _REACHED_S).close()
    except OSError as error:
        raise ConfigError(
            f"a rank on {socket.gethostname()} does not reach the driver at {driver[0]}:{driver[1]}: {error}. Open the "
            "driver's ports to executors, and set spark.driver.host to a name or an address that they know"
        ) from None


def _child(
    sitter: Connection, others_end: Connection, terms: Terms, work: Callable[..., Any], arguments: Mapping[str, Any]
) -> None:
    others_end.close()
    _die_with_parent()
    lock, ended, reached = (
        threading.Lock(),
        threading.Event(),
        {"step": 0, "waited_s": 0.0, "rows": 0, "trained_s": 0.0},
    )
    started = time.monotonic()

    def send(words: dict[str, Any], result: Any = None) -> None:
        with lock:
            sitter.send((words, result))

    def at(step: int, waited_s: float, rows: int) -> None:
        reached.update(step=step, waited_s=waited_s, rows=rows, trained_s=time.monotonic() - started)

    def beat() -> None:
        while not ended.wait(BEAT_S):
            send(dict(reached))

    threading.Thread(target=beat, daemon=True).start()
    try:
        refuse_other(dict(terms.installed))
        heard = {"say": lambda line: send({"says": line}), "at": at, "tell": lambda told: send({"tells": told})}
        result = _in_group(terms, lambda: work(**arguments, **heard))
    except BaseException as error:  # noqa: BLE001 - Ctrl-C and exit too: the driver hears of all
        words = {"raised": type(error).__name__, "message": str(error), "errno": getattr(error, "errno", None)}
        send({**reached, **words, "traceback": traceback.format_exc()})
    else:
        send({**reached, "done": True}, result)
    finally:
        ended.set()


def _in_group(terms: Terms, work: Callable[[], Any]) -> Any:
    """Threads, device and process group, which the work may leave early."""
    if not terms.use_gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(terms.threads)  # torchrun sets OMP_NUM_THREADS to 1
    if terms.use_gpu:
        if not torch.cuda.is_available():
            raise RuntimeError("Found no NVIDIA driver or no GPU for this rank, and [distributor] use_gpu = true")
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("nccl" if terms.use_gpu else "gloo", timeout=_COLLECTIVE)
    result = work()
    if dist.is_initialized():  # a group that is broken is left by ending
        dist.destroy_process_group()
    return result


def _die_with_parent() -> None:
    """The kernel kills this process when its parent is gone, be this one stopped; torchrun asks politely."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
