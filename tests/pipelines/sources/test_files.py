"""Which files a source's path names."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest
from deployment import SQL, TOML

from pipelines.config import Config, load_config
from pipelines.errors import ConfigError, DataError
from pipelines.sources.files import files_of
from pipelines.sources.storage import Local

FIRST, LAST = date(2024, 1, 30), date(2024, 2, 2)


@pytest.fixture(params=["plain", "[EU] {x} * é"])
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A data set's folder; signs in its own name have no meaning."""
    monkeypatch.setenv("M2M_HOME", str(tmp_path / "home"))
    folder = tmp_path / str(request.param)
    folder.mkdir()
    (folder / "performance_daily.sql").write_text(SQL)
    return folder


def made(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def config(folder: Path, path: str, more: str = "") -> Config:
    text = TOML.replace('path = "raw/ds={ds}.parquet"', f'path = "{path}"\n{more}')
    (folder / "pipeline.toml").write_text(text)
    return load_config(folder / "pipeline.toml")


def named(folder: Path, path: str, more: str = "", first: date = FIRST, last: date = LAST) -> list[str]:
    made_of = config(folder, path, more)
    return [file.shown for file in files_of(made_of, made_of.source[0], Local(), first, last)[0]]


def test_a_file_a_day(folder: Path) -> None:
    days = ["2024-01-30", "2024-01-31", "2024-02-01", "2024-02-02"]
    made(folder, *(f"raw/{day}.csv" for day in days), "raw/2024-02-03.csv")
    assert named(folder, "raw/{ds}.csv") == [f"raw/{day}.csv" for day in days]


@pytest.mark.parametrize(
    ("path", "files"),
    [
        ("raw/{ds:%Y%m%d}.csv", ["raw/20240131.csv"]),
        ("raw/{ds:%d.%m.%y}.csv", ["raw/31.01.24.csv"]),
        ("raw/{ds:%Y/%m/%d}/*.csv", ["raw/2024/01/31/a.csv", "raw/2024/01/31/b.csv"]),
        ("raw/{ds:%Y}/{ds:%j}.csv", ["raw/2024/031.csv"]),
        ("raw/v{ds:%-d}.csv", ["raw/v31.csv"]),
    ],
)
def test_shapes_of_a_date(folder: Path, path: str, files: list[str]) -> None:
    made(folder, *files)
    assert named(folder, path, first=date(2024, 1, 31), last=date(2024, 1, 31)) == files


def test_a_file_of_a_month_is_read_once(folder: Path) -> None:
    made(folder, "raw/2024-01.csv", "raw/2024-02.csv")
    assert named(folder, "raw/{ds:%Y-%m}.csv") == ["raw/2024-01.csv", "raw/2024-02.csv"]


def test_a_file_that_links_lead_to_is_read_once(folder: Path) -> None:
    made(folder, "raw/1.csv", "raw/2.csv", "days/1/a.csv", "days/2/a.csv")
    (folder / "raw/latest.csv").symlink_to("2.csv")
    (folder / "days/latest").symlink_to("2")
    assert named(folder, "raw/*.csv") == ["raw/1.csv", "raw/2.csv"]
    assert named(folder, "days/*") == ["days/1/a.csv", "days/2/a.csv"]


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    made(folder, "raw/a.csv")
    os.mkfifo(folder / "raw/b.csv")
    for path in ("raw/b.csv", "raw/*.csv", "raw"):
        with pytest.raises(DataError, match=r"raw/b.csv: cannot be read: it is neither a file nor a folder"):
            named(folder, path)


def test_a_name_that_is_no_text_is_named(folder: Path) -> None:
    made(folder, "raw/a.csv")
    (Path(os.fsdecode(bytes(folder) + b"/raw/\xff.csv"))).write_text("x")
    with pytest.raises(DataError, match="its name is not UTF-8"):
        named(folder, "raw")


def test_two_folders_that_name_one_column_are_refused(folder: Path) -> None:
    made(folder, "raw/place=a/Place=b/a.csv")
    with pytest.raises(DataError, match=r"raw/place=a/Place=b/a.csv: two folders above it name the same column"):
        named(folder, "raw")


def test_signs_in_the_path_match_and_hidden_files_do_not(folder: Path) -> None:
    made(folder, "raw/a1.csv", "raw/a2.csv", "raw/b1.csv", "raw/_a3.csv", "raw/.a4.csv", "raw/a5.txt")
    assert named(folder, "raw/a*.csv") == ["raw/a1.csv", "raw/a2.csv"]
    assert named(folder, "raw/[ab]1.csv") == ["raw/a1.csv", "raw/b1.csv"]
    assert named(folder, "raw/?1.csv") == ["raw/a1.csv", "raw/b1.csv"]
    assert named(folder, "r*/*2.csv") == ["raw/a2.csv"]


def test_a_name_that_is_there_is_meant_whatever_signs_it_holds(folder: Path) -> None:
    made(folder, "raw [EU]/a.csv", "raw E/a.csv")
    assert named(folder, "raw [EU]/a.csv") == ["raw [EU]/a.csv"]


def test_folders_of_name_and_value_are_gone_into(folder: Path) -> None:
    made(folder, "raw/ds=2024-01-31/place=a b/1.parquet", "raw/ds=2024-01-31/place=c/2.parquet", "raw/_SUCCESS")
    made_of = config(folder, "raw")
    files, findings = files_of(made_of, made_of.source[0], Local(), FIRST, LAST)
    assert [file.keys for file in files] == [("ds", "place"), ("ds", "place")]
    assert {file.base for file in files} == {str(folder / "raw")}
    assert findings == []


def test_other_folders_are_said_or_asked_for(folder: Path) -> None:
    made(folder, "raw/1.parquet", "raw/old/2.parquet")
    made_of = config(folder, "raw")
    files, findings = files_of(made_of, made_of.source[0], Local(), FIRST, LAST)
    assert [file.shown for file in files] == ["raw/1.parquet"]
    assert [(finding.check, finding.example) for finding in findings] == [("folder_left_out", "raw/old")]
    everywhere = named(folder, "raw", 'options = { recursiveFileLookup = "true" }')
    assert everywhere == ["raw/1.parquet", "raw/old/2.parquet"]


def test_what_is_being_written_is_said(folder: Path) -> None:
    made(folder, "raw/1.parquet", "raw/_temporary/0/2.parquet", "raw/3.parquet._COPYING_")
    made_of = config(folder, "raw")
    files, findings = files_of(made_of, made_of.source[0], Local(), FIRST, LAST)
    assert [file.shown for file in files] == ["raw/1.parquet"]
    assert [(finding.check, finding.found) for finding in findings] == [("half_written", 2.0)]


def test_a_marker_in_the_folder_or_of_a_path_of_its_own(folder: Path) -> None:
    made(folder, "raw/2024-01-31/1.parquet", "done/20240131.ok")
    day = {"first": date(2024, 1, 31), "last": date(2024, 1, 31)}
    assert named(folder, "raw/{ds}", 'marker = "done/{ds:%Y%m%d}.ok"', **day) == ["raw/2024-01-31/1.parquet"]
    with pytest.raises(DataError, match=r"ds=2024-01-31: 1 of 1 markers are missing.* First: raw/2024-01-31/_SUCCESS"):
        named(folder, "raw/{ds}", 'marker = "_SUCCESS"', **day)
    made(folder, "raw/2024-01-31/_SUCCESS")
    assert named(folder, "raw/{ds}", 'marker = "_SUCCESS"', **day) == ["raw/2024-01-31/1.parquet"]


def test_the_home_of_the_data_set_and_paths_above(folder: Path) -> None:
    home = folder.parent / "home" / "tiny"
    made(home, "raw/1.parquet")
    made(folder.parent, "above.parquet")
    assert named(folder, "{home}/raw") == [str(home / "raw/1.parquet")]
    assert named(folder, "../above.parquet") == [str(folder.parent / "above.parquet")]
    assert named(folder, f"file://{home}/raw/*") == [str(home / "raw/1.parquet")]


def test_what_lies_where_a_file_is_missing_is_said(folder: Path) -> None:
    made(folder, "raw/export-20240130.csv", "raw/zebra.txt")
    with pytest.raises(DataError) as missing:
        named(folder, "raw/export-{ds}.csv")
    words = str(missing.value)
    assert (
        "source raw_day ds=2024-01-30: 4 of 4 files are missing; expected 0. First: raw/export-2024-01-30.csv" in words
    )
    assert "raw has export-20240130.csv, zebra.txt" in words
    assert "{ds:%Y%m%d}" in words


def test_spark_would_pass_over_a_hidden_file(folder: Path) -> None:
    made(folder, "raw/_1.parquet")
    with pytest.raises(ConfigError, match="passes over"):
        named(folder, "raw/_1.parquet")


def test_a_link_that_leads_nowhere_is_no_file(folder: Path) -> None:
    made(folder, "raw/1.parquet")
    (folder / "raw" / "2.parquet").symlink_to(folder / "nowhere")
    assert named(folder, "raw") == ["raw/1.parquet"]
