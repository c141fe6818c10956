"""Files by URI: on disk and in an S3 server, whose address and keys stand in the catalog's properties alone."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from deployment import FIRST_DAY, Deployment, day
from services import ObjectStore, object_store, postgres, rest_catalog

from m2m_model.files import LocalFiles
from m2m_model.training import checkpoint
from pipelines.errors import ConfigError, DataError
from pipelines.stages.maintain import orphans
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.files import lost, read_files, write_file
from pipelines.warehouse.pins import on_day
from pipelines.warehouse.store import Folder, Packed, Store

TABLE = "staged.performance_daily"


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as store:
        yield store


@pytest.fixture(autouse=True)
def nothing_ambient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes address or keys from the environment instead of the properties finds nobody there."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ambient")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ambient")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(params=["disk", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, store: ObjectStore) -> Folder:
    if request.param == "disk":
        return Folder(str(tmp_path / "x y#z"))
    return Folder(f"s3://m2m/{tmp_path.name}", Store.of(store.properties))


def test_a_folder_is_the_same_wherever_it_is(folder: Folder) -> None:
    assert folder.names() == folder.folders() == []
    assert folder.newest() == 0
    folder.write("b", b"first")
    folder.write("b", b"second")
    (folder / "inner").write("a", b"deep")
    assert (folder.read("b"), folder.names(), [inner.name for inner in folder.folders()]) == (
        b"second",
        ["b"],
        ["inner"],
    )
    assert folder.newest() > 1e9
    (folder / "inner" / "most").write("c", b"c")
    assert folder.sizes() == {"inner": 5}
    (folder / "inner" / "most").remove()
    with pytest.raises(FileNotFoundError):
        folder.read("none")
    with pickle.loads(pickle.dumps(folder)).at_hand() as place:
        assert {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()} == {
            "b": b"second",
            "inner/a": b"deep",
        }
    with (folder / "filled").filling() as place:
        (place / "sub").mkdir()
        (place / "sub" / "c").write_bytes(b"c")
    assert (folder / "filled" / "sub").read("c") == b"c"
    folder.delete("b")
    assert folder.names() == []
    folder.remove()
    assert folder.names() == folder.folders() == []
    folder.remove()  # what is gone may go again


def test_checkpoints_are_the_same_on_disk_and_in_a_store(folder: Folder, tmp_path: Path) -> None:
    assert checkpoint.newest(folder) is None
    for step in (1, 2, 10):
        for files in (folder, LocalFiles(tmp_path / "local")):
            checkpoint.write(files, step, {"step": step})
    assert folder.names() == LocalFiles(tmp_path / "local").names() == ["step-00000002.pt", "step-00000010.pt"]
    folder.write("step-00000010.pt", folder.read("step-00000010.pt")[:20])
    assert checkpoint.newest(folder) == {"step": 2}
    checkpoint.clear(folder)
    assert folder.names() == []


def test_a_copy_is_shared_by_the_processes_of_a_machine_and_goes_with_the_last(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = Folder("s3://m2m/shared", Store.of(store.properties))
    folder.write("a", b"a")
    other = (
        "import pickle, sys; folder = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "with folder.at_hand() as place: print(place, (place / 'a').read_text(), flush=True)"
    )

    def in_a_process() -> str:
        command = [sys.executable, "-c", other, pickle.dumps(folder).hex()]
        environment = {"TMPDIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    with folder.at_hand() as place:
        (place / "a").write_text("not fetched twice")
        assert in_a_process() == f"{place} not fetched twice"
        assert place.exists()  # it was not the last
    assert place.name == "shared"  # MLflow keeps the name of what it is given
    assert not place.parent.exists()
    place.mkdir(parents=True)  # as a killed process leaves it
    (place / "a").write_text("taken up")
    with folder.at_hand() as again:
        assert (again, (again / "a").read_text()) == (place, "taken up")
    folder.write("a", b"another")
    with folder.at_hand() as changed:
        assert (changed != place, (changed / "a").read_bytes()) == (True, b"another")
    assert [*changed.parents[1].iterdir()] == []  # no lock either


def test_many_processes_that_come_and_go_find_a_whole_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Folder, "local", None)  # as if it were elsewhere
    (tmp_path / "far").mkdir()
    for name in range(8):
        (tmp_path / "far" / str(name)).write_bytes(bytes([name]) * 50_000)

    def come_and_go() -> None:
        for _ in range(40):
            with Folder(str(tmp_path / "far")).at_hand() as place:
                for name in range(8):
                    assert (place / str(name)).read_bytes() == bytes([name]) * 50_000

    processes = [multiprocessing.get_context("fork").Process(target=come_and_go) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 6
    assert [*(tmp_path / f"m2m-copies-{os.getuid()}").iterdir()] == []


def test_a_copy_that_is_cut_short_does_not_stay(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = Folder("s3://m2m/cut", Store.of(store.properties))
    folder.write("a", bytes(200_000))
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, most))  # what no disk has room for
    try:
        with pytest.raises(OSError, match="File too large"), folder.at_hand():
            pytest.fail("it fits")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    assert [path.suffix for path in (tmp_path / f"m2m-copies-{os.getuid()}").iterdir()] == [".lock"]


def test_copies_are_not_kept_in_another_users_folder(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = Folder("s3://m2m/taken", Store.of(store.properties))
    folder.write("a", b"a")
    uid = os.getuid() + 1
    (tmp_path / f"m2m-copies-{uid}").mkdir()  # in a shared /tmp anybody may be first
    monkeypatch.setattr(os, "getuid", lambda: uid)
    with pytest.raises(ConfigError, match=f"m2m-copies-{uid} is another user's"), folder.at_hand():
        pytest.fail("it is used")


def test_a_model_travels_as_a_value(tmp_path: Path) -> None:
    (tmp_path / "model" / "deep").mkdir(parents=True)
    (tmp_path / "model" / "a").write_bytes(b"a")
    (tmp_path / "model" / "deep" / "b").write_bytes(b"b")
    packed = pickle.loads(pickle.dumps(Packed.of(tmp_path / "model")))
    with packed.unpacked() as folder:
        assert Packed.of(folder) == packed
        assert (folder / "deep" / "b").read_bytes() == b"b"
    assert not folder.exists()
    (tmp_path / "model" / "a").write_bytes(b"other")
    assert Packed.of(tmp_path / "model") != packed


def test_what_travels_opens_files_and_nothing_else() -> None:
    given = {"s3.secret-access-key": "for files", "uri": "postgresql://m2m:secret@host/db", "token": "of the catalog"}
    assert Store.of(given).properties == (("s3.secret-access-key", "for files"),)
    assert "for files" not in repr(Store.of(given))


def test_an_address_that_nothing_opens_is_refused_by_name(deployment: Deployment) -> None:
    with pytest.raises(ConfigError, match="gopher://x/y"):
        Store().read("gopher://x/y")
    for key, table in (("scratch", "storage"), ("artifacts", "mlflow")):
        text = deployment.toml.read_text()
        deployment.toml.write_text(f'{text}\n[{table}]\n{key} = "somewhere/relative"\n')
        with pytest.raises(ConfigError, match=f"{key}: expected an absolute path, or an address"):
            _ = deployment.config
        deployment.toml.write_text(text)


def rows_of(warehouse: Warehouse, ds: date) -> pl.DataFrame:
    row = {"ds": ds, "bucket": 0, "advertiser_id": "a", "scenario_id": "s", "views": 1.0, "taps": 1.0, "spend": 1.0}
    rows = pl.DataFrame(row).cast({"bucket": pl.Int32})
    return rows.with_columns(
        pl.lit(None).alias(name) for name in warehouse.arrow_schema(TABLE).names if name not in row
    )


def places(warehouse: Warehouse, run: str) -> tuple[pa.Schema, Folder]:
    return warehouse.arrow_schema(TABLE), warehouse.folder(TABLE, run)


def exercise(warehouse: Warehouse, store: ObjectStore) -> None:
    """Write, read, lose and clean up, with all that a stage asks of the warehouse's files."""
    rows, (schema, folder) = rows_of(warehouse, FIRST_DAY), places(warehouse, "one")
    first = write_file(rows, schema, folder, FIRST_DAY, 0)
    warehouse.commit(TABLE, [FIRST_DAY], [first], {"run-id": "one"})
    (found,) = pickle.loads(pickle.dumps(warehouse.files(TABLE, FIRST_DAY)))  # as a worker gets it
    assert found.path.startswith("s3://m2m/")
    assert read_files([found, found], schema).height == 2
    assert warehouse.scan(TABLE, on_day(FIRST_DAY))["advertiser_id"].to_list() == ["a"]
    left = write_file(rows, *places(warehouse, "dead"), FIRST_DAY, 0)
    table = warehouse.pin(TABLE).table
    kept = {snapshot.snapshot_id for snapshot in table.snapshots()}
    spare = [f"s3://{info.path}" for info in orphans(table, kept, 1e12)]
    assert left.path in spare
    assert ({file.path for file in warehouse.files(TABLE)} | {table.metadata_location}) & {*spare} == set()
    store.client.delete_object(Bucket="m2m", Key=found.path.removeprefix("s3://m2m/"))
    assert lost([found]) == {found.path}
    with pytest.raises(DataError, match="is gone"):
        read_files([found], schema)


