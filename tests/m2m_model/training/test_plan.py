import numpy as np

from m2m_model.config import TrainConfig
from m2m_model.training.plan import Plan


def test_plan_is_fixed_and_walks_through_the_pool() -> None:
    plan = Plan.of(100, TrainConfig(epochs=3, max_windows=1500, batch_size=40, min_steps=10))
    assert (plan.steps, plan.steps_per_epoch, plan.epochs) == (10, 4, 3)
    seen = np.concatenate([plan.batch(step, 1) for step in range(5)])
    assert sorted(seen[:100]) == list(range(100))
    assert sorted(seen[100:]) == list(range(100))
    assert not np.array_equal(plan.batch(0, 1), plan.batch(0, 2))
