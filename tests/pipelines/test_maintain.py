"""House-keeping removes what nothing needs, and nothing else."""

from __future__ import annotations

import time
from datetime import date, timedelta
from pathlib import Path

import pytest
from deployment import FIRST_DAY, Deployment, rows_of_day

from pipelines.stages.maintain import apply, plan
from pipelines.warehouse.files import read_files, write_file

pytestmark = pytest.mark.spark

STAGED, BUILT = "staged.performance_daily", "features.advertiser_sequence"
NIGHT = FIRST_DAY + timedelta(days=9)
LATER = timedelta(days=40).total_seconds()


@pytest.fixture
def restaged(deployment: Deployment) -> Deployment:
    """Ten days staged, sequences built; then the last day staged again, and again."""
    deployment.write_days(FIRST_DAY, 10)
    assert deployment.run("stage_sources", "--from", FIRST_DAY, "--to", NIGHT)[0] == 0
    assert deployment.run("build_sequences", "--date", NIGHT)[0] == 0
    for advertisers in (11, 10):
        deployment.write_day(NIGHT, rows_of_day(NIGHT, advertisers))
        assert deployment.run("stage_sources", "--date", NIGHT)[0] == 0
    return deployment


def files_of(deployment: Deployment) -> set[Path]:
    return {path for path in (deployment.config.home / "warehouse").rglob("*") if path.is_file()}


def snapshots(deployment: Deployment, table: str) -> list[int]:
    return [snapshot.snapshot_id for snapshot in deployment.warehouse.table(table).snapshots()]


def test_a_dry_run_says_what_would_go_and_removes_nothing(restaged: Deployment) -> None:
    before = files_of(restaged)
    status, said = restaged.run("maintain")
    assert status == 0
    assert "snapshots: 3 kept, 0 to expire; files that nothing refers to: 0" in said
    assert "nothing was removed" in said
    assert files_of(restaged) == before


def test_what_a_kept_run_read_is_kept_and_the_rest_goes(restaged: Deployment) -> None:
    first, second, third = snapshots(restaged, STAGED)
    now = time.time() + LATER
    warehouse, before = restaged.warehouse, restaged.rows(STAGED)
    found = {p.table: p for p in plan(warehouse, {}, now)}
    # The sequences were made from the first; the second was read by nobody; the third is what readers see.
    assert found[STAGED].kept == {first, third}
    assert found[STAGED].expired == [second]
    assert all("run=stage_sources" in info.path or "/metadata/" in info.path for info in found[STAGED].orphans)
    apply(warehouse, list(found.values()), now)
    assert snapshots(restaged, STAGED) == [first, third]
    assert restaged.rows(STAGED).equals(before)
    then = warehouse.files(STAGED, NIGHT, NIGHT, snapshot_id=first)
    assert read_files(then, warehouse.arrow_schema(STAGED))["advertiser_id"].n_unique() == 10
    again = {p.table: p for p in plan(restaged.warehouse, {}, now)}
    assert [p.expired + p.orphans for p in again.values()] == [[]] * len(again)
    assert restaged.run("stage_sources", "--date", NIGHT)[0] == 0


def test_a_pinned_snapshot_stays(restaged: Deployment) -> None:
    second = snapshots(restaged, STAGED)[1]
    found = {p.table: p for p in plan(restaged.warehouse, {STAGED: {second}}, time.time() + LATER)}
    assert found[STAGED].expired == []


def test_files_of_a_dead_run_go_when_they_are_old(restaged: Deployment) -> None:
    warehouse = restaged.warehouse
    rows = restaged.rows(STAGED).filter(ds=NIGHT, bucket=0)
    left = write_file(rows, warehouse.arrow_schema(STAGED), warehouse.folder(STAGED, "dead"), NIGHT, 0)
    path = Path(left.path.removeprefix("file://"))
    apply(warehouse, plan(warehouse, {}, time.time()), time.time())
    assert path.exists()
    now = time.time() + timedelta(hours=25).total_seconds()
    apply(warehouse, plan(warehouse, {}, now), now)
    assert not path.exists()
    assert not path.parents[1].exists()


def test_a_run_that_has_not_committed_yet_survives(restaged: Deployment) -> None:
    warehouse, day = restaged.warehouse, date(2024, 1, 11)
    rows = restaged.rows(STAGED).filter(ds=NIGHT, bucket=0).with_columns(ds=day)
    written = write_file(rows, warehouse.arrow_schema(STAGED), warehouse.folder(STAGED, "slow"), day, 0)
    assert restaged.run("maintain", "--apply")[0] == 0
    warehouse.commit(STAGED, [day], [written], {"run-id": "slow"})
    assert restaged.rows(STAGED).filter(ds=day).height == rows.height


def test_a_kill_between_expiry_and_removal_leaves_only_files(
    restaged: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, before = time.time() + LATER, restaged.rows(STAGED)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    plans = plan(restaged.warehouse, {}, now)
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.stages.maintain.orphans", killed)
        with pytest.raises(KeyboardInterrupt):
            apply(restaged.warehouse, plans, now)
    assert restaged.rows(STAGED).equals(before)
    apply(restaged.warehouse, plan(restaged.warehouse, {}, now), now)
    assert restaged.rows(STAGED).equals(before)
    assert not any(p.expired or p.orphans for p in plan(restaged.warehouse, {}, now))
