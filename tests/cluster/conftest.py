"""The chain by hand on the cluster, once, whose machines and processes are killed on the way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from deployment import Deployment
from local_cluster import LocalCluster
from on_cluster import CHAIN, Disturbed, OnCluster, deployed
from pyspark.sql import SparkSession


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
def laptop(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """The same data and configuration, but for the ranks' place, through the same stages on local[2], undisturbed."""
    folder = tmp_path_factory.mktemp("laptop")
    deployment = deployed(folder)
    deployment.edit("local = false", "local = true")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("M2M_HOME", str(folder / "home"))
        for stage, arguments in CHAIN.items():
            status, said = deployment.run(stage, *arguments)
            assert status == 0, said
    return deployment


@pytest.fixture(scope="session")
def chain(on: OnCluster, cluster: LocalCluster) -> Disturbed:
    disturbed = Disturbed(on, cluster)
    for stage in CHAIN:
        disturbed.run(stage)
    return disturbed


@pytest.fixture
def warehouse(on: OnCluster, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """What the stages wrote, for this process to read."""
    monkeypatch.setenv("M2M_HOME", str(on.home))
    return on.deployment
