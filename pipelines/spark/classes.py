"""Spark's classes as Java keeps them once they are loaded and checked: an archive that later starts of Java map in.

    python -m pipelines.spark.classes

makes it, for an image or a machine without a home; else the first stage that finds none has it made after its end, in
the background. It lies in ``$XDG_CACHE_HOME/m2m`` (``~/.cache/m2m``), some 180 MB for each Java and Spark, and may be
deleted at any time: Java starts without it as well, only slower. Java itself refuses an archive of another Java or of
other jars; a damaged one would end it, so the file's name carries a digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyspark
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession, Window
from pyspark.sql import functions as F

from pipelines.locks import BusyError, locked
from pipelines.spark.sql_files import SHARED, run_sql
from pipelines.warehouse.files import fingerprint

_ROOT = Path(__file__).resolve().parents[2]
_QUIET = "-Xlog:cds*=off -Xlog:class+path*=off"
_PATIENT_S = 600.0
_DAY = date(2024, 1, 1)  # any


def java_option() -> str:
    """What lets Java start with the archive; empty where there is none that is whole."""
    place = _place()
    for archive in _archives(place) if place else ():
        with contextlib.suppress(OSError):
            if _digest(archive) == archive.suffixes[-2][1:]:
                return f'{_QUIET} "-XX:SharedArchiveFile={archive}"'
    return ""


def make_in_background() -> None:
    """Have the archive made by a process of its own, if it is missing, may be written and was not tried in vain."""
    place = _place()
    if place is None or java_option() or place.with_suffix(".refused").exists():
        return
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(place.parent, os.W_OK):
        return
    nothing = subprocess.DEVNULL
    command = [sys.executable, "-m", __name__]
    subprocess.Popen(command, cwd=_ROOT, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)


def make() -> None:
    """Make the archive, unless another process is at it. That none came out of it is remembered too.

    Raises:
        RuntimeError: Java runs already in this process; what others do with it would end.
    """
    if SparkContext._gateway is not None:
        raise RuntimeError("the archive is made by a process of its own: python -m pipelines.spark.classes")
    if (place := _place()) is None:
        return
    with contextlib.suppress(BusyError, OSError), locked(place.with_suffix(".lock"), busy=str(place)):
        if java_option():
            return
        # Of processes that were killed, whose Java may still be writing: each has a name of its own.
        for left in (*place.parent.glob("*.part"), *_archives(place), *_unused(place.parent)):
            left.unlink(missing_ok=True)
        part = place.with_suffix(f".{os.getpid()}.part")
        try:
            _dump(part)
            part.replace(place.with_suffix(f".{_digest(part)}.jsa"))
        except Exception as error:  # noqa: BLE001 - a Java that cannot do it has its own way to say so
            place.with_suffix(".refused").write_text(f"{error}\n", encoding="utf-8")


def _place() -> Path | None:
    """The archive's path without digest and suffix; None where Java could not take it, or is not there."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(f"{home}/bin/java" if home else "java")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "m2m")
    jars = Path(os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent, "jars")
    if not java or not folder.is_absolute() or any(character in str(folder) for character in ':"\\'):
        return None
    # Below a blank and an accent Java made an archive, and took no class of Spark's from it; it looks through links.
    real = str(jars.resolve())
    if not real.isascii() or " " in real:
        return None
    # Java compares the jars' paths as text, and times in seconds, which is what a layer of an image keeps of them.
    of = (f"{path} {int(path.stat().st_mtime)}" for path in (Path(java).resolve(), jars) if path.exists())
    return folder / f"spark-{fingerprint(pyspark.__version__, *of)}"


def _digest(archive: Path) -> str:
    found = archive.stat()
    return _digest_once(archive, found.st_size, found.st_mtime_ns)


@cache
def _digest_once(archive: Path, size: int, mtime_ns: int) -> str:
    """0.1 s of reading, and a process asks when Java starts and when it has ended."""
    with archive.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:20]


def _archives(place: Path) -> list[Path]:
    return sorted(place.parent.glob(f"{place.name}.*.jsa"))


def _unused(folder: Path) -> list[Path]:
    """Archives, of a Java, a Spark or a path that there may be no more, that nobody has opened for a month."""
    month_ago = time.time() - 30 * 86_400
    return [archive for archive in folder.glob("spark-*.jsa") if archive.stat().st_atime < month_ago]


def _dump(archive: Path) -> None:
    """Let Java use what stages use, and leave its classes when it ends.

    Raises:
        OSError: it left none.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    options = f'-XX:TieredStopAtLevel=1 -Xlog:disable {_QUIET} "-XX:ArchiveClassesAtExit={archive}"'
    conf = SparkConf(loadDefaults=False).setMaster("local[2]").set("spark.ui.enabled", "false")
    SparkContext._ensure_initialized(conf=conf.set("spark.driver.defaultJavaOptions", options))
    spark = SparkSession.builder.config(conf=conf).getOrCreate()
    with tempfile.TemporaryDirectory(prefix="m2m-classes-") as folder:
        _use(spark, Path(folder))
    spark.stop()
    java = SparkContext._gateway
    assert java is not None
    java.shutdown()
    java.proc.stdin.close()
    java.proc.wait(_PATIENT_S)
    if not archive.is_file():
        raise OSError("Java left no archive")


def _use(spark: SparkSession, folder: Path) -> None:
    """The kinds of work that stages give to Java: files in, a query with keys, windows and text, rows to Python and
    back, a shuffle, an RDD."""

    def same(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from batches

    numbers = spark.range(9)
    name, ds = F.col("id").cast("string"), F.date_add(F.lit(_DAY), F.col("id").cast("int"))
    rows = numbers.select(name.alias("advertiser_id"), name.alias("scenario_id"), ds.alias("ds"), "id")
    for layout in ("parquet", "csv", "json"):
        rows.write.format(layout).option("header", "true").save(str(folder / layout))
        read = spark.read.schema(rows.schema).format(layout).option("header", "true").load(str(folder / layout))
        read.createOrReplaceTempView("performance_daily")
        actual = SHARED / "intermediate" / "actual_sum.sql"
        query = run_sql(spark, actual, task="", metric="id", as_of=_DAY, horizon_days=9)
        latest = F.row_number().over(Window.partitionBy("scenario_id").orderBy("ds"))
        last = read.distinct().withColumn("latest", latest).where("latest = 1").drop("scenario_id")
        bucket = F.pmod(F.xxhash64("advertiser_id"), F.lit(4)).cast("int")
        found = query.join(last, "advertiser_id", "left").withColumn("bucket", bucket)
        kept = found.where(F.trim("advertiser_id").rlike("^[0-9]+$")).repartitionById(2, "bucket")
        kept.mapInArrow(same, kept.schema).toArrow()
    spark.range(0, 4, 1, 2).mapInArrow(same, "id long").repartition(2, "id").mapInArrow(same, "id long").toArrow()
    spark.sparkContext.parallelize(range(4), 2).map(str).collect()


if __name__ == "__main__":
    os.nice(19)
    make()
