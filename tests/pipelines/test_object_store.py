"""The whole chain with nothing but catalogs and logs on this disk: warehouse, scratch and models in an S3 server."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from deployment import FIRST_DAY, SQL, TOML, Deployment, day
from pyspark.sql import SparkSession
from services import ObjectStore, object_store

from pipelines.chain import CHALLENGER
from pipelines.life.registry import Registry
from pipelines.stages import train

pytestmark = [pytest.mark.spark, pytest.mark.cluster]

AS_OF = day(69)
ON_S3 = """
[warehouse]
warehouse = "s3://m2m/lake"
"s3.endpoint" = "{endpoint}"
"s3.region" = "{region}"
"s3.access-key-id" = "${{TINY_KEY}}"
"s3.secret-access-key" = "${{TINY_SECRET}}"

[storage]
scratch = "s3://m2m/scratch"

[mlflow]
artifacts = "s3://m2m/models"

[gate]
max_ratio_to_baseline = 100.0
max_ratio_to_champion = 100.0
"""


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as store:
        yield store


@pytest.fixture(scope="module")
def chain(store: ObjectStore, tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("s3") / "tiny"
    folder.mkdir()
    (folder / "pipeline.toml").write_text(TOML + ON_S3.format(endpoint=store.endpoint, region=store.region))
    (folder / "performance_daily.sql").write_text(SQL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("M2M_HOME", str(folder.parent / "home"))
        patch.setenv("TINY_KEY", store.access_key)
        patch.setenv("TINY_SECRET", store.secret_key)
        # MLflow has settings of its own. Whoever else takes them instead of [warehouse]'s finds nobody there.
        patch.setenv("MLFLOW_S3_ENDPOINT_URL", store.endpoint)
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        patch.setenv("AWS_ACCESS_KEY_ID", "of-mlflow")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "of-mlflow")
        deployment = Deployment(folder, str, lambda: spark)
        deployment.write_days(FIRST_DAY, 77)
        for stage, *arguments in (
            ("stage_sources", "--from", FIRST_DAY, "--to", day(76)),
            ("build_sequences", "--date", AS_OF),
            ("score", "--date", AS_OF),
        ):
            assert deployment.run(stage, *arguments)[0] == 0, stage
        yield deployment


def _left(store: ObjectStore) -> list[str]:
    """Files of runs that are over."""
    return [key for key in store.keys if key.startswith("scratch/") and not key.endswith("/")]


def test_1_without_a_champion_a_baseline_serves(chain: Deployment, store: ObjectStore) -> None:
    rows = chain.rows("marts.forecast_daily")
    assert rows["method"].str.starts_with("baseline:").all()
    assert chain.rows("marts.churn_risk").height * 2 == rows.height
    assert _left(store) == []


def test_2_a_model_is_trained_and_kept_there(
    chain: Deployment, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims, sharded = [], train.write_shards

    def spied(*arguments: Any) -> Any:
        claims.extend(key for key in store.keys if key.startswith("scratch/") and key.endswith("/claim"))
        return sharded(*arguments)

    monkeypatch.setattr(train, "write_shards", spied)
    monkeypatch.setattr("pipelines.warehouse.claims._RENEWED_S", 1000.0)
    assert chain.run("train", "--date", AS_OF, "--from-scratch")[0] == 0
    assert len(claims) == 1  # what is begun anew is held all the same
    version = Registry(chain.config).get(CHALLENGER)
    assert version is not None
    download = version.folder
    assert not download.is_relative_to(chain.folder.parent)
    del version
    assert not download.exists()  # it goes with the version
    assert _left(store) == []
    assert [key for key in store.keys if key.startswith("models/m2m_tiny/") and key.endswith("weights.safetensors")]


def test_3_the_rest_of_the_chain(chain: Deployment, store: ObjectStore) -> None:
    for stage, *arguments in (
        ("backtest", "--date", AS_OF),
        ("promote", "--date", AS_OF),
        ("score", "--date", AS_OF),
        ("monitor", "--date", AS_OF + timedelta(days=7)),
        ("restatements", "--date", AS_OF),
        ("show", "marts.forecast_quality"),
        ("status", "--date", AS_OF, "--days", 1),
        ("maintain", "--apply"),
        ("maintain", "--restore", "all"),
    ):
        status, said = chain.run(stage, *arguments)
        assert (stage, status) == (stage, 0), said
    assert set(chain.rows("marts.forecast_daily")["model_version"]) == {"1"}
    assert {"lightgbm_l1", "challenger"} <= set(chain.rows("marts.backtest")["forecaster"])
    assert chain.rows("marts.forecast_quality").height
    # What is on this disk: what says where the rest is, what was told of it, and pages for people.
    files = {path for path in chain.config.home.parent.rglob("*") if path.is_file() and "checks" not in path.parts}
    assert {path.name for path in files if path.suffix not in (".log", ".lock", ".ndjson")} == {
        "catalog.db",
        "mlflow.db",
    }


@pytest.mark.parametrize("stage", ["stage_sources", "score"])
def test_4_a_store_that_says_nothing_is_told_within_a_minute(
    chain: Deployment, store: ObjectStore, stage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = chain.rows("marts.forecast_daily"), chain.rows("staged.performance_daily")
    store.server.send_signal(signal.SIGSTOP)
    try:
        at = time.monotonic()
        status, _ = chain.run(stage, "--date", AS_OF)
        took = time.monotonic() - at
    finally:
        store.server.send_signal(signal.SIGCONT)
    said = capfd.readouterr().err
    with capfd.disabled():
        print(f"\n{stage}, a store that says nothing: told after {took:.1f} s")
    assert status == 1, said
    assert "failed, nothing was published" in said
    assert "a service does not answer" in said
    assert took < 60
    assert chain.rows("marts.forecast_daily").equals(before[0])
    assert chain.rows("staged.performance_daily").equals(before[1])
    assert chain.run(stage, "--date", AS_OF)[0] == 0