def test_a_warehouse_in_a_store_is_opened_by_its_own_properties(
    deployment: Deployment, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_SECRET", store.secret_key)
    deployment.toml.write_text(
        f'{deployment.toml.read_text()}\n[warehouse]\nwarehouse = "s3://m2m/sql"\n"s3.endpoint" = "{store.endpoint}"\n'
        f'"s3.region" = "{store.region}"\n"s3.access-key-id" = "{store.access_key}"\n'
        '"s3.secret-access-key" = "${TINY_SECRET}"\n'
    )
    exercise(deployment.warehouse, store)


def test_a_rest_catalog_hands_out_what_opens_its_files(
    deployment: Deployment, store: ObjectStore, tmp_path: Path
) -> None:
    with rest_catalog(tmp_path, "s3://m2m/rest", store) as address:
        deployment.toml.write_text(f'{deployment.toml.read_text()}\n[warehouse]\ntype = "rest"\nuri = "{address}"\n')
        exercise(deployment.warehouse, store)


def test_a_catalog_in_postgresql(deployment: Deployment, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_SECRET", store.secret_key)
    with postgres() as address:
        deployment.toml.write_text(
            f'{deployment.toml.read_text()}\n[warehouse]\nuri = "{address}/postgres"\nwarehouse = "s3://m2m/pg"\n'
            f'"s3.endpoint" = "{store.endpoint}"\n"s3.region" = "{store.region}"\n'
            f'"s3.access-key-id" = "{store.access_key}"\n"s3.secret-access-key" = "${{TINY_SECRET}}"\n'
        )

        def write(number: int) -> None:
            warehouse = deployment.warehouse  # the first of them makes the catalog's tables
            file = write_file(rows_of(warehouse, day(number)), *places(warehouse, f"run{number}"), day(number), 0)
            warehouse.commit(TABLE, [day(number)], [file], {"run-id": f"run{number}"})

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(write, range(1, 5)))
        assert list(deployment.warehouse.days(TABLE)) == [day(number) for number in range(1, 5)]
        exercise(deployment.warehouse, store)
