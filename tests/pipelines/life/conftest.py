"""A model as a person has it after the first training."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from deployment import AS_OF, Deployment, seventy_days
from pyspark.sql import SparkSession


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Iterator[Deployment]:
    """Seventy days, and a model trained, judged and promoted."""
    with seventy_days(tmp_path_factory.mktemp("trained") / "tiny", lambda: spark) as deployment:
        for stage in ("train", "backtest", "promote"):
            assert deployment.run(stage, "--date", AS_OF)[0] == 0, stage
        yield deployment


@pytest.fixture
def said(trained: Deployment, capfd: pytest.CaptureFixture[str]) -> Deployment:
    """The same deployment, and what its stages print."""
    return Deployment(trained.folder, lambda: "".join(capfd.readouterr()), lambda: None)
