"""`show` as it is typed: what it prints, what it says of what it does not print, and where."""

from __future__ import annotations

import json
import re

import pytest
from deployment import FIRST_DAY, Deployment, day
from published import publish

TABLE = "marts.forecast_daily"
EVIL = "adv\x1b[31m\n"


@pytest.fixture
def written(deployment: Deployment) -> Deployment:
    for ds in (FIRST_DAY, day(1)):
        rows = [
            {"advertiser_id": who, "scenario_id": "search", "task": task, "horizon_days": 7}
            | dict.fromkeys(("point", "mean", "median", "p05", "p25", "p75", "p95"), 1000.5 * number)
            for number, who in enumerate([EVIL, *(f"adv{n}" for n in range(30))])
            for task in ("spend", "active_days")
        ]
        publish(deployment.warehouse, TABLE, ds, rows, f"score-{ds}-x")
    return deployment


def show(deployment: Deployment, *arguments: object) -> tuple[int, str]:
    return deployment.run("show", *arguments, spark=False)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_table_is_as_wide_as_the_terminal(written: Deployment, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    status, said = show(written, TABLE, "--sort", "mean:desc", "--task", "spend", "--limit", 3)
    lines = said.splitlines()
    assert status == 0
    assert all(len(line) <= width and line.isprintable() for line in lines), said
    (first,) = (number for number, line in enumerate(lines) if "adv29" in line)
    assert "30,015" in lines[first]
    assert re.findall("adv[0-9]+", said) == ["adv29", "adv28", "adv27"]
    text = " ".join(map(str.strip, lines))
    assert f"3 of 31 matching rows, among 62 of {day(1)}, the first by mean descending; --limit N for more" in text
    there = {word for line in lines[: first + 1] for word in re.split("[ ,]+", line)}
    columns = written.warehouse.declared(TABLE).schema().column_names
    left_out = re.search(f"of {len(columns)} columns; left out: (.*) \\(--columns all", text)
    named = left_out[1].split(", ") if left_out else []
    assert bool(named) == (width < 140)
    assert there >= {*columns} - {*named}


def test_what_is_asked_for_by_name_is_whole(written: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    said = show(written, TABLE, "--columns", "all", "--limit", 2)[1]
    assert "left out" not in said
    assert "sequence_snapshot_id" in said.splitlines()[0]
    assert show(written, TABLE, "--columns", "mean,run_id", "--limit", 1)[1].split()[:2] == ["mean", "run_id"]


def test_json_is_whole_and_says_beside_it_what_is_missing(
    written: Deployment, capfd: pytest.CaptureFixture[str]
) -> None:
    written.capture = lambda: ""  # keep both apart
    status, _ = show(written, TABLE, "--format", "json", "--advertiser", EVIL)
    read = capfd.readouterr()
    assert (status, read.err) == (0, "")
    rows = [json.loads(line) for line in read.out.splitlines()]
    assert [(row["advertiser_id"], row["ds"]) for row in rows] == [(EVIL, str(day(1)))] * 2
    assert "\x1b" not in read.out
    show(written, TABLE, "--format", "json", "--limit", 5)
    read = capfd.readouterr()
    assert len(read.out.splitlines()) == 5
    assert (
        read.err == f"5 of 62 rows of {day(1)}, as the files have them; --sort COLUMN orders all; --limit N for more\n"
    )


def test_the_list_of_tables_says_how_to_open_them(written: Deployment) -> None:
    said = " ".join(show(written, "tables")[1].split())
    home = written.config.home
    assert f'load_catalog("tiny", type="sql", uri="sqlite:///{home}/catalog.db?timeout=30"' in said
    assert "metadata" not in said
    rows = [json.loads(line) for line in show(written, "tables", "--format", "json")[1].splitlines()]
    (row,) = (row for row in rows if row["table"] == TABLE)
    assert row["identifier"] == "tiny_marts.forecast_daily"
    assert row["metadata"] == written.warehouse.metadata(TABLE)
    assert (row["rows"], row["first_ds"], row["last_ds"]) == (124, str(FIRST_DAY), str(day(1)))


def test_a_password_of_the_catalog_is_not_printed() -> None:
    from types import SimpleNamespace

    from pipelines.reading.show import catalog_line

    properties = {"type": "sql", "uri": "postgresql+psycopg2://reader:s3cr:e t@db.example.com/x", "token": "t0ken"}
    catalog: object = SimpleNamespace(catalog=SimpleNamespace(name="tiny", properties=properties))
    said = catalog_line(catalog)  # type: ignore[arg-type]
    assert said == 'load_catalog("tiny", type="sql", uri="postgresql+psycopg2://reader:***@db.example.com/x")'


REFUSED = {
    "--sort maen": 'no column "maen"; did you mean "mean"',
    "--sort mean:down": 'unknown order "down"; write mean:desc',
    "--columns mean,p5": 'no column "p5"',
    "--date yesterday": "is not a day; write YYYY-MM-DD",
    "--date 2024-02-01": f"it has {FIRST_DAY}..{day(1)}; the nearest: {day(1)}",
    "--format files --task spend": "a file has rows of all scenarios and tasks",
    "--where mean": "neither true nor false",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_cannot_be_shown_is_refused(written: Deployment, arguments: str) -> None:
    status, said = show(written, TABLE, *arguments.split())
    assert (status, REFUSED[arguments] in said) == (2, True), said


@pytest.mark.parametrize("arguments", ["--snapshot x1", "--task spend", "--sort rows", "--format files"])
def test_the_list_of_tables_takes_no_filter(written: Deployment, arguments: str) -> None:
    status, said = show(written, "tables", *arguments.split())
    assert (status, "name the table whose rows" in said) == (2, True), said


def test_a_list_has_no_order(written: Deployment) -> None:
    status, said = show(written, "features.sequence_week", "--sort", "day")
    assert (status, "--sort: day is a list" in said) == (2, True), said
