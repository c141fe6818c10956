"""${NAME} in pipeline.toml: looked up when it is used, and never shown or stored."""

from __future__ import annotations

import pytest
from deployment import Deployment
from sqlalchemy import make_url

from pipelines.cli import exit_status
from pipelines.errors import ConfigError, DataError, plain
from pipelines.toml_tables import Text

WAREHOUSE = '[warehouse]\nuri = "postgresql://ads:${ADS_DB_PASSWORD}@db.example/ads"\n'


def test_a_value_is_looked_up_when_it_is_used(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment.toml.write_text(deployment.toml.read_text() + WAREHOUSE)
    config = deployment.config  # without the variable
    with pytest.raises(ConfigError, match=r"\[warehouse\] uri: the environment variable ADS_DB_PASSWORD is not set"):
        _ = config.catalog_properties
    monkeypatch.setenv("ADS_DB_PASSWORD", "first-secret")
    assert config.catalog_properties["uri"] == "postgresql://ads:first-secret@db.example/ads"
    monkeypatch.setenv("ADS_DB_PASSWORD", "second-secret")
    assert "second-secret" in config.catalog_properties["uri"]


@pytest.mark.parametrize(
    ("address", "password"),
    [
        ("postgresql://ads:${ADS_PASSWORD}@db.example/ads", "my@secret"),
        ("https://ads:${ADS_PASSWORD}@mlflow.example", "my/secret"),
        ("https://${ADS_USER}:${ADS_PASSWORD}@mlflow.example", "my#secret"),
    ],
)
def test_a_password_that_would_be_taken_for_the_host_is_refused(
    address: str, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADS_USER", "ads")
    monkeypatch.setenv("ADS_PASSWORD", password)
    with pytest.raises(ConfigError, match=r"uri: \$\{ADS_PASSWORD\} stands before the @ of an address") as told:
        Text(address, "[warehouse] uri").resolve()
    assert "secret" not in str(told.value)
    for char, code in (("@", "%40"), ("/", "%2F"), ("#", "%23")):
        password = password.replace(char, code)
    monkeypatch.setenv("ADS_PASSWORD", password)
    assert f":{password}@" in Text(address, "[warehouse] uri").resolve()


def test_what_ends_no_part_of_an_address_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADS_PASSWORD", "a:b/c?d#e%f'\"")
    text = "postgresql://ads:${ADS_PASSWORD}@db.example/ads"
    assert make_url(Text(text).resolve()).host == "db.example"
    monkeypatch.setenv("ADS_PASSWORD", "a@b")
    assert Text("${ADS_PASSWORD}").resolve() == "a@b"
    assert Text("s3://bucket/${ADS_PASSWORD}/x@y").resolve() == "s3://bucket/a@b/x@y"


def test_tracking_that_is_not_set_is_named(deployment: Deployment) -> None:
    deployment.toml.write_text(deployment.toml.read_text() + '[mlflow]\ntracking_uri = "${ADS_MLFLOW}"\n')
    with pytest.raises(ConfigError, match=r"\[mlflow\] tracking_uri: the environment variable ADS_MLFLOW is not set"):
        _ = deployment.config.mlflow_uri


def test_what_is_kept_and_printed_has_the_reference(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment.toml.write_text(deployment.toml.read_text() + WAREHOUSE)
    monkeypatch.setenv("ADS_DB_PASSWORD", "one-secret")
    config = deployment.config
    address, digest = config.catalog_properties["uri"], config.hash
    assert "one-secret" in address
    assert "one-secret" not in repr(config)
    monkeypatch.setenv("ADS_DB_PASSWORD", "other-secret")
    assert deployment.config.hash == digest
    assert plain(f"cannot connect to {address}") == (
        "cannot connect to postgresql://ads:${ADS_DB_PASSWORD}@db.example/ads"
    )


@pytest.mark.parametrize("error", [ConfigError, DataError])
def test_an_error_that_echoes_a_value_shows_the_reference(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADS_TOKEN", "s3cr3t\nvalue")
    token = Text("${ADS_TOKEN}", "[warehouse] token")

    def stage(argv: list[str] | None) -> int:
        raise error(f"the catalog refused {token.resolve()!s}")

    assert exit_status(stage) in (2, 3)
    said = capsys.readouterr().err
    assert "the catalog refused ${ADS_TOKEN}" in said
    assert "s3cr3t" not in said


def test_a_dollar_of_its_own() -> None:
    assert Text("$${HOME}/$5").resolve() == "${HOME}/$5"
    assert not Text("$${HOME}").refers


def test_names_are_looked_up_when_the_file_is_read(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment.edit('name = "tiny"', 'name = "tiny_${ADS_STAGE}"')
    monkeypatch.setenv("ADS_STAGE", "test")
    assert deployment.config.dataset.name == "tiny_test"
    assert deployment.config.home.name == "tiny_test"
    monkeypatch.setenv("ADS_STAGE", "../..")
    with pytest.raises(ConfigError, match=r"\[dataset\] name = 'tiny_\$\{ADS_STAGE\}': must be letters"):
        _ = deployment.config


@pytest.mark.spark
def test_a_source_and_a_session_get_the_values(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    last = deployment.write_days(deployment.config.dataset.first_day, 1)
    monkeypatch.setenv("ADS_RAW", str(deployment.folder / "raw"))
    deployment.edit('path = "raw/ds={ds}.parquet"', 'path = "${ADS_RAW}/ds={ds}.parquet"')
    assert deployment.run("stage_sources", "--date", last)[0] == 0
    (deployment.folder / "raw" / f"ds={last}.parquet").unlink()
    status, said = deployment.run("stage_sources", "--date", last)
    assert status == 3
    assert f"${{ADS_RAW}}/ds={last}.parquet" in said
