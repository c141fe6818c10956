"""What every stage's command line shares: arguments, the run's identity, exit statuses."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import select
import shlex
import subprocess
import sys
import tempfile
import traceback
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

from pipelines.chain import STAGES, STATE
from pipelines.config import Config, load_config
from pipelines.costs import METER
from pipelines.errors import EXIT_DATA, EXIT_STOPPED, EXIT_UNREAD, EXIT_USAGE, ConfigError, plain
from pipelines.events import ABORT, COMPLETE, EVENTS, FAIL
from pipelines.failures import anchor, tell


@dataclass(frozen=True)
class Run:
    """One run of one stage over the days ``first``..``last`` (the same day in a daily run)."""

    run_id: str
    stage: str
    config: Config
    first: date
    last: date

    @property
    def ds(self) -> date:
        """The as-of date: the last day of the run."""
        return self.last

    def lineage(self, **inputs: int | str | None) -> dict[str, str]:
        """Snapshot properties: who wrote it, with which code and configuration, from which input snapshots, and what
        the run has cost so far."""
        return {
            "run-id": self.run_id,
            "stage": self.stage,
            "days": f"{self.first}..{self.last}",
            "config-hash": self.config.hash,
            "code-version": code_version(),
            **METER.so_far(),
        } | {f"input.{name}": str(value) for name, value in inputs.items()}

    def say(self, message: str) -> None:
        """One progress line."""
        line = plain(f"{self.stage} {self.ds}: {message}")
        print(line, flush=True)
        LOG.write(line)


def warn(message: str) -> None:
    """One line of warning; the run goes on."""
    line = plain(f"warning: {message}")
    print(line, file=sys.stderr, flush=True)
    LOG.write(line)


class Log:
    """What this process said and published, kept in a file of its own below the data set's home.

    A log never makes a home: its lines wait for one. What failed is kept at once, in the folder for temporary files
    where there is no home, or no room in it.
    """

    def __init__(self) -> None:
        self.begin("", [])

    def begin(self, name: str, arguments: Sequence[str]) -> None:
        """A command starts, of which the data set is not known yet."""
        self._home: Path | None = None
        self.name, self._file = name, f"m2m-{name}-{os.getpid()}.log"
        self._head, self._waiting = " ".join([name, *arguments]), list[str]()
        self._tables = list[str]()

    def of(self, home: Path, run_id: str = "") -> None:
        """Where it is kept from now on."""
        now = datetime.now(UTC)
        self._home, self._file = home, f"{run_id or f'{self.name}-{now:%Y-%m-%d-%H%M%S}-{os.getpid()}'}.log"

    def write(self, text: str, failed: bool = False) -> Path | None:
        """Add a line or more; returns the file that has them, None where they wait or there can be none."""
        self._waiting.append(_plain_lines(text))
        places = [self._home / "logs"] if self._home and self._home.is_dir() else []
        for folder in [*places, Path(tempfile.gettempdir())] if failed else places:
            with contextlib.suppress(OSError):
                folder.mkdir(exist_ok=True)
                path = folder / self._file
                with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                    if self._head:
                        print(f"{plain(self._head)}    {code_version()}", file=file)
                    print(*self._waiting, sep="\n", file=file)
                self._head, self._waiting = "", []
                return path
        return None

    def commit(self, table: str) -> None:
        """Note that a table was published."""
        self._tables.append(table)

    def published(self) -> str:
        """What readers see of this run, in words."""
        return f"published before it: {', '.join(self._tables)}" if self._tables else "nothing was published"


LOG = Log()


@cache
def code_version() -> str:
    """Package version and, in a checkout, the commit."""
    root = Path(__file__).resolve().parent.parent
    found = version("m2m-forecasting")
    if (root / ".git").exists():
        git = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=False
        )
        if git.returncode == 0:
            found += f"+{git.stdout.strip()}"
    return found


def stage_parser(description: str, words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Parser with the arguments of every stage; ``description`` says what is read, written and when it fails. Of a
    reader, ``words`` may stand for a day; the first is the default."""
    parser = argparse.ArgumentParser(
        description=description, epilog=STATE, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--config", default=os.environ.get("M2M_CONFIG"), help="pipeline.toml of the data set (default: $M2M_CONFIG)"
    )
    days = "the day to process, YYYY-MM-DD (UTC); the as-of date of what is written"
    if words:
        days = f"the day whose rows are read, YYYY-MM-DD (UTC), or {' or '.join(words)} (default: {words[0]})"
    parser.add_argument("--date", type=lambda text: text if text in words else day(text), help=days)
    parser.add_argument("--debug", action="store_true", help="show the traceback of a failure (the log has it anyway)")
    return parser


