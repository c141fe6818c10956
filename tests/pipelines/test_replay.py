"""What a replay compares, and the configurations that it finds again; whole days are replayed in test_chain.py."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from deployment import Deployment

from pipelines.errors import ConfigError, DataError
from pipelines.kernels.replayed import ADDED, COMPARED, MISSING, TWICE, compared
from pipelines.warehouse.configurations import differing, keep, kept
from pipelines.warehouse.store import Folder

MADE = pl.DataFrame(
    {
        "advertiser_id": ["a", "b", "c"],
        "scenario_id": ["search"] * 3,
        "task": ["spend"] * 3,
        "horizon_days": [7] * 3,
        "mean": [1.0, None, float("nan")],
        "method": ["m2m", None, "silent"],
    }
)


def test_what_is_equal_is_equal_to_the_last_bit_nulls_and_nan_too() -> None:
    assert list(compared(MADE[::-1], MADE)) == [(COMPARED, 3, 0, None, None)]


def test_a_last_bit_is_near_and_all_else_is_counted_with_the_largest_as_example() -> None:
    published = MADE.with_columns(
        mean=pl.Series([1.0 + 2**-52, 5.0, float("nan")]), method=pl.Series(["m2m", "m2m", "silent"])
    )
    near, (column, far, _, largest, example), (method, rows, *_) = list(compared(published, MADE))
    assert near == (COMPARED, 3, 0, None, None)
    assert (column, far, largest) == ("mean", 1, float("inf"))
    assert example == "(b, search, spend, 7 days): published 5.0, again None"
    assert (method, rows) == ("method", 1)
    (_, (_, far, near_by, largest, _)) = list(compared(published.head(1), MADE.head(1)))
    assert (far, near_by, largest) == (0, 1, 2**-52 / (1 + 2**-52))


def test_rows_too_many_too_few_and_twice() -> None:
    published = pl.concat([MADE.head(1), MADE.head(1), MADE.head(1).with_columns(task=pl.lit("clicks"))])
    found = {what: (rows, example) for what, rows, _, _, example in compared(published, MADE)}
    assert found[MISSING] == (2, "(b, search, spend, 7 days)")
    assert found[ADDED] == (1, "(a, search, clicks, 7 days)")
    assert found[TWICE] == (2, "(a, search, spend, 7 days)")
    assert found[COMPARED] == (1, None)


def test_a_kept_configuration_is_found_by_its_hash_and_differs_by_name(deployment: Deployment) -> None:
    then, folder = deployment.config, Folder(str(deployment.folder / "kept"))
    digest = then.hash
    keep(then, folder)
    keep(then, folder)
    assert folder.names() == [f"{digest}.json"]
    deployment.edit("[backtest]\ncutoffs = 2", '[backtest]\ncutoffs = 3\n\n[[behavior]]\nname = "visits"')
    deployment.edit(
        'performance_daily = "performance_daily.sql"',
        'performance_daily = "performance_daily.sql"\nbehavior_daily = "behavior.sql"',
    )
    (deployment.folder / "behavior.sql").write_text("select 1")
    (deployment.folder / "performance_daily.sql").write_text("select 2")
    now = replace(deployment.config, home=deployment.folder / "elsewhere")
    with kept(folder, digest, now) as found:
        assert replace(found, path=then.path, home=then.home) == then
        assert found.home == now.home
        assert found.hash == digest
        said = differing(found, now)
    assert "[backtest] cutoffs (2, now 3)" in said
    assert "[[behavior]] visits (not there, now there)" in said
    assert "[[behavior]] visits name" not in said
    assert said.endswith("performance_daily.sql, behavior.sql")


def test_layout_is_no_setting_and_a_secret_is_not_shown(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "not-to-be-seen")
    then, folder = deployment.config, Folder(str(deployment.folder / "kept"))
    keep(then, folder)
    deployment.edit("[history]", "# why so\n[history]")
    with kept(folder, folder.names()[0].removesuffix(".json"), deployment.config) as found:
        assert differing(found, deployment.config) == "comments or layout alone"
    deployment.edit("[history]", '[warehouse]\n"s3.secret-access-key" = "${TOKEN}"\n\n[history]')
    keep(deployment.config, folder)
    assert not [name for name in folder.names() if b"not-to-be-seen" in folder.read(name)]
    assert "not-to-be-seen" not in differing(then, deployment.config)


def test_a_configuration_that_is_not_kept_or_was_changed_is_not_taken(deployment: Deployment) -> None:
    config, folder = deployment.config, Folder(str(deployment.folder / "kept"))
    with pytest.raises(FileNotFoundError), kept(folder, config.hash, config):
        pass
    keep(config, folder)
    name = f"{config.hash}.json"
    folder.write(name, folder.read(name).replace(b"cutoffs = 2", b"cutoffs = 3"))
    with pytest.raises(DataError, match="was changed"), kept(folder, config.hash, config):
        pass


def test_a_configuration_that_this_code_cannot_read_says_why(deployment: Deployment) -> None:
    folder, toml = Folder(str(deployment.folder / "kept")), deployment.toml.read_text()
    config = deployment.config
    deployment.toml.write_text(toml.replace("[history]", "[history]\nof_another_version = 1"))
    digest = config.hash  # of the file as it is now
    keep(config, folder)
    deployment.toml.write_text(toml)
    with pytest.raises(ConfigError, match="of_another_version"), kept(folder, digest, deployment.config):
        pass
