"""Training ranks under TorchDistributor: start them, hear of their failures, start them again from the checkpoint.

Function mode, because file mode returns None when a rank raised. The driver's own message is generic, so each
rank leaves its error in the run's folder and the driver reports the earliest one.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pyspark.ml.torch.distributor import TorchDistributor

from m2m_model.training.loop import train_rank
from m2m_model.training.progress import TrainResult
from pipelines.cli import LOG, warn
from pipelines.config import Distributor
from pipelines.errors import DataError

_RENDEZVOUS = timedelta(seconds=120)


class RankError(Exception):
    """A rank failed more often than [distributor] attempts allows."""


def train_on_ranks(settings: Distributor, run_dir: Path, resume: bool, arguments: Mapping[str, Any]) -> TrainResult:
    """Run ``m2m_model.training.loop.train_rank`` on every rank and return rank 0's result.

    A failed barrier stage is not retried by Spark, so this does, from the last checkpoint.

    Raises:
        DataError: there is nothing to train or validate on.
        RankError: the ranks failed ``attempts`` times; it holds the first error of the last attempt.
    """
    # Threads that spin for long while they wait take the core that the other is working on, on a machine with company;
    # threads that never spin cost a quiet one 1.6 times the step.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    errors = run_dir / "errors"
    for attempt in range(1, settings.attempts + 1):
        errors.mkdir(parents=True, exist_ok=True)
        for file in errors.iterdir():
            file.unlink()
        distributor = TorchDistributor(
            num_processes=settings.processes, local_mode=settings.local, use_gpu=settings.use_gpu
        )
        try:
            result: TrainResult = distributor.run(
                run_rank,
                asdict(settings),
                str(errors),
                {**arguments, "run_dir": run_dir, "resume": resume or attempt > 1},
            )
            return result
        except Exception as error:
            first = first_error(errors)
            if first and first["type"] == "ValueError":
                raise DataError(f"training: {first['message']}") from None
            LOG.write(first["traceback"] if first else str(error))
            words = (
                f"rank {first['rank']}: {first['type']}: {first['message']}"
                if first
                else f"no rank left a word; {error}"
            )
            if attempt == settings.attempts:
                raise RankError(f"training failed {attempt} times; the last time, first: {words}") from error
            warn(f"train: attempt {attempt} of {settings.attempts} failed, going on from the checkpoint: {words}")
    raise AssertionError("unreachable")


def run_rank(settings: dict[str, Any], errors: str, arguments: dict[str, Any]) -> TrainResult:
    """One rank: join the process group, train, leave an error file if that fails."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    threads = settings["threads"] or max(1, (os.cpu_count() or 1) // settings["processes"])
    torch.set_num_threads(threads)  # torchrun sets OMP_NUM_THREADS to 1
    try:
        gpu = settings["use_gpu"] and torch.cuda.is_available()
        if gpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        if world > 1:
            backend = "nccl" if gpu else "gloo"
            dist.init_process_group(backend, timeout=_RENDEZVOUS)
        return train_rank(**arguments)
    except Exception as error:
        words = {"rank": rank, "at": time.time(), "type": type(error).__name__, "message": str(error)}
        file = Path(errors) / f"rank-{rank}.json"
        file.write_text(json.dumps(words | {"traceback": traceback.format_exc()}), encoding="utf-8")
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def first_error(errors: Path) -> dict[str, Any] | None:
    """The earliest error that a rank left."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in errors.glob("rank-*.json")]
    return min(found, key=lambda words: float(words["at"])) if found else None
