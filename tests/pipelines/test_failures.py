"""What libraries raise is told in a line, with a section of docs/operations.md; the traceback is in the log."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from deployment import Deployment

from pipelines.cli import exit_status
from pipelines.errors import ConfigError, DataError
from pipelines.failures import CAUSES, OTHER, SECTIONS, anchor, tell
from pipelines.warehouse.commits import Warehouse

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
TABLE = "staged.performance_daily"


def test_every_message_has_its_section() -> None:
    headings = {anchor(text) for text in re.findall(r"^#+ (.*)$", OPERATIONS.read_text(encoding="utf-8"), re.MULTILINE)}
    own = ("Exit 2: configuration", "Exit 3: data", OTHER)
    named = {*own, *(cause.section for cause in CAUSES), *(section for _, section in SECTIONS)}
    assert {section for section in named if anchor(section) not in headings} == set()


def locked(deployment: Deployment) -> None:
    database = deployment.config.home / "catalog.db"
    deployment.edit("[spark]", f'[warehouse]\nuri = "sqlite:///{database}?timeout=0.1"\n[spark]')
    holding = sqlite3.connect(database, isolation_level=None)
    holding.execute("begin exclusive")
    deployment.held = holding  # type: ignore[attr-defined]


def garbage(deployment: Deployment) -> None:
    (deployment.config.home / "catalog.db").write_bytes(b"no database" * 999)


def cut(deployment: Deployment) -> None:
    database = deployment.config.home / "catalog.db"
    database.write_bytes(database.read_bytes()[:5000])


def folder(deployment: Deployment) -> None:
    (deployment.config.home / "catalog.db").unlink()
    (deployment.config.home / "catalog.db").mkdir()


def warehouse(text: str) -> Callable[[Deployment], None]:
    return lambda deployment: deployment.edit("[spark]", f"[warehouse]\n{text}\n[spark]")


BREAK: dict[str, tuple[Callable[[Deployment], None], str]] = {
    "a locked database": (locked, "A database is locked"),
    "a database that is none": (garbage, "A database is damaged"),
    "a database that was cut": (cut, "A database is damaged"),
    "a folder for a database": (folder, "Permission denied"),
    "a catalog that is down": (
        warehouse('type = "rest"\nuri = "http://127.0.0.1:1"'),
        "A service does not answer",
    ),
    "a store that is down": (
        warehouse('warehouse = "s3://b/x"\n"s3.endpoint" = "http://127.0.0.1:1"\n"s3.region" = "us-east-1"'),
        "A service does not answer",
    ),
    "a catalog without its driver": (
        warehouse('uri = "mysql://127.0.0.1:1/x"\nwarehouse = "/tmp/x"'),
        "Something is not installed",
    ),
}


@pytest.mark.parametrize("case", BREAK)
def test_real_failures_end_with_a_line_and_a_log(deployment: Deployment, case: str) -> None:
    deployment.warehouse.table(TABLE)
    break_it, section = BREAK[case]
    break_it(deployment)

    def stage_sources(_: list[str] | None) -> None:
        Warehouse(deployment.config).table("marts.backtest")

    deployment.capture()
    arguments = ["--config", str(deployment.toml), "--date", "2024-01-03"]
    status = exit_status(stage_sources, arguments)
    said = deployment.capture()
    assert status == 1, said
    assert "Traceback" not in said
    assert "failed, nothing was published:" in said
    assert f"docs/operations.md#{anchor(section)}" in said
    assert " ".join(arguments) in said  # what to run again, with the day
    log = re.search(r"the whole of it: (.*)", said)
    assert log is not None
    assert "Traceback" in Path(log[1]).read_text(encoding="utf-8")


def test_a_traceback_is_shown_on_demand_and_kept_below_the_home(deployment: Deployment) -> None:
    garbage_in = deployment.config.home
    deployment.warehouse.table(TABLE)
    garbage(deployment)
    status, said = deployment.run("show", "tables", spark=False)
    assert (status, "Traceback" in said) == (1, False)
    assert f"the whole of it: {garbage_in}/logs/show-" in said
    assert "again: python -m pipelines.show" in said
    status, said = deployment.run("show", "tables", "--debug", spark=False)
    assert (status, "Traceback" in said) == (1, True)


def test_a_log_goes_elsewhere_where_the_home_takes_none(deployment: Deployment) -> None:
    deployment.warehouse.table(TABLE)
    garbage(deployment)
    (deployment.config.home / "logs").write_text("in the way")
    status, said = deployment.run("show", "tables", spark=False)
    log = re.search(r"the whole of it: (.*)", said)
    assert status == 1
    assert log is not None
    assert "Traceback" in Path(log[1]).read_text(encoding="utf-8")
    Path(log[1]).unlink()


# As they were seen; a process lies between most of them and us, so that only the words are left.
SEEN = {
    "[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device": "Disk full",
    "(sqlite3.OperationalError) database or disk is full": "Disk full",
    "Job aborted due to stage failure: java.lang.OutOfMemoryError: Java heap space": "Out of memory",
    "Python worker exited unexpectedly (crashed)": "Out of memory",
    "training failed 2 times; the last time, first: rank 0: OutOfMemoryError: CUDA out of memory.": "Out of memory",
    "training failed 2 times; the last time, first: rank 1: DistBackendError: NCCL error in: x": "A GPU fails",
    "training failed 2 times; the last time, first: rank 1: RuntimeError: Connection reset by peer": "Training fails",
    "PytorchStreamReader failed reading zip archive: failed finding central directory": "Training fails",
    "(sqlite3.OperationalError) attempt to write a readonly database": "Permission denied",
    "An error occurred (AccessDenied) when calling the PutObject operation": "Permission denied",
    "ForbiddenError: Not authorized to make this request": "A service refuses",
    "OSError: x: When reading information for key 'x' in bucket 'b': AWS Error ACCESS_DENIED during HeadObject": (
        "A service refuses"
    ),
    "OSError: b/x: AWS Error NO_SUCH_BUCKET during CreateMultipartUpload operation: The specified bucket does not": (
        "A service refuses"
    ),
    "API request to http://x/api failed with exception HTTPConnectionPool(host='x'): Max retries exceeded": (
        "A service does not answer"
    ),
    "OSError: b/x: AWS Error SLOW_DOWN during PutObject operation: Please reduce your request rate.": (
        "A service does not answer"
    ),
    'java.io.IOException: Cannot run program "/opt/venv/bin/python": error=2, No such file or directory': (
        "On a cluster"
    ),
    "java.sql.SQLException: No suitable driver": "Something is not installed",
    "[JAVA_GATEWAY_EXITED] Java gateway process exited before sending its port number.": "Something is not installed",
    "RESOURCE_DOES_NOT_EXIST: Model Version (name=m2m_tiny, version=3) not found": "A model version is lost",
    "[FAILED_READ_FILE.FILE_NOT_EXIST] Encountered error while reading file file:///x": "A file is gone or damaged",
    "list index out of range": OTHER,
}


@pytest.mark.parametrize("text", SEEN)
def test_causes_are_known_by_their_words(text: str) -> None:
    told = tell(RuntimeError(f"first line\n  at {text}\n\tat java.base/x"))
    assert (told.status, told.section) == (1, SEEN[text])
    assert len(told.lines) == 1
    assert "\n" not in told.lines[0]


def test_our_own_errors_keep_their_words_and_status_across_processes() -> None:
    words = (
        "An exception was thrown from the Python worker:\n  File x\npipelines.errors.DataError: t ds=1: gone\n\tat y"
    )
    told = tell(RuntimeError(words))
    assert (told.status, told.lines, told.section) == (3, ["t ds=1: gone"], "Exit 3: data")
    told = tell(ConfigError("x: this home was copied or moved."))
    assert (told.status, told.section) == (2, "A home was copied or moved")
    assert tell(DataError(["a", "b"])).lines == ["a", "b"]