def config_of(arguments: argparse.Namespace) -> Config:
    """The configuration that the command line names, for dates that it can have.

    Raises:
        ConfigError: no configuration, or one that cannot work; a date before the data or in the future.
    """
    if not arguments.config:
        raise ConfigError("no configuration: give --config pipeline.toml or set M2M_CONFIG")
    config, today = load_config(arguments.config), datetime.now(UTC).date()
    given = (getattr(arguments, name, None) for name in ("from_date", "date", "to_date"))
    for day in (day for day in given if isinstance(day, date)):
        if day < config.dataset.first_day:
            raise ConfigError(f"{day} is before the data starts: [dataset] first_day = {config.dataset.first_day}")
        if day > today:
            raise ConfigError(f"{day} is in the future: today is {today} (UTC)")
    LOG.of(config.home)
    return config


def run_of(stage: str, arguments: argparse.Namespace) -> Run:
    """The run that the command line asks for.

    Raises:
        ConfigError: what ``config_of`` raises; no date, two last days, or a range that ends before it starts.
    """
    config = config_of(arguments)
    first, last = (getattr(arguments, name, None) for name in ("from_date", "to_date"))
    if last and arguments.date:
        raise ConfigError(f"--date {arguments.date} and --to {last} both name the last day; give one of them")
    first, last = first or arguments.date or last, last or arguments.date or first
    if first is None or last is None:
        raise ConfigError("no date: give --date YYYY-MM-DD")
    if last < first:
        raise ConfigError(f"the range {first}..{last} ends before it starts")
    run = Run(f"{stage}-{last}-{uuid.uuid4().hex[:8]}", stage, config, first, last)
    LOG.of(config.home, run.run_id)
    if stage in STAGES and STAGES[stage].dag:
        EVENTS.start(config, stage, run.run_id, (first, last), code_version())
    return run


def exit_status(stage: Callable[[list[str] | None], int | None], argv: list[str] | None = None) -> int:
    """Run a stage and turn its errors into an exit status and words on stderr: 0 done, 2 wrong use, 3 bad data, 1 all
    else. A stage may return another one. The traceback is kept in the run's log, and shown with --debug."""
    arguments = sys.argv[1:] if argv is None else argv
    name = Path(sys.argv[0]).stem if stage.__module__ == "__main__" else stage.__module__.rpartition(".")[2]
    LOG.begin(name, arguments)
    METER.begin()
    EVENTS.begin()
    try:
        status = stage(argv) or 0
        _end_events(FAIL if status else COMPLETE)
        sys.stdout.flush()  # here, where a reader that has gone is no failure
        return status
    except KeyboardInterrupt:
        _end_events(ABORT)
        print(f"stopped; {LOG.published()}", file=sys.stderr, flush=True)
        return EXIT_STOPPED
    except Exception as error:  # noqa: BLE001 - whatever it is, one line says what to do, and the log has the rest
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            _end_events(ABORT)
            return EXIT_UNREAD
        told, trace = tell(error), traceback.format_exc()
        _end_events(FAIL, f"{told.heading}: {'; '.join(told.lines)}")
        log = LOG.write(trace, failed=True)
        if not log or "--debug" in arguments:
            print(_plain_lines(trace), file=sys.stderr)
        if told.status == EXIT_USAGE:
            print(f"{told.heading}: {plain(told.lines[0])}", file=sys.stderr, flush=True)
            return told.status
        again = [f"again: python -m pipelines.{name} {shlex.join(arguments)}"] if told.status != EXIT_DATA else []
        where = f"what to do: docs/operations.md#{anchor(told.section)}; the whole of it: {log or 'above'}"
        lines = [f"{told.heading}, {LOG.published()}:", *told.lines, *again, where]
        print("\n  ".join(map(plain, lines)), file=sys.stderr, flush=True)
        return told.status


def _end_events(how: str, message: str = "") -> None:
    if fault := EVENTS.end(how, message):
        warn(f"OpenLineage: the events of this run did not all go where they should, its file has them: {fault}")


def _plain_lines(text: str) -> str:
    return "\n".join(map(plain, text.splitlines()))


def _nobody_reads() -> bool:
    """Whether what reads our output has gone (``show ... | head``); what is still to be written then goes nowhere."""
    descriptor, poll = sys.stdout.fileno(), select.poll()
    poll.register(descriptor, 0)
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return True


def day(text: str) -> date:
    """A day of the command line."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise argparse.ArgumentTypeError(f'"{plain(text[:60])}" is not a day; write YYYY-MM-DD') from None


def count(most: int) -> Callable[[str], int]:
    """Of the command line, a number of things from 1 on."""

    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 12 and 1 <= int(text) <= most):
            raise argparse.ArgumentTypeError(f'"{plain(text[:60])}" must be a number from 1 to {most}')
        return int(text)

    return number


def snapshot(text: str) -> str:
    """Of the command line, a snapshot's id or that of the run that made it."""
    if not re.fullmatch(r"[\w.-]{1,200}", text):
        raise argparse.ArgumentTypeError(f'"{plain(text[:60])}" is neither the id of a snapshot nor that of a run')
    return text
