"""Java starts with Spark's classes at hand: made once, never damaged or foreign ones, and never in the way."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pyspark
import pytest
from pyspark import SparkContext

from pipelines.spark import classes

ARCHIVE = b"not what its name says"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archive's path without digest, in an empty folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "of mine"))
    monkeypatch.setenv("SPARK_HOME", str(tmp_path / "spark"))  # wherever this checkout lies
    (tmp_path / "spark" / "jars").mkdir(parents=True)
    place = classes._place()
    assert place is not None
    place.parent.mkdir(parents=True)
    return place


@pytest.mark.spark
def test_java_takes_the_archive_and_says_nothing_of_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_HOME", str(Path(pyspark.__file__).parent))
    if (real := classes._place()) is None:
        pytest.skip("this checkout lies below a blank or an accent, where there is no archive")
    place = real
    left = place.with_suffix(".1.part")
    left.write_bytes(b"of a process that was killed")
    # Not as a stage has it made: behind all else that a machine does, for which tests would wait.
    command = [sys.executable, "-c", "from pipelines.spark.classes import make; make()"]
    made = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in made] == [0, 0]
    (archive,) = place.parent.glob("*.jsa")
    assert not left.exists()
    assert not place.with_suffix(".refused").exists()
    assert classes.java_option().endswith(f'"-XX:SharedArchiveFile={archive}"')
    spark_submit = Path(os.environ["SPARK_HOME"], "bin", "spark-submit")
    loads = os.environ | {"SPARK_SUBMIT_OPTS": f"{classes.java_option()} -Xlog:class+load"}
    done = subprocess.run([spark_submit, "--version"], env=loads, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if "org.apache.spark.deploy.SparkSubmit source" in line)
    assert "shared objects file (top)" in line
    elsewhere = ["java", *shlex.split(classes.java_option()), "-cp", str(place.parent), "-version"]
    other = subprocess.run(elsewhere, capture_output=True, text=True, check=True)
    assert "warning" not in (other.stdout + other.stderr).lower()


def test_a_damaged_archive_is_not_given_to_java(place: Path) -> None:
    damaged = place.with_suffix(".0123456789abcdef0123.jsa")
    damaged.write_bytes(ARCHIVE)
    assert classes.java_option() == ""
    whole = place.with_suffix(f".{classes._digest(damaged)}.jsa")
    whole.write_bytes(ARCHIVE)
    assert str(whole) in classes.java_option()


def test_archives_that_nobody_opened_for_a_month_go(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "_dump", lambda archive: archive.write_bytes(ARCHIVE))
    old, used = (place.parent / f"spark-{name}.0123456789abcdef0123.jsa" for name in ("old", "used"))
    for archive in (old, used):
        archive.write_bytes(ARCHIVE)
    os.utime(old, (time.time() - 31 * 86_400,) * 2)
    monkeypatch.setattr(SparkContext, "_gateway", None)
    classes.make()
    assert not old.exists()
    assert used.exists()
    assert classes.java_option()


def test_what_failed_once_or_cannot_be_written_is_not_tried(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **others: started.append(arguments))
    place.with_suffix(".refused").touch()
    classes.make_in_background()
    assert started == []
    place.with_suffix(".refused").unlink()
    classes.make_in_background()
    assert len(started) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nobody")
    classes.make_in_background()
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    classes.make_in_background()
    assert len(started) == 1


def test_java_of_others_is_left_running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SparkContext, "_gateway", object())
    with pytest.raises(RuntimeError, match="a process of its own"):
        classes.make()


def test_jars_below_a_blank_or_an_accent_have_no_archive(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("été", "a b"):
        monkeypatch.setenv("SPARK_HOME", f"/opt/{folder}/spark")
        assert classes._place() is None


def test_another_java_has_another_archive(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    other = classes._place()
    assert other not in (None, place)
    assert other is not None
    assert other.parent == place.parent
    # A Java that cannot do it is remembered, and Spark starts as ever.
    subprocess.run([sys.executable, "-m", "pipelines.spark.classes"], check=True)
    assert place.parent.joinpath(f"{other.name}.refused").is_file()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "none"))
    assert classes.java_option() == ""
