"""The code that runs, for executors: an archive that Spark ships to them, and a refusal where they have something else.

What a worker imports comes from the archive, whatever is installed there; torchrun's child in a rank finds it through
PYTHONPATH. Python and the packages are the executor's own, and must be the driver's versions.
"""

from __future__ import annotations

import gc
import os
import platform
import socket
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from hashlib import sha256
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TypeVar

from pyspark import TaskContext, cloudpickle
from pyspark.sql import SparkSession

from pipelines.errors import ConfigError
from pipelines.spark.sql_files import SHARED

_PACKAGES = ("pipelines", "m2m_model")
_KEY_VERSIONS = ("pyspark", "torch", "polars", "pyarrow", "numpy", "mlflow")
Given = TypeVar("Given")
Made = TypeVar("Made")
_spared = 0  # so many modules


@cache
def installed() -> dict[str, str]:
    """What must be the same on both sides of a cluster, by name."""
    minor = ".".join(platform.python_version_tuple()[:2])
    digest = sha256()
    for name, file in _sources():
        digest.update(name.encode() + file.read_bytes())
    return {"Python": minor, **{name: _version(name) for name in _KEY_VERSIONS}, "this project": digest.hexdigest()[:8]}


def write_archive(folder: Path) -> Path:
    """A zip of the packages and the SQL files as they are here, named after what is in it."""
    path = folder / f"m2m-{installed()['this project']}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, file in _sources():
            archive.writestr(name, file.read_bytes())
        for sql in sorted(SHARED.rglob("*.sql")):
            archive.write(sql, Path("sql", sql.relative_to(SHARED)))
    return path


def refuse_other(driver: dict[str, str]) -> None:
    """Raises ConfigError where Python, a package or the project's code is not the driver's."""
    here = installed()
    if differ := [f"{name} {here[name]}, not {version}" for name, version in driver.items() if here[name] != version]:
        raise ConfigError(
            f"the executor on {socket.gethostname()} ({os.environ.get('PYSPARK_PYTHON', 'its Python')}) has "
            f"{'; '.join(differ)}. Install there what the driver has (constraints.txt), or set spark.pyspark.python"
        )


def is_local(spark: SparkSession) -> bool:
    """Whether tasks run in the driver's own process and on its own packages."""
    return runs_here(str(spark.sparkContext.master))


def runs_here(master: str) -> bool:
    return master == "local" or master.startswith("local[")


def shipped(spark: SparkSession, kernel: Callable[[Given], Made]) -> Callable[[Given], Made]:
    """The kernel for executors: unpacked only where the code is the driver's, on the GPU that Spark gave its task."""
    if is_local(spark):

        def run_here(given: Given) -> Made:
            spare_modules()
            return kernel(given)

        return run_here
    driver, pickled = installed(), cloudpickle.dumps(kernel)

    def run(given: Given) -> Made:
        refuse_other(driver)
        task = TaskContext.get()
        if task and "gpu" in task.resources():
            os.environ.setdefault("CUDA_VISIBLE_DEVICES", ",".join(task.resources()["gpu"].addresses))
        unpacked: Callable[[Given], Made] = cloudpickle.loads(pickled)
        spare_modules()
        return unpacked(given)

    return run


def spare_modules() -> None:
    """After each task Spark searches all that its worker holds for garbage, 0.2 s where torch is imported; what came
    with modules is none, and is left out from now on."""
    global _spared
    if len(sys.modules) > _spared:
        gc.freeze()
        _spared = len(sys.modules)


def _version(package: str) -> str:
    """Without the local part: torch for GPUs and torch for CPUs work together."""
    try:
        return metadata.version(package).split("+")[0]
    except metadata.PackageNotFoundError:
        return "not installed"


def _sources() -> Iterator[tuple[str, Traversable]]:
    """Every module of the packages by its path, wherever they were imported from."""

    def within(name: str, folder: Traversable) -> Iterable[tuple[str, Traversable]]:
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if entry.is_dir():
                yield from within(f"{name}/{entry.name}", entry)
            elif entry.name.endswith(".py"):
                yield f"{name}/{entry.name}", entry

    for package in _PACKAGES:
        yield from within(package, resources.files(package))
