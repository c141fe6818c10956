"""A day by hand: stage_sources, build_sequences, score, monitor, explain, drift and report for --date, in one process.

Reads and writes what these seven read and write one by one (`m2m STAGE --help`): each is a run of its own, with its id,
log and lineage. They share a Spark session, so that what starts is started once; a stage to which [spark.stages] gives
settings has a process of its own.
Fails (2, 3, 1) as the stage that fails does: no later one is begun, and what is left to run is printed.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from contextlib import nullcontext
from importlib import import_module
from itertools import groupby

from pipelines.chain import CHAIN
from pipelines.cli import LOG, exit_status, run_of, stage_parser
from pipelines.errors import plain

STAGES = [stage.name for stage in CHAIN if stage.dag in ("advertiser_sequences", "advertiser_forecasts")]


def main(argv: list[str] | None = None) -> int:
    arguments = stage_parser(__doc__ or "").parse_args(argv)
    run = run_of("day", arguments)
    from pipelines.spark.session import spark_session

    options, left = ["--config", str(run.config.path), "--date", str(run.ds)], list(STAGES)
    given = [*options, "--debug"] if arguments.debug else options
    for apart, stages in groupby(STAGES, run.config.spark.stages.__contains__):
        with nullcontext() if apart else spark_session(run.config, run.run_id):
            for stage in stages:
                if apart:
                    status = subprocess.call([sys.executable, "-m", "pipelines", stage, *given])
                else:
                    status = exit_status(import_module(f"pipelines.{stage}").main, given)
                if status:
                    _tell(f"day {run.ds}: {stage} ended with {status}; left to run, in this order:", left, options)
                    return status
                left.remove(stage)
    return 0


def _tell(words: str, stages: list[str], options: list[str]) -> None:
    """On the terminal, and in the log of the stage that failed."""
    lines = [words, *(f"python -m pipelines.{stage} {shlex.join(options)}" for stage in stages)]
    text = "\n  ".join(map(plain, lines))
    print(text, file=sys.stderr, flush=True)
    LOG.write(text)


if __name__ == "__main__":
    sys.exit(exit_status(main))
