"""The processes that train together."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import Tensor


class Ranks:
    """This process among those that train together; alone when torch.distributed is not initialised."""

    def __init__(self) -> None:
        self.together = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if self.together else 0
        self.world = dist.get_world_size() if self.together else 1

    def add(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, in place."""
        if self.together:
            dist.all_reduce(tensor)
        return tensor

    def share(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if not self.together:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def wait(self) -> None:
        if self.together:
            dist.barrier()
