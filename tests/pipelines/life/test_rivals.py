import pytest
from deployment import Deployment

from pipelines.life.registry import Registry


def test_rivals_that_the_store_does_not_give_are_an_error_that_a_backtest_can_pass_over(deployment: Deployment) -> None:
    registry = Registry(deployment.config)
    with pytest.raises(ValueError, match="run 0123456789abcdef0123456789abcdef: "):
        registry.rivals("0123456789abcdef0123456789abcdef")
    with registry.new_run("train", {}, {}) as run_id:
        assert registry.rivals(run_id) is None
