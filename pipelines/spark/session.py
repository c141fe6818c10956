"""The Spark session of a stage."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Thread

from pyspark import SparkConf, SparkContext
from pyspark.errors import IllegalArgumentException
from pyspark.logger import PySparkLogger
from pyspark.sql import SparkSession

from pipelines.config import MASTER, Config
from pipelines.errors import ConfigError
from pipelines.spark.classes import java_option, make_in_background
from pipelines.spark.code import runs_here, write_archive
from pipelines.spark.executors import refuse_silent_master, told_while_waiting

_JAVA = "spark.driver.defaultJavaOptions"
_SETTINGS = {
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
    # A stage's JVM lives for seconds: only what is really hot is compiled a second time. To start and to answer a query
    # took 15.5 s of CPU without this, and 9.9 with it.
    _JAVA: "-XX:Tier4InvocationThreshold=50000 -XX:Tier4MinInvocationThreshold=6000"
    " -XX:Tier4CompileThreshold=150000 -XX:Tier4BackEdgeThreshold=400000",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    # Training that asks for more slots than there are is told so after half a minute, not ten.
    "spark.scheduler.barrier.maxConcurrentTasksCheck.interval": "5s",
    "spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures": "6",
    "spark.executorEnv.MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # Threads that spin for long while they wait take the core that another is working on, on a machine with company;
    # threads that never spin cost a quiet one 1.6 times the step.
    "spark.executorEnv.GOMP_SPINCOUNT": "1000",
}


def java_ahead(config: Config, stage: str) -> None:
    """Start Java in a thread, while this process imports what the stage needs; it takes as long. On a cluster the
    session starts it, and where there is no home yet the stage may have nothing to start it for. What goes wrong here
    goes wrong there again, and is told."""

    def start() -> None:
        with suppress(Exception):
            master = master_of(config)
            if runs_here(master):
                _start_java(config, stage, {"spark.master": master, **_with_code(settings_of(config, stage, master))})

    if "PYSPARK_GATEWAY_PORT" not in os.environ and SparkContext._gateway is None and config.home.is_dir():
        Thread(target=start).start()


@contextmanager
def spark_session(config: Config, app_name: str, stage: str = "") -> Iterator[SparkSession]:
    """A session with the settings that the pipeline relies on; one that is already running (tests) is kept running.

    Under spark-submit the master is spark-submit's; by hand it is $M2M_MASTER, or else ``[spark] master``. Executors
    get this project's code.

    Raises:
        ConfigError: Spark does not take a value of ``[spark]``.
        ConnectionError: nobody is at the master's address.
    """
    running = SparkSession.getActiveSession()
    master = str(running.sparkContext.master) if running else master_of(config)
    settings = settings_of(config, stage, master)
    os.environ.setdefault("PYSPARK_PYTHON", settings.get("spark.pyspark.python", sys.executable))
    builder = SparkSession.builder.appName(app_name).master(master)
    with ExitStack() as stack:
        archive = None
        if not runs_here(master) and not running:
            refuse_silent_master(master)
            archive = write_archive(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="m2m-code-"))))
        settings = _with_code(settings, archive)
        _start_java(config, stage, {"spark.master": master, **settings})
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
        if not running:
            stack.callback(spark.stop)
        _keep_traces(config.home / "logs" / f"{app_name}.log")
        # A failed task reaches the driver as an exception, which says it once; the log would say it three times first.
        spark.sparkContext.setLogLevel("FATAL")
        for name in ("SQLQueryContextLogger", "DataFrameQueryContextLogger"):  # the same, as 8..18 kB of JSON
            PySparkLogger.getLogger(name).disabled = True
        if archive:
            spark.sparkContext.addPyFile(str(archive))
            stack.enter_context(told_while_waiting(spark))
        yield spark
    if not running and "PYSPARK_GATEWAY_PORT" not in os.environ:
        make_in_background()


def _with_code(settings: dict[str, str], archive: Path | None = None) -> dict[str, str]:
    """The settings with this project's code for executors; what Spark ships lies in the folder that one works in."""
    code = archive.name if archive else str(Path(__file__).parents[2])
    others = settings.get("spark.executorEnv.PYTHONPATH", "")
    return settings | {"spark.executorEnv.PYTHONPATH": os.pathsep.join(filter(None, [code, others]))}


def master_of(config: Config) -> str:
    """Where the stage runs.

    Raises:
        ConfigError: $M2M_MASTER is no address of a master.
    """
    if "PYSPARK_GATEWAY_PORT" in os.environ:  # this process is spark-submit's, which then owns the master
        SparkContext._ensure_initialized()
        return SparkConf().get("spark.master") or "local[*]"
    chosen = os.environ.get("M2M_MASTER") or config.spark.master.resolve()
    if not re.fullmatch(MASTER, chosen):
        raise ConfigError(
            f'$M2M_MASTER, [spark] master: "{chosen}": expected local[2], spark://host:port, yarn, k8s://'
        )
    return chosen


def _start_java(config: Config, stage: str, settings: dict[str, str]) -> None:
    """Java itself, unless it runs. Its command line is for all of the machine to see, so it shows no value of the
    environment but those that Java must begin with."""
    given = config.spark.given(stage)
    later = {key for key, text in given.items() if text.refers and not key.startswith(("spark.driver.", "spark.jars"))}
    shown = [(key, value) for key, value in settings.items() if key not in later]
    if settings[_JAVA] == _SETTINGS[_JAVA]:
        shown.append((_JAVA, f"{_SETTINGS[_JAVA]} {java_option()}"))
    SparkContext._ensure_initialized(conf=SparkConf(loadDefaults=False).setAll(shown))


def settings_of(config: Config, stage: str, master: str) -> dict[str, str]:
    """Ours, over them [spark.conf], over it [spark.stages.<stage>]; and what training needs on a cluster.

    Raises:
        ConfigError: a rank would have a part of a GPU.
    """
    settings = _SETTINGS | {key: text.resolve() for key, text in config.spark.given(stage).items()}
    if not config.distributor.use_gpu:
        settings.setdefault("spark.executorEnv.CUDA_VISIBLE_DEVICES", "")
    if stage == "train" and not config.distributor.local and not runs_here(master):
        if settings.get("spark.dynamicAllocation.enabled") == "true":
            # Ranks start together or not at all, and Spark refuses a barrier under dynamic allocation.
            settings["spark.dynamicAllocation.enabled"] = "false"
            settings.setdefault("spark.executor.instances", str(config.distributor.processes))
        if config.distributor.use_gpu:
            settings.setdefault("spark.executor.resource.gpu.amount", "1")
            each = settings.setdefault("spark.task.resource.gpu.amount", "1")
            if not re.fullmatch("[1-9][0-9]*", each):  # tasks of other stages may share one
                raise ConfigError(
                    f'"spark.task.resource.gpu.amount" = "{each}": a rank has whole GPUs; give training its own: '
                    '[spark.stages.train] "spark.task.resource.gpu.amount" = "1"'
                )
    return settings


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
