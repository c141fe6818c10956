"""Data files: seen whole or not at all, and served as they were written or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from pipelines.errors import DataError
from pipelines.warehouse.files import DataFile, read_files, write_file
from pipelines.warehouse.store import Folder

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = pa.schema([pa.field("ds", pa.date32()), pa.field("who", pa.string()), pa.field("spend", pa.float64())])
DAY = date(2024, 1, 5)
ROWS = pl.DataFrame({"ds": [DAY] * 40, "who": [f"adv{i}" for i in range(40)], "spend": [1.5 * i for i in range(40)]})


def folder(tmp_path: Path, run: str = "stage_sources-2024-01-09-ab") -> Folder:
    return Folder(f"{tmp_path}/tiny_staged/performance_daily/data/run={run}")


def write(tmp_path: Path, made_from: str | None = None) -> DataFile:
    return write_file(ROWS, SCHEMA, folder(tmp_path), DAY, 0, made_from)


@pytest.mark.parametrize("made_from", [None, "0123456789abcdef0123"])
def test_no_flipped_bit_is_served(tmp_path: Path, made_from: str | None) -> None:
    file = write(tmp_path, made_from)
    path, whole = Path(file.path), Path(file.path).read_bytes()
    assert read_files([file], SCHEMA).equals(ROWS)
    for bit in range(0, len(whole) * 8, 7):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(DataError, match="is damaged"):
            read_files([file], SCHEMA)
    path.write_bytes(whole)
    assert read_files([file], SCHEMA, ["spend"]).equals(ROWS.select("spend"))


def test_a_file_cut_swapped_or_gone_is_named_with_its_day_and_what_makes_it_again(tmp_path: Path) -> None:
    file, other = write(tmp_path), write_file(ROWS.head(3), SCHEMA, folder(tmp_path), DAY, 1)
    path, whole = Path(file.path), Path(file.path).read_bytes()
    for content in (b"", whole[:-1], whole + b"x", Path(other.path).read_bytes()):
        path.write_bytes(content)
        with pytest.raises(DataError) as found:
            read_files([other, file], SCHEMA)
        assert f"staged.performance_daily ds={DAY}: {path} is damaged" in str(found.value)
        assert f"python -m pipelines.stage_sources --date {DAY}" in str(found.value)
    path.unlink()
    with pytest.raises(DataError, match="is gone"):
        read_files([file], SCHEMA)
    built = write_file(ROWS, SCHEMA, folder(tmp_path, "build_sequences-2024-01-09-ab"), DAY, 0)
    Path(built.path).unlink()
    with pytest.raises(DataError, match=r"python -m pipelines\.build_sequences --date 2024-01-09"):
        read_files([built], SCHEMA)


def test_a_name_says_what_it_was_made_from_and_a_second_attempt_has_the_same(tmp_path: Path) -> None:
    first, again = write(tmp_path, "0123"), write(tmp_path, "0123")
    assert first == again
    assert first.fingerprint == "0123"
    assert write(tmp_path).fingerprint not in ("0123", first.path)
    assert {path.name for path in Path(first.path).parent.iterdir()} == {
        Path(file.path).name for file in (first, write(tmp_path))
    }


KILLED = """
import os, signal, sys
sys.path.insert(0, "tests/pipelines/warehouse")
import pipelines.warehouse.store as store
from pathlib import Path
import test_files

class Disk:
    def __init__(self): self.disk = Real()
    def __getattr__(self, name): return getattr(self.disk, name)
    def open_output_stream(self, path):
        open(path, "wb").write(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

Real, store.LocalFileSystem = store.LocalFileSystem, Disk
test_files.write(Path(sys.argv[1]))
"""


def test_an_attempt_killed_while_it_writes_leaves_what_another_one_published(tmp_path: Path) -> None:
    published = write(tmp_path)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert read_files([published], SCHEMA).equals(ROWS)
    left = set(os.listdir(Path(published.path).parent)) - {Path(published.path).name}
    assert len(left) == 1  # what the killed one wrote
    assert pl.read_parquet(f"{Path(published.path).parent}/*.pq").equals(ROWS)  # and no reader takes it for data
    assert write(tmp_path) == published


def test_attempts_at_once_do_not_tear_each_other(tmp_path: Path) -> None:
    published = write(tmp_path)
    torn: list[Exception] = []

    def attempt() -> None:
        for _ in range(50):
            write(tmp_path)

    writers = [threading.Thread(target=attempt) for _ in range(3)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        try:
            read_files([published], SCHEMA)
        except DataError as error:
            torn.append(error)
    assert torn == []
    assert os.listdir(Path(published.path).parent) == [Path(published.path).name]
