"""What Spark, Iceberg, MLflow, SQLite, file systems and torch raise, in one line that says what it is and what to do.

An error may have crossed processes on its way here, and then only its words are left. So a cause is known by words,
looked for in every error of the chain; the first one that fits is told. Each names its section of docs/operations.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.errors import EXIT_DATA, EXIT_USAGE, ConfigError, DataError, said_by_worker

OTHER = "Exit 1: anything else"
_MOST = 400  # characters of a library's own message


@dataclass(frozen=True)
class Cause:
    """``words`` (a pattern) give it away, ``says`` tells it and what to do, ``section`` has more."""

    words: str
    says: str
    section: str


CAUSES = (
    Cause(
        "No space left on device|database or disk is full|Disk quota exceeded|File too large",
        "disk full. Make room, then run it again",
        "Disk full",
    ),
    Cause(
        "CUDA out of memory|torch.OutOfMemoryError",
        "the GPU's memory is too small. Lower [training] batch_size, or give the GPU to this training alone",
        "Out of memory",
    ),
    Cause(
        "OutOfMemoryError|MemoryError|Java heap space|GC overhead limit|Cannot allocate memory|exit code:? ?137"
        "|Python worker exited unexpectedly|SIGKILL",
        "out of memory, or killed by who guards it. More memory for the driver ([spark.conf] "
        '"spark.driver.memory" = "8g"), or more [dataset] buckets',
        "Out of memory",
    ),
    Cause(
        "CUDA error|NCCL|no kernel image is available|Found no NVIDIA driver|CUDA driver",
        "the GPU failed. Run it again: training goes on from its last checkpoint; [distributor] use_gpu = false does "
        "without",
        "A GPU fails",
    ),
    Cause(
        "PytorchStreamReader|failed finding central directory|Weights only load failed",
        "a checkpoint is damaged. Train without it: python -m pipelines.train --from-scratch",
        "Training fails",
    ),
    Cause("training failed \\d+ times", "training failed on a rank", "Training fails"),
    Cause(
        "database is locked|database table is locked|database schema is locked",
        "{database} is locked by another process. Run it again when that has ended; outside a laptop, use Postgres",
        "A database is locked",
    ),
    Cause(
        "file is not a database|database disk image is malformed|malformed database schema",
        "{database} is damaged. Put a backup in its place; the catalog can be made again: move catalog.db away, then "
        "python -m pipelines.maintain --restore all",
        "A database is damaged",
    ),
    Cause(
        "Permission denied|Operation not permitted|Read-only file system|readonly database|unable to open database file"
        "|Not a directory|AccessDenied|Access Denied",
        "not allowed. Let the user that runs stages read and write there, and look whether M2M_HOME is the right one",
        "Permission denied",
    ),
    Cause(
        "ForbiddenError|UnauthorizedError|NotAuthorized|AuthorizationExpired|401 Unauthorized|403 Forbidden"
        "|INVALID_PASSWORD|password authentication failed|InvalidAccessKeyId|SignatureDoesNotMatch|ACCESS_DENIED"
        "|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|NO_SUCH_BUCKET|NoSuchBucket",
        "a service refuses who asks. Look at buckets and credentials in [warehouse], [storage] and [mlflow]; "
        "credentials may have expired",
        "A service refuses",
    ),
    Cause(
        "no Spark master answers|All masters are unresponsive|Master removed our application",
        "the Spark master does not answer. Look whether it is up, and at the address: spark-submit's (Airflow's "
        "connection), else $M2M_MASTER, else [spark] master",
        "On a cluster",
    ),
    Cause(
        'PYTHON_VERSION_MISMATCH|Cannot run program "',
        "executors have another Python than the driver, or none at its path. Install the same there, or set "
        "spark.pyspark.python to theirs",
        "On a cluster",
    ),
    Cause("training needs \\d+ slots", "too few executors for training", "On a cluster"),
    Cause(
        "Connection refused|Connection reset|Max retries exceeded|could not translate host name|Could not connect"
        "|Name or service not known|Temporary failure in name resolution|No route to host|NETWORK_CONNECTION"
        "|[Tt]imed out|ServiceUnavailable|ServerError|503 Service|504 Gateway|server closed the connection"
        "|SLOW_DOWN|SlowDown",
        "a service does not answer. Look whether the catalog, MLflow, the store or the source is up, then run it again",
        "A service does not answer",
    ),
    Cause("BusyError", "another process is at it. Run it again when that has ended", "Two runs of one day"),
    Cause(
        "CommitFailedException|ValidationException|Table has been updated by another process",
        "other runs kept committing the same days. Run it again when they have ended",
        "Two runs of one day",
    ),
    Cause(
        "JAVA_GATEWAY_EXITED|Java gateway process exited|JAVA_HOME is not set|UnsupportedClassVersionError",
        "Java does not start. Java 17 must be on the PATH or in JAVA_HOME; where it began and refused a value of "
        "[spark.conf] or [spark.stages], its words stand above",
        "Something is not installed",
    ),
    Cause(
        "NotInstalledError|ModuleNotFoundError|ClassNotFoundException|No suitable driver|JAVA_GATEWAY",
        "something is not installed where the stage runs",
        "Something is not installed",
    ),
    Cause(
        "RESOURCE_DOES_NOT_EXIST|No such artifact|Registered Model with name|Model Version|Current state is deleted",
        "MLflow has no such run or model version, or its files are gone. Restore it, name another champion, or train",
        "A model version is lost",
    ),
    Cause(
        "FileNotFoundError|No such file or directory|FILE_NOT_EXIST|NoSuchKey|Path does not exist",
        "a file is gone. python -m pipelines.status names the days that miss one",
        "A file is gone or damaged",
    ),
)

# Our own errors that speak of lost or foreign state: where to read on. All others are in the section of their status.
SECTIONS = (
    ("is damaged: its|is gone\\. Re(move|store)", "A file is gone or damaged"),
    ("--restore", "Metadata or the catalog is lost"),
    ("copied or moved", "A home was copied or moved"),
    ("another table", "Two data sets in one folder"),
    ("version 0\\.1", "Upgrade from 0.1"),
    ("stored columns", "A metric was added or renamed"),
    ("its days are split into", "Another number of buckets"),
)


@dataclass(frozen=True)
class Told:
    """What is printed of a failure: an exit status, a heading, a line or more, and where docs/operations.md goes on."""

    status: int
    heading: str
    lines: list[str]
    section: str


def tell(error: BaseException) -> Told:
    """A failure in words."""
    own = error if isinstance(error, ConfigError | DataError) else said_by_worker(str(error))
    if own:
        section = next((section for words, section in SECTIONS if re.search(words, str(own))), "")
        if isinstance(own, DataError):
            return Told(EXIT_DATA, own.title, own.lines, section or "Exit 3: data")
        return Told(EXIT_USAGE, "configuration error", [str(own)], section or "Exit 2: configuration")
    texts = list(_texts(error))
    for cause in CAUSES:
        for text in texts:
            if re.search(cause.words, text):
                whose = "the catalog's" if "iceberg_" in text else "the catalog's or MLflow's"
                says = cause.says.format(database=f"{whose} database")
                return Told(1, "failed", [f"{says}. It said: {_line(text, cause.words)}"], cause.section)
    return Told(1, "failed", [f"unforeseen: {_line(texts[0])}"], OTHER)


def anchor(section: str) -> str:
    """The link to a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", section.lower()).replace(" ", "-")


def _texts(error: BaseException | None) -> Iterator[str]:
    """Type and message of an error and of those that led to it, each once: they may lead to one another."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield f"{type(error).__name__}: {error}"
        error = error.__cause__ or error.__context__


def _line(text: str, words: str = "") -> str:
    """The line of a long message that says it: the one with the words, else the last of a worker's traceback, else the
    first."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if words and re.search(words, line)]
    raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Exit|Interrupt)\b: ", line)]
    return (named or raised[-1:] or lines)[0][:_MOST]
