"""The processes that train together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch import Tensor

_PATIENCE = timedelta(hours=2)


class Ranks:
    """This process among those that train together; alone when torch.distributed is not initialised."""

    def __init__(self) -> None:
        self.together = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if self.together else 0
        self.world = dist.get_world_size() if self.together else 1
        self.waited_s = 0.0  # in collectives: for the slowest rank, and for the messages

    def add(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, in place."""
        if self.together:
            started = time.monotonic()
            dist.all_reduce(tensor)
            self.waited_s += time.monotonic() - started
        return tensor

    def share(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if not self.together:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, on every rank, by rank."""
        if not self.together:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    @contextmanager
    def patiently(self) -> Iterator[None]:
        """For what takes some ranks longer than others by more than a collective waits: fetching, say. Afterwards all
        are here; one that is gone meanwhile is noticed as ever."""
        group = dist.new_group(backend="gloo", timeout=_PATIENCE) if self.together else None
        yield
        if group:
            dist.barrier(group)
            dist.destroy_process_group(group)

    def leave(self) -> None:
        """Leave the group, once all have come so far: from here on nobody waits for another."""
        if self.together:
            dist.barrier()
            dist.destroy_process_group()
            self.together = False
