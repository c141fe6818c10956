"""How many steps every rank takes and what each reads: known before the first one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from m2m_model.arrays import Ints
from m2m_model.config import TrainConfig


@dataclass(frozen=True)
class Plan:
    """How many steps every rank will take, and which windows each step reads: known before the first one."""

    pool: int
    batch_size: int
    steps: int
    steps_per_epoch: int
    epochs: int

    @classmethod
    def of(cls, pool: int, config: TrainConfig) -> Plan:
        windows = min(config.max_windows, pool * config.epochs)
        steps = max(math.ceil(windows / config.batch_size), config.min_steps, config.epochs)
        per_epoch = math.ceil(steps / config.epochs)
        return cls(pool, config.batch_size, steps, per_epoch, math.ceil(steps / per_epoch))

    def batch(self, step: int, seed: int) -> Ints:
        """Positions in the pool: a walk through one random order of it after the other."""
        position = step * self.batch_size + np.arange(self.batch_size)
        rounds = position // self.pool
        return np.concatenate(
            [_order(self.pool, seed, int(r))[position[rounds == r] % self.pool] for r in np.unique(rounds)]
        )


def _order(pool: int, seed: int, rounds: int) -> Ints:
    """The random order of one walk through the pool; remembered for the steps that share it."""
    key = (pool, seed, rounds)
    if key not in _ORDERS:
        while len(_ORDERS) > 1:
            _ORDERS.pop(next(iter(_ORDERS)))
        _ORDERS[key] = np.random.default_rng([seed, rounds]).permutation(pool).astype(np.int32)
    return _ORDERS[key]


_ORDERS: dict[tuple[int, int, int], Ints] = {}
