"""The Spark session of a stage."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyspark.errors import IllegalArgumentException
from pyspark.logger import PySparkLogger
from pyspark.sql import SparkSession

from pipelines.config import Config
from pipelines.errors import ConfigError


@contextmanager
def spark_session(config: Config, app_name: str) -> Iterator[SparkSession]:
    """A session with the settings that the pipeline relies on; one that is already running (tests) is kept running.

    Under spark-submit the master is spark-submit's; by hand it is ``[spark] master``.

    Raises:
        ConfigError: Spark does not take a value of ``[spark] conf``.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    running = SparkSession.getActiveSession()
    builder = SparkSession.builder.appName(app_name)
    if "SPARK_ENV_LOADED" not in os.environ:  # set by spark-submit's launcher, which then owns the master
        builder = builder.master(config.spark.master.resolve())
    settings = {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "true",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "100000",
        "spark.sql.adaptive.coalescePartitions.enabled": "true",
        # Times in nanoseconds, as pandas writes them, would be refused; `pipelines.sources` makes times of them.
        "spark.sql.legacy.parquet.nanosAsLong": "true",
        # The value of a folder name=007 is the text that stands there.
        "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
        # The encodings that Java knows, windows-1252 among them, and not seven of them.
        "spark.sql.legacy.javaCharsets": "true",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        # Training that asks for more slots than there are is told so after half a minute, not ten.
        "spark.scheduler.barrier.maxConcurrentTasksCheck.interval": "5s",
        "spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures": "6",
        "spark.executorEnv.MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    } | {key: text.resolve() for key, text in config.spark.conf.items()}
    for key, value in settings.items():
        builder = builder.config(key, value)
    try:
        spark = builder.getOrCreate()
        spark.conf.get("spark.sql.session.timeZone")  # the session's own settings are looked at on first use
    except IllegalArgumentException as error:
        words = str(error)
        while (error := getattr(error, "_cause", None)) is not None:  # the outer ones only say that it failed
            words = str(error)
        raise ConfigError(f"[spark] conf: Spark does not start with it: {words.splitlines()[0]}") from None
    _keep_traces(config.home / "logs" / f"{app_name}.log")
    # A failed task reaches the driver as an exception, which says it once; the log would say it three times first.
    spark.sparkContext.setLogLevel("FATAL")
    for name in ("SQLQueryContextLogger", "DataFrameQueryContextLogger"):  # the same, as 8..18 kB of JSON
        PySparkLogger.getLogger(name).disabled = True
    try:
        yield spark
    finally:
        if running is None:
            spark.stop()


def _keep_traces(log: Path) -> None:
    """PySpark prints an error that a query ended with as kilobytes of JSON; they belong into the run's log."""
    for name in ("DataFrameQueryContextLogger", "SQLQueryContextLogger"):
        logger = PySparkLogger.getLogger(name)
        logger.handlers.clear()
        logger.addHandler(_LogOfRun(log, delay=True))


class _LogOfRun(logging.FileHandler):
    """A file that is made when there is something to write."""

    def emit(self, record: logging.LogRecord) -> None:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        super().emit(record)
