"""Fixtures of every test: one Spark session, and small deployments."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import SQL, TOML, Deployment
from expectations import EXPECTATIONS, keep
from local_cluster import LocalCluster
from pyspark.sql import SparkSession

from pipelines.config import load_config
from pipelines.spark.session import spark_session

OUTCOMES: dict[str, bool] = {}  # of this process, by FILE::NAME

# Homes lie in memory where there is room: at every commit of a catalog, of MLflow, of Airflow SQLite waits for a disk.
MEMORY = Path("/dev/shm")
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 4 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks that a test's place or fixtures tell; `make test-fast` leaves these tests out."""
    for item in items:
        if "spark" in getattr(item, "fixturenames", ()):
            item.add_marker("spark")
        if "dags" in item.path.parts:
            item.add_marker("airflow")
        if "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker("cluster")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or not report.passed:
        test = report.nodeid.partition("[")[0].removeprefix("tests/")
        OUTCOMES[test] = report.passed and OUTCOMES.get(test, True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """What the list of expectations is ticked by."""
    named = {test for expected in EXPECTATIONS for test in expected.tests}
    part = " ".join(map(str, session.config.invocation_params.args))
    keep(re.sub(r"\W+", "-", part), {test: passed for test, passed in OUTCOMES.items() if test in named})


@pytest.fixture
def deployment(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> Deployment:
    monkeypatch.setenv("M2M_HOME", str(tmp_path / "home"))
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "pipeline.toml").write_text(TOML)
    (folder / "performance_daily.sql").write_text(SQL)

    def start_spark() -> None:
        assert request.node.get_closest_marker("spark"), "this test starts Spark: mark it with pytest.mark.spark"
        request.getfixturevalue("spark")

    return Deployment(folder, lambda: "".join(capfd.readouterr()), start_spark)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A master and two workers of one core, started when a test first needs them."""
    with LocalCluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """One Spark session for the whole run, started when a test first needs it; stages find it and keep it."""
    folder = tmp_path_factory.mktemp("spark")
    (folder / "pipeline.toml").write_text(TOML)
    (folder / "performance_daily.sql").write_text(SQL)
    with spark_session(load_config(folder / "pipeline.toml"), "tests") as session:
        yield session
