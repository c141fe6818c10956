"""What a cluster has to give: whether a master answers, slots for tasks, and words for whoever waits for them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

from pipelines.cli import warn
from pipelines.errors import ConfigError
from pipelines.meanwhile import meanwhile

_PROBE_S = 10.0
_PATIENT_S = 10.0  # what executors may take to come without a word
_REPEAT_S = 60.0


def refuse_silent_master(master: str) -> None:
    """Raises ConnectionError where nobody is at a standalone master's address, ConfigError where that is none; Spark
    itself tries for a minute."""
    failed: OSError | None = None
    for address in master.removeprefix("spark://").split(",") if master.startswith("spark://") else ():
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), _PROBE_S).close()
            return
        except ValueError:
            expected = "expected spark://host:port, or several masters as spark://host:port,host:port"
            raise ConfigError(f'"{master}" is no master: {expected}') from None
        except OSError as error:
            failed = error
    if failed:
        raise ConnectionError(f"no Spark master answers at {master}: {failed}") from None


@contextmanager
def told_while_waiting(spark: SparkSession) -> Iterator[None]:
    """While the application has no executor that a task fits in (another one has all cores, say), a line now and then
    says so."""
    without, told = time.monotonic(), 0.0

    def look() -> None:
        nonlocal without, told
        try:
            now, fit, there = time.monotonic(), slots(spark), executors(spark)
        except Py4JError:
            return  # the session is being stopped
        if fit:
            without, told = now, 0.0
        elif now - without > _PATIENT_S and now - told > _REPEAT_S:
            told, master = now, spark.sparkContext.master
            why = (
                f"{master} has no worker with the cores and the memory that are asked for, or another application "
                "has them ([spark.stages] sets spark.cores.max by stage)"
            )
            if there:
                cpus = spark.conf.get("spark.task.cpus", "1")
                why = f"none of the {there} that are there has what a task asks for: spark.task.cpus = {cpus}"
            warn(f"waiting for an executor for {now - without:.0f} s: {why}")

    with meanwhile(1.0, look):
        yield


def executors(spark: SparkSession) -> int:
    """How many executors the application has; the driver is none."""
    return int(_context(spark).getExecutorMemoryStatus().size()) - 1


def slots(spark: SparkSession) -> int:
    """How many tasks can run at once, as Spark's barrier stages count it: by cores, and by GPUs where tasks ask for
    them."""
    context = _context(spark)
    return int(context.maxNumConcurrentTasks(context.resourceProfileManager().defaultResourceProfile()))


def wait_for_slots(spark: SparkSession, wanted: int, patience_s: float, say: Callable[[str], object]) -> int:
    """The slots that there are once ``wanted`` have come, or after ``patience_s``: a lost executor's place is taken by
    a new one after some seconds."""
    started = told = time.monotonic()
    while (found := slots(spark)) < wanted and time.monotonic() - started < patience_s:
        if time.monotonic() - told >= _PATIENT_S:
            told = time.monotonic()
            say(f"waiting for {wanted} slots, {found} are there")
        time.sleep(0.5)
    return found


def _context(spark: SparkSession) -> Any:
    return spark.sparkContext._jsc.sc()
