"""The tables into another catalog: every file stays where it is, and nobody has a table twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from deployment import FIRST_DAY, Deployment, day
from services import object_store, postgres, rest_catalog

from pipelines.stages import move_catalog
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.files import write_file

TABLE = "staged.performance_daily"


def write(warehouse: Warehouse, ds: date, who: str) -> None:
    schema = warehouse.arrow_schema(TABLE)
    row = {"ds": ds, "bucket": 0, "advertiser_id": who, "scenario_id": "s", "views": 1.0, "taps": 1.0, "spend": 1.0}
    rows = pl.DataFrame(row).cast({"bucket": pl.Int32})
    rows = rows.with_columns(pl.lit(None).alias(name) for name in schema.names if name not in row)
    file = write_file(rows, schema, warehouse.folder(TABLE, who), ds, 0)
    warehouse.commit(TABLE, [ds], [file], {"run-id": who})


@contextmanager
def catalog(kind: str, folder: Path) -> Iterator[str]:
    """What [warehouse] says of a new, empty one."""
    if kind == "rest":
        with object_store() as store, rest_catalog(folder, str(folder / "lake"), store) as address:
            yield f'type = "rest"\nuri = "{address}"'
    else:
        with postgres() as address:
            yield f'uri = "{address}/postgres"'


@pytest.fixture
def moved(deployment: Deployment) -> Deployment:
    """The same data set, of which the new pipeline.toml is still to be written."""
    write(deployment.warehouse, FIRST_DAY, "before")
    folder = deployment.folder.parent / "new"
    folder.mkdir()
    (folder / "performance_daily.sql").write_text((deployment.folder / "performance_daily.sql").read_text())
    return Deployment(folder, deployment.capture)


def say(moved: Deployment, deployment: Deployment, warehouse: str) -> None:
    moved.toml.write_text(f"{deployment.toml.read_text()}\n[warehouse]\n{warehouse}\n")


@pytest.mark.parametrize("kind", ["rest", "postgres"])
def test_tables_move_and_files_stay(deployment: Deployment, moved: Deployment, tmp_path: Path, kind: str) -> None:
    with catalog(kind, tmp_path) as warehouse:
        say(moved, deployment, warehouse)
        files = [file.path for file in deployment.warehouse.files(TABLE)]
        status, said = deployment.run("move_catalog", "--to", moved.toml, spark=False)
        assert (status, "1 tables would move" in said, moved.warehouse.exists(TABLE)) == (0, True, False), said
        status, said = deployment.run("move_catalog", "--to", moved.toml, "--apply", spark=False)
        assert (status, f"moved 1 tables; go on with {moved.toml}" in said) == (0, True), said
        assert [file.path for file in moved.warehouse.files(TABLE)] == files
        assert moved.warehouse.lineage(TABLE)[FIRST_DAY]["m2m.run-id"] == "before"
        write(moved.warehouse, day(1), "after")
        assert moved.rows(TABLE)["advertiser_id"].to_list() == ["before", "after"]
        assert not deployment.warehouse.exists(TABLE)
        status, said = deployment.run("move_catalog", "--to", moved.toml, "--apply", spark=False)
        assert (status, "nothing to move" in said) == (0, True), said


def test_a_move_that_was_stopped_goes_on(deployment: Deployment, moved: Deployment, tmp_path: Path) -> None:
    say(moved, deployment, f'uri = "sqlite:////{tmp_path}/new.db"')
    old, new = deployment.warehouse, moved.warehouse
    new.register(TABLE, old.metadata(TABLE) or "")
    assert deployment.run("move_catalog", "--to", moved.toml, "--apply", spark=False)[0] == 0
    assert (old.exists(TABLE), new.exists(TABLE)) == (False, True)


@pytest.mark.parametrize("how", ["another", "unreadable", "itself", "meanwhile"])
def test_nothing_is_lost_where_it_cannot_move(
    deployment: Deployment, moved: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    say(moved, deployment, f'uri = "sqlite:////{tmp_path}/new.db"\nwarehouse = "{tmp_path}/elsewhere"')
    old = deployment.warehouse
    if how == "another":
        write(moved.warehouse, FIRST_DAY, "another")
        words = "the new catalog has a table of that name"
    elif how == "unreadable":
        (manifests,) = (deployment.config.home / "warehouse").rglob("snap-*.avro")
        manifests.rename(tmp_path / "away")
        words = "cannot be read with what the new [warehouse] says"
    elif how == "itself":
        say(moved, deployment, f'uri = "sqlite:////{deployment.config.home}/catalog.db"')
        words = "both configurations name the same catalog"
    else:
        planned = move_catalog.plan

        def written_then(*warehouses: Warehouse) -> list[move_catalog.Move]:
            moves = planned(*warehouses)
            write(old, day(1), "meanwhile")
            return moves

        monkeypatch.setattr(move_catalog, "plan", written_then)
        words = "another process wrote to it"
    before = old.metadata(TABLE)
    status, said = deployment.run("move_catalog", "--to", moved.toml, "--apply", spark=False)
    assert (status, words in said) == (2, True), said
    assert old.exists(TABLE)
    if how != "meanwhile":
        assert old.metadata(TABLE) == before
    if how in ("meanwhile", "unreadable"):
        assert not moved.warehouse.exists(TABLE)
