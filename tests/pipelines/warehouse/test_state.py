"""State that is shared, copied, moved, damaged or made by several at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from deployment import FIRST_DAY, SQL, TOML, Deployment

from pipelines.errors import ConfigError, DataError
from pipelines.stages.maintain import apply, plan
from pipelines.warehouse.files import write_file

ROOT = Path(__file__).resolve().parents[3]
TABLE = "staged.performance_daily"
LATER_S = timedelta(days=99).total_seconds()


def commit(deployment: Deployment, spend: float, run: str = "one") -> int:
    rows = pl.DataFrame(
        {"ds": [FIRST_DAY], "bucket": [0], "advertiser_id": ["a"], "scenario_id": ["search"]}
        | {"views": [2.0], "taps": [1.0], "spend": [spend]},
        schema_overrides={"bucket": pl.Int32},
    )
    warehouse = deployment.warehouse
    file = write_file(rows, warehouse.arrow_schema(TABLE), warehouse.folder(TABLE, run), FIRST_DAY, 0)
    return warehouse.commit(TABLE, [FIRST_DAY], [file], {"run-id": run})


def spend(deployment: Deployment) -> float:
    return float(deployment.rows(TABLE)["spend"].sum())


def house_keeping(deployment: Deployment) -> None:
    now = time.time() + LATER_S
    apply(deployment.warehouse, plan(deployment.warehouse, {}, now), now)


@pytest.fixture
def another(tmp_path: Path) -> Callable[[str, str], Deployment]:
    """Makes a deployment of a data set of some name, with more text in its configuration."""

    def make(name: str, more: str) -> Deployment:
        folder = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "pipeline.toml").write_text(TOML.replace('name = "tiny"', f'name = "{name}"') + more)
        (folder / "performance_daily.sql").write_text(SQL)
        return Deployment(folder, str)

    return make


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """One SQL catalog and one folder for all."""
    monkeypatch.setenv("M2M_HOME", str(tmp_path / "home"))
    return f'\n[warehouse]\nuri = "sqlite:///{tmp_path}/shared.db"\nwarehouse = "{tmp_path}/tables"\n'


def test_data_sets_share_a_catalog_and_a_folder(another: Callable[[str, str], Deployment], shared: str) -> None:
    one, other = another("one", shared), another("other", shared)
    commit(one, 1.0)
    commit(other, 2.0)
    commit(one, 3.0, "again")
    assert (spend(one), spend(other)) == (3.0, 2.0)
    house_keeping(one)
    assert (spend(one), spend(other)) == (3.0, 2.0)
    assert len(other.warehouse.table(TABLE).snapshots()) == 1
    names = {deployment.warehouse.table(TABLE).name() for deployment in (one, other)}
    assert names == {("one_staged", "performance_daily"), ("other_staged", "performance_daily")}


def test_a_folder_that_another_catalog_uses_is_refused_and_left_as_it_is(
    another: Callable[[str, str], Deployment], shared: str
) -> None:
    one, twin = another("one", shared), another("one", shared.replace("shared.db", "second.db"))
    commit(one, 1.0)
    folder = Path(one.warehouse.table(TABLE).location())
    before = sorted(folder.rglob("*"))
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"holds another table already.*namespace_prefix"):
            commit(twin, 2.0)
    assert sorted(folder.rglob("*")) == before
    mine = another("one", shared.replace("shared.db", "second.db") + 'namespace_prefix = "mine_"\n')
    commit(mine, 2.0)
    house_keeping(mine)
    assert (spend(one), spend(mine)) == (1.0, 2.0)


def test_house_keeping_refuses_a_folder_of_two_tables(another: Callable[[str, str], Deployment], shared: str) -> None:
    """As two data sets of version 0.1 had it, whose tables had the same name."""
    one = another("one", shared + 'namespace_prefix = ""\n')
    other = another("other", shared + 'namespace_prefix = "other_"\n')
    commit(one, 1.0)
    commit(other, 2.0)
    mine, theirs = (Path(deployment.warehouse.table(TABLE).location()) for deployment in (one, other))
    shutil.copytree(theirs, mine, dirs_exist_ok=True)
    before = sorted(mine.rglob("*"))
    with pytest.raises(ConfigError, match=r"is another table's folder as well.*Nothing was removed"):
        house_keeping(one)
    assert sorted(mine.rglob("*")) == before


def test_tables_of_version_0_1_are_named_and_can_be_gone_on_with(
    another: Callable[[str, str], Deployment], shared: str
) -> None:
    old, new = another("one", shared + 'namespace_prefix = ""\n'), another("one", shared)
    commit(old, 1.0)
    with pytest.raises(ConfigError, match=r'version 0\.1.*namespace_prefix = "".*namespace_prefix = "one_"'):
        new.warehouse.table(TABLE)
    assert spend(old) == 1.0
    beside = another("one", shared + 'namespace_prefix = "one_"\n')
    commit(beside, 2.0)
    assert (spend(old), spend(beside)) == (1.0, 2.0)


@pytest.mark.slow
def test_two_writers_of_a_day_that_was_empty(deployment: Deployment) -> None:
    for attempt in range(8):
        deployment.warehouse.commit(TABLE, [FIRST_DAY], [], {"run-id": f"empty-{attempt}"})
        assert deployment.warehouse.days(TABLE) == {FIRST_DAY: 0}
        start, errors = threading.Barrier(2), list[Exception]()

        def write(run: str, start: threading.Barrier = start, errors: list[Exception] = errors) -> None:
            start.wait()
            try:
                commit(deployment, 1.0, run)
            except Exception as error:  # noqa: BLE001 - seen by the assertion below
                errors.append(error)

        writers = [threading.Thread(target=write, args=(f"{name}-{attempt}",)) for name in "ab"]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert errors == []
        assert deployment.warehouse.days(TABLE) == {FIRST_DAY: 1}


FIRST_OF_SEVERAL = """
import sys, time
from pipelines.config import load_config
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.tables import DECLARATIONS
config = load_config(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
warehouse = Warehouse(config)
for name in DECLARATIONS:
    warehouse.table(name)
"""


@pytest.mark.slow
def test_several_processes_begin_an_empty_home(deployment: Deployment) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FIRST_OF_SEVERAL, str(deployment.toml)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    commit(deployment, 1.0)
    house_keeping(deployment)  # what the slower ones left is nobody's
    assert spend(deployment) == 1.0


def metadata(deployment: Deployment) -> Path:
    return Path(deployment.warehouse.metadata_locations(TABLE)[0])


@pytest.mark.parametrize("damage", ["cut", "empty", "gone"])
def test_lost_metadata_is_named_and_the_state_before_it_taken_back(deployment: Deployment, damage: str) -> None:
    commit(deployment, 1.0)
    before = deployment.warehouse.snapshot_id(TABLE)
    commit(deployment, 2.0, "two")
    path = metadata(deployment)
    path.unlink() if damage == "gone" else path.write_bytes(b"" if damage == "empty" else path.read_bytes()[:-300])
    with pytest.raises(DataError, match=rf"{TABLE}: its metadata file is .*{path}.*--restore {TABLE}"):
        deployment.warehouse.days(TABLE)
    status, said = deployment.run("maintain", "--restore", TABLE, spark=False)
    assert status == 0, said
    assert f"restored to {path.parent}" in said
    assert (spend(deployment), deployment.warehouse.snapshot_id(TABLE)) == (1.0, before)
    commit(deployment, 3.0, "three")
    assert spend(deployment) == 3.0
    assert "nothing to restore" in deployment.run("maintain", "--restore", TABLE, spark=False)[1]


@pytest.mark.parametrize("what", ["snap-*.avro", "*-m0.avro"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_lost_manifest_is_named_and_the_state_before_it_taken_back(
    deployment: Deployment, what: str, damage: str
) -> None:
    commit(deployment, 1.0)
    known = set(metadata(deployment).parent.glob(what))
    commit(deployment, 2.0, "two")
    for path in set(metadata(deployment).parent.glob(what)) - known:
        path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=rf"{TABLE}: .*snapshot.* cannot be read"):
        deployment.warehouse.days(TABLE)
    assert deployment.run("maintain", "--restore", TABLE, spark=False)[0] == 0
    assert spend(deployment) == 1.0


@pytest.mark.parametrize("written_since", [False, True])
def test_a_lost_catalog_is_not_written_over_and_taken_back_whole(deployment: Deployment, written_since: bool) -> None:
    commit(deployment, 1.0)
    commit(deployment, 2.0, "two")
    (deployment.config.home / "catalog.db").unlink()
    status, said = deployment.run("status", "--date", FIRST_DAY, spark=False)
    assert (status, "catalog.db is gone, and the tables are there" in said) == (2, True), said
    if written_since:
        with pytest.raises(ConfigError, match=r"a catalog that is lost.*--restore"):
            commit(deployment, 3.0, "three")
    status, said = deployment.run("maintain", "--restore", "all", spark=False)
    assert status == 0, said
    assert spend(deployment) == 2.0
    assert "marts.backtest: was never written" in said


def test_a_table_of_which_nothing_can_be_read_is_made_anew(deployment: Deployment) -> None:
    commit(deployment, 1.0)
    for path in metadata(deployment).parent.glob("*.json"):
        path.write_bytes(b"{")
    status, said = deployment.run("maintain", "--restore", TABLE, spark=False)
    assert (status, "or remove the table's, run this again" in said) == (3, True), said
    shutil.rmtree(metadata(deployment).parents[1])
    status, said = deployment.run("maintain", "--restore", TABLE, spark=False)
    assert (status, "the catalog has forgotten it: load it anew" in said) == (0, True), said
    commit(deployment, 2.0, "two")
    assert spend(deployment) == 2.0


def test_a_home_that_was_moved_or_copied_is_refused_until_it_has_a_link(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commit(deployment, 1.0)
    old, new = tmp_path / "home", tmp_path / "new home"
    shutil.copytree(old, new)
    monkeypatch.setenv("M2M_HOME", str(new))
    before = sorted(old.rglob("*"))
    for change in (lambda: None, lambda: shutil.rmtree(old)):
        change()
        with pytest.raises(ConfigError, match=rf"its files are in {old}/tiny, not in {new}/tiny.*ln -s"):
            commit(deployment, 2.0, "two")
        assert sorted(old.rglob("*")) in (before, [])
    old.mkdir()
    (old / "tiny").symlink_to(new / "tiny")
    commit(deployment, 2.0, "two")
    assert spend(deployment) == 2.0
