"""A small deployment on the cluster, and the chain that ran there once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from deployment import FIRST_DAY, Deployment, day
from local_cluster import LocalCluster
from on_cluster import AS_OF, OnCluster, deployed


@pytest.fixture(scope="session")
def on(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> OnCluster:
    folder = tmp_path_factory.mktemp("on cluster")
    return OnCluster(deployed(folder), folder / "home", cluster.master)


@pytest.fixture(autouse=True)
def nothing_left(on: OnCluster) -> Iterator[None]:
    """What a failed test leaves running would take the executors of the next."""
    yield
    for run in on.started:
        run.process.kill()


@pytest.fixture(scope="session")
def chain(on: OnCluster) -> dict[str, str]:
    """The chain, once, by hand; what each stage said."""
    days: dict[str, tuple[object, ...]] = {
        "stage_sources": ("--from", FIRST_DAY, "--to", day(59)),
        "build_sequences": ("--date", AS_OF),
        "train": ("--date", AS_OF),
        "backtest": ("--date", AS_OF),
        "promote": ("--date", AS_OF),
        "score": ("--date", AS_OF),
        "monitor": ("--date", day(59)),
    }
    return {stage: on.run(stage, *arguments) for stage, arguments in days.items()}


@pytest.fixture
def warehouse(on: OnCluster, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """What the stages wrote, for this process to read."""
    monkeypatch.setenv("M2M_HOME", str(on.home))
    return on.deployment
