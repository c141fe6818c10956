"""The commit protocol, and the contract of the PyIceberg calls that are not its public API."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deployment import FIRST_DAY, Deployment
from pyiceberg.exceptions import CommitFailedException

from pipelines.errors import ConfigError, DataError
from pipelines.warehouse.commits import BUCKETS, Warehouse
from pipelines.warehouse.files import DataFile, read_files, write_file
from pipelines.warehouse.pins import on_day
from pipelines.warehouse.tables import DECLARATIONS, Table, declared

TABLE = "staged.performance_daily"
DAYS = [FIRST_DAY + timedelta(days=i) for i in range(4)]


def _rows(ds: date, spend: float, bucket: int = 0) -> pl.DataFrame:
    names = ["a", "b"]
    return pl.DataFrame(
        {
            "ds": [ds] * 2,
            "bucket": [bucket] * 2,
            "advertiser_id": names,
            "scenario_id": ["search"] * 2,
            "views": [2.0, 3.0],
            "taps": [1.0, 0.0],
            "spend": [spend, 0.0],
        },
        schema_overrides={"bucket": pl.Int32},
    )


def _write(warehouse: Warehouse, run: str, ds: date, spend: float) -> DataFile:
    return write_file(_rows(ds, spend), warehouse.arrow_schema(TABLE), warehouse.folder(TABLE, run), ds, 0)


def _commit(warehouse: Warehouse, run: str, days: list[date], spend: float) -> int:
    files = [_write(warehouse, run, ds, spend) for ds in days]
    return warehouse.commit(TABLE, days, files, {"run-id": run, "stage": "test"})


def test_a_commit_replaces_its_days_in_one_snapshot_and_no_other(deployment: Deployment) -> None:
    warehouse = deployment.warehouse
    _commit(warehouse, "one", DAYS[:3], 1.0)
    before = len(warehouse.table(TABLE).snapshots())
    _commit(warehouse, "two", DAYS[1:2], 9.0)
    assert len(warehouse.table(TABLE).snapshots()) == before + 1
    spend = {ds: float(part["spend"].sum()) for (ds,), part in deployment.rows(TABLE).group_by("ds")}
    assert spend == {DAYS[0]: 1.0, DAYS[1]: 9.0, DAYS[2]: 1.0}


def test_time_travel_by_run_and_lineage_in_the_snapshot(deployment: Deployment) -> None:
    warehouse = deployment.warehouse
    _commit(warehouse, "one", DAYS[:2], 1.0)
    _commit(warehouse, "two", DAYS[:1], 9.0)
    old = warehouse.scan(TABLE, on_day(DAYS[0]), snapshot_id=warehouse.snapshot_named(TABLE, "one"))
    assert old["spend"].sum() == 1.0
    # No snapshot on the way shows the day missing.
    counts = [
        warehouse.scan(TABLE, on_day(DAYS[0]), snapshot_id=snapshot.snapshot_id).height
        for snapshot in warehouse.table(TABLE).snapshots()
    ]
    assert counts == [2, 2]
    summary = warehouse.table(TABLE).current_snapshot().summary
    assert summary.additional_properties["m2m.stage"] == "test"
    with pytest.raises(ConfigError, match="no snapshot of run three"):
        warehouse.snapshot_named(TABLE, "three")


def test_lineage_of_a_day_survives_the_expiry_of_commits_between(deployment: Deployment) -> None:
    warehouse = deployment.warehouse
    first = _commit(warehouse, "one", DAYS[:2], 1.0)
    middle = _commit(warehouse, "two", DAYS[2:3], 1.0)
    _commit(warehouse, "three", DAYS[:1], 9.0)
    warehouse.table(TABLE).maintenance.expire_snapshots().by_ids([middle]).commit()
    by_day = {ds: properties["m2m.run-id"] for ds, properties in warehouse.lineage(TABLE).items()}
    assert by_day == {DAYS[0]: "three", DAYS[1]: "one"}
    assert {properties["m2m.run-id"] for properties in warehouse.lineage(TABLE, first).values()} == {"one"}


def test_an_empty_day_is_told_from_a_day_never_written(deployment: Deployment) -> None:
    warehouse = deployment.warehouse
    files = [_write(warehouse, "one", DAYS[0], 1.0)]
    warehouse.commit(TABLE, DAYS[:2], files, {"run-id": "one"})
    assert warehouse.days(TABLE) == {DAYS[0]: 2, DAYS[1]: 0}
    _commit(warehouse, "two", [DAYS[1]], 5.0)
    assert warehouse.days(TABLE) == {DAYS[0]: 2, DAYS[1]: 2}
    warehouse.commit(TABLE, DAYS[:1], [], {"run-id": "three"})
    assert warehouse.days(TABLE) == {DAYS[0]: 0, DAYS[1]: 2}


def test_a_file_of_another_partition_is_refused(deployment: Deployment) -> None:
    warehouse = deployment.warehouse
    wrong = write_file(_rows(DAYS[1], 1.0), warehouse.arrow_schema(TABLE), warehouse.folder(TABLE, "one"), DAYS[0], 0)
    with pytest.raises(DataError, match=r"holds partition .*2024, 1, 2.* expected \(2024-01-01, 0\)"):
        warehouse.commit(TABLE, DAYS[:1], [wrong], {"run-id": "one"})
    assert warehouse.days(TABLE) == {}


def test_a_file_that_a_worker_wrote_elsewhere_is_refused_by_name(deployment: Deployment) -> None:
    warehouse = deployment.warehouse
    file = _write(warehouse, "one", DAYS[0], 1.0)
    Path(file.path.removeprefix("file://")).unlink()
    with pytest.raises(ConfigError, match=r"2024-01-01: .* was just written and is not there: .*\[warehouse\]"):
        warehouse.commit(TABLE, DAYS[:1], [file], {"run-id": "one"})
    assert warehouse.days(TABLE) == {}


def test_two_runs_of_one_date_at_once_leave_one_of_them_whole(deployment: Deployment) -> None:
    _commit(deployment.warehouse, "zero", DAYS[:1], 0.0)
    files = {run: _write(deployment.warehouse, run, DAYS[0], spend) for run, spend in (("one", 1.0), ("two", 2.0))}
    start, errors = threading.Barrier(2), []

    def write(run: str) -> None:
        warehouse = deployment.warehouse
        warehouse.table(TABLE)
        start.wait()
        try:
            warehouse.commit(TABLE, DAYS[:1], [files[run]], {"run-id": run})
        except Exception as error:  # noqa: BLE001 - seen by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=write, args=(run,)) for run in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert deployment.rows(TABLE)["spend"].sum() in (1.0, 2.0)
    assert deployment.rows(TABLE).height == 2
    assert len(deployment.warehouse.table(TABLE).snapshots()) == 3


def test_files_carry_field_ids_so_that_a_renamed_column_is_not_read_as_null(deployment: Deployment) -> None:
    warehouse = deployment.warehouse
    _commit(warehouse, "one", DAYS[:1], 7.0)
    with warehouse.table(TABLE).update_schema() as update:
        update.rename_column("spend", "spend_renamed")
    renamed = warehouse.catalog.load_table(f"tiny_{TABLE}").scan().to_arrow()
    assert sum(renamed["spend_renamed"].to_pylist()) == 7.0
    with pytest.raises(ConfigError, match=r"Only stored: .*spend_renamed.*only declared: .*spend"):
        warehouse.table(TABLE)


def test_every_declared_table_is_created_with_its_declaration(deployment: Deployment) -> None:
    for name in DECLARATIONS:
        table, declared = deployment.warehouse.table(name), deployment.warehouse.declared(name)
        assert [field.name for field in table.schema().fields] == [column.name for column in declared.columns]
        assert [field.name for field in table.spec().fields] == list(declared.partition)
        assert set(declared.key) <= {column.name for column in declared.columns}


def test_a_table_of_before_gets_the_columns_that_were_added_and_its_old_rows_read_as_null(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """marts.forecast_quality as a version without horizon_days made it."""
    name, warehouse = "marts.forecast_quality", deployment.warehouse
    now = warehouse.declared(name)
    *known, horizon = now.columns
    assert horizon.added
    assert not any(column.added for column in known)

    def written(warehouse: Warehouse, run: str, ds: date) -> None:
        values = {"string": "x", "long": 1, "double": 0.5, "date": ds, "int": 7}
        rows = pl.DataFrame([{c.name: values[c.type] for c in warehouse.declared(name).columns}])
        files = warehouse.write_rows(name, rows.cast({pl.Int64: pl.Int64}), run)
        warehouse.commit(name, [ds], files, {"run-id": run, "stage": "test"})

    def as_before(self: Warehouse, table: str) -> Table:
        key = tuple(part for part in now.key if part != "horizon_days")
        return replace(now, columns=tuple(known), key=key) if table == name else declared(table, self.config)

    with monkeypatch.context() as patch:
        patch.setattr(Warehouse, "declared", as_before)
        written(deployment.warehouse, "old", DAYS[0])
    fields = [field.name for field in warehouse.catalog.load_table(f"tiny_{name}").schema().fields]
    assert "horizon_days" not in fields
    assert deployment.rows(name)["horizon_days"].to_list() == [None]  # a reader changes nothing
    assert [field.name for field in warehouse.catalog.load_table(f"tiny_{name}").schema().fields] == fields
    written(deployment.warehouse, "new", DAYS[1])
    assert deployment.rows(name).sort("ds")["horizon_days"].to_list() == [None, 7]
    scanned = warehouse.catalog.load_table(f"tiny_{name}").scan().to_arrow().sort_by("ds")
    assert scanned["horizon_days"].to_pylist() == [None, 7]
    written(deployment.warehouse, "again", DAYS[0])
    assert deployment.rows(name)["horizon_days"].to_list() == [7, 7]


def test_the_same_rows_give_the_same_bytes(deployment: Deployment) -> None:
    warehouse = deployment.warehouse
    one, two = (_write(warehouse, run, DAYS[0], 1.0) for run in ("one", "two"))
    assert Path(one.path.removeprefix("file://")).read_bytes() == Path(two.path.removeprefix("file://")).read_bytes()
    assert read_files([one], warehouse.arrow_schema(TABLE)).equals(_rows(DAYS[0], 1.0))


@pytest.mark.spark
def test_another_number_of_buckets_is_refused(deployment: Deployment) -> None:
    _commit(deployment.warehouse, "one", DAYS[:1], 1.0)
    deployment.write_day(DAYS[1])
    before = deployment.rows(TABLE)
    deployment.edit("buckets = 2", "buckets = 3")
    for command in (["stage_sources", "--date", DAYS[1]], ["status", "--date", DAYS[1]], ["show", TABLE]):
        status, said = deployment.run(*command, spark=command[0] == "stage_sources")
        assert status == 2, said
        assert f"{TABLE}: its days are split into 2 buckets, and [dataset] buckets = 3 would tear" in said
    assert deployment.run("show", "ops.validation", spark=False)[0] == 0  # it has no buckets
    deployment.edit("buckets = 3", "buckets = 2")
    assert deployment.rows(TABLE).equals(before)


def test_a_table_made_before_the_buckets_were_kept_takes_those_of_its_next_commit(deployment: Deployment) -> None:
    warehouse = deployment.warehouse
    with warehouse.table(TABLE).transaction() as transaction:
        transaction.remove_properties(BUCKETS)
    _commit(warehouse, "one", DAYS[:1], 1.0)
    assert warehouse.table(TABLE).properties[BUCKETS] == "2"


def test_a_commit_onto_a_snapshot_is_none_onto_a_newer_one(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyIceberg itself would move it there, and both of two writers would believe that they were first."""
    warehouse, other = deployment.warehouse, deployment.warehouse
    written = {"run-id": "one", "stage": "test"}
    pin = warehouse.pin(TABLE)
    warehouse.commit(TABLE, [], [_write(warehouse, "one", DAYS[0], 1.0)], written, onto=pin)
    with pytest.raises(CommitFailedException, match="committed to since"):
        warehouse.commit(TABLE, [], [_write(warehouse, "two", DAYS[1], 1.0)], written, onto=pin)
    pin, data_file = warehouse.pin(TABLE), Warehouse._data_file

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(Warehouse, "_data_file", data_file)
        _commit(other, "meanwhile", [DAYS[2]], 1.0)
        return data_file(*arguments)

    monkeypatch.setattr(Warehouse, "_data_file", meanwhile)
    with pytest.raises(CommitFailedException):
        warehouse.commit(TABLE, [], [_write(warehouse, "three", DAYS[1], 1.0)], written, onto=pin)
    assert list(warehouse.days(TABLE)) == [DAYS[0], DAYS[2]]
