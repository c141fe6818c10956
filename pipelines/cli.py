"""What every stage's command line shares: arguments, the run's identity, exit statuses."""

from __future__ import annotations

import argparse
import os
import select
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

from pipelines.config import Config, load_config
from pipelines.errors import EXIT_DATA, EXIT_STOPPED, EXIT_UNREAD, EXIT_USAGE, ConfigError, DataError, plain


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
        """Snapshot properties: who wrote it, with which code and configuration, from which input snapshots."""
        return {
            "run-id": self.run_id,
            "stage": self.stage,
            "days": f"{self.first}..{self.last}",
            "config-hash": self.config.hash,
            "code-version": code_version(),
        } | {f"input.{name}": str(value) for name, value in inputs.items()}

    def say(self, message: str) -> None:
        """One progress line."""
        print(plain(f"{self.stage} {self.ds}: {message}"), flush=True)


def warn(message: str) -> None:
    """One line of warning; the run goes on."""
    print(plain(f"warning: {message}"), file=sys.stderr, flush=True)


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


def stage_parser(description: str) -> argparse.ArgumentParser:
    """Parser with the arguments of every stage; ``description`` says what is read, written and when it fails."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", default=os.environ.get("M2M_CONFIG"), help="pipeline.toml of the data set (default: $M2M_CONFIG)"
    )
    parser.add_argument(
        "--date", type=day, help="the day to process, YYYY-MM-DD (UTC); the as-of date of what is written"
    )
    return parser


def run_of(stage: str, arguments: argparse.Namespace) -> Run:
    """The run that the command line asks for.

    Raises:
        ConfigError: no configuration or date, a date that cannot be, or a range that ends before it starts.
    """
    if not arguments.config:
        raise ConfigError("no configuration: give --config pipeline.toml or set M2M_CONFIG")
    config = load_config(arguments.config)
    first = getattr(arguments, "from_date", None) or arguments.date
    last = getattr(arguments, "to_date", None) or arguments.date or first
    if first is None or last is None:
        raise ConfigError("no date: give --date YYYY-MM-DD")
    if last < first:
        raise ConfigError(f"the range {first}..{last} ends before it starts")
    if first < config.dataset.first_day:
        raise ConfigError(f"{first} is before the data starts: [dataset] first_day = {config.dataset.first_day}")
    today = datetime.now(UTC).date()
    if last > today:
        raise ConfigError(f"{last} is in the future: today is {today} (UTC)")
    return Run(f"{stage}-{last}-{uuid.uuid4().hex[:8]}", stage, config, first, last)


def exit_status(stage: Callable[[list[str] | None], int | None], argv: list[str] | None = None) -> int:
    """Run a stage and turn its errors into an exit status and words on stderr: 0 done, 2 wrong use, 3 bad data. A stage
    may return another one."""
    try:
        status = stage(argv) or 0
        sys.stdout.flush()  # here, where a reader that has gone is no failure
        return status
    except ConfigError as error:
        print(f"configuration error: {plain(error)}", file=sys.stderr, flush=True)
        return EXIT_USAGE
    except DataError as error:
        print("data error, nothing was published:", *map(plain, error.lines), sep="\n  ", file=sys.stderr, flush=True)
        return EXIT_DATA
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr, flush=True)
        return EXIT_STOPPED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return EXIT_UNREAD
        # On the driver or inside a worker: either way the words are in the text, and the trace says the rest.
        if "No space left on device" in str(error):
            print("disk full, nothing was published: make room and run again. What was writing:", file=sys.stderr)
        raise


def _nobody_reads() -> bool:
    """Whether what reads our output has gone (``show ... | head``); what is still to be written then goes nowhere."""
    descriptor, poll = sys.stdout.fileno(), select.poll()
    poll.register(descriptor, 0)
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return True


def day(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise argparse.ArgumentTypeError(f'"{plain(text)}" is not a day; write YYYY-MM-DD') from None


def count(text: str) -> int:
    """A number of things on the command line."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 10**9:
        raise argparse.ArgumentTypeError(f'"{plain(text)}" is not a number; write one from 1 on')
    return int(text)
