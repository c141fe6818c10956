"""``make demo``: the three DAGs on a shipped data set, run as Airflow runs them, in one process and without a server.

First load of the history up to the day before the last one, training, forecasts; then the last day as a daily run.
Prints progress and ends with what was found. Everything that Airflow and Spark log goes to one file. The data set
``simulated`` is made first, if it is not there with that many advertisers.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import re
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any, TextIO

from local_deployment import REPOSITORY, environment, prepare_airflow

# Last day of each shipped data set; another one is given with --last-day.
LAST_DAYS = {"online_ads": date(2020, 6, 30), "online_retail": date(2011, 12, 9), "simulated": date(2024, 3, 30)}

# A line of a stage, as Airflow's Spark hook logs it: `TIME [info ] TEXT [LOGGER] loc=...`.
SUBMIT_LINE = re.compile(r"\[info *\] (?P<text>.*?) *\[airflow\.task\.hooks\.\S*SparkSubmitHook\]")
# What of it is progress: `STAGE DAY: TEXT`, a warning, a training step.
PROGRESS = re.compile(r"^(?:\w+ \d{4}-\d\d-\d\d: )?(?P<said>(?<=: ).*|warning: .*|.*epoch \d+/\d+.*)$")
STEP = re.compile(r"epoch \d+/\d+ step ")
ERASE = "\r\x1b[K" if sys.stdout.isatty() else ""


def main() -> int:
    arguments = parse_arguments()
    config = (REPOSITORY / "examples" / arguments.data / "pipeline.toml").resolve()
    if not config.is_file():
        print(f"There is no {config}; the shipped data sets are {', '.join(LAST_DAYS)}", file=sys.stderr)
        return 2
    last_day = arguments.last_day or LAST_DAYS.get(arguments.data)
    if last_day is None:
        print(f"Say which day is the last one of {config}: --last-day YYYY-MM-DD", file=sys.stderr)
        return 2
    env = environment(os.environ | {"M2M_CONFIG": str(config)})
    os.environ.update(env)  # before the first import of airflow, which reads its configuration then
    sys.path.insert(0, str(REPOSITORY / "dags"))
    log_file = Path(env["M2M_HOME"]) / "logs" / f"demo-{config.parent.name}.log"
    started = time.monotonic()
    screen = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    print(f"Data set  {config}\nState     {env['M2M_HOME']}\nFull log  {log_file}", file=screen)
    prepare_airflow(env, log_file)
    if arguments.data == "simulated":
        make_data(arguments.advertisers, log_file, screen)
    before = last_day - timedelta(days=1)
    first_day = tomllib.loads(config.read_text(encoding="utf-8"))["dataset"]["first_day"]
    with logged(log_file, screen):
        print(f"\nFirst load: {first_day} to {before}", file=screen)
        run_dag("advertiser_sequences", before, screen, from_date=first_day.isoformat())
        run_dag("m2m_training", before, screen)
        run_dag("advertiser_forecasts", before, screen)
        print(f"\nThe next day, as every day at 05:00: {last_day}", file=screen)
        # dag.test keeps the parameters of the run before it: without from_date, the whole history is staged again.
        run_dag("advertiser_sequences", last_day, screen, from_date=last_day.isoformat())
        run_dag("advertiser_forecasts", last_day, screen)
        elapsed = time.monotonic() - started
        from demo_summary import summary  # pipelines is imported only now: the DAGs work without it

        text = summary(config, before, last_day)
    print(f"{text}\nDone in {elapsed / 60:.1f} minutes.", file=screen)
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", default="online_retail", help="folder of examples/, or any folder with a pipeline.toml"
    )
    parser.add_argument("--advertisers", type=int, default=20_000, help="how many, in the data set simulated")
    parser.add_argument("--last-day", type=date.fromisoformat, help="last day of the data, YYYY-MM-DD")
    return parser.parse_args()


def make_data(advertisers: int, log_file: Path, screen: TextIO) -> None:
    """Has the simulated data made; a process of its own, because it starts Spark."""
    command = [sys.executable, str(REPOSITORY / "examples/simulated/generate.py"), "--advertisers", str(advertisers)]
    print(f"\nSimulation of {advertisers:,} advertisers ...", file=screen)
    with log_file.open("a", encoding="utf-8") as log:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, check=False)
    if done.returncode:
        sys.exit(f"`{' '.join(command)}` failed with status {done.returncode}; its output is in {log_file}")
    print(f"  {done.stdout.strip()}", file=screen)


@contextlib.contextmanager
def logged(log_file: Path, screen: TextIO) -> Iterator[None]:
    """Sends all output, the children's too, to ``log_file``, and the stages' progress lines to ``screen`` as well."""
    reading, writing = os.pipe()
    kept = os.dup(1), os.dup(2)
    sys.stdout.flush()
    for descriptor in (1, 2):
        os.dup2(writing, descriptor)
    os.close(writing)

    def copy() -> None:
        with (
            log_file.open("a", encoding="utf-8") as log,
            os.fdopen(reading, encoding="utf-8", errors="replace") as lines,
        ):
            for line in lines:
                log.write(line)
                found = SUBMIT_LINE.search(line)
                if found and (progress := PROGRESS.match(found["text"])):
                    # On a terminal a training step takes the place of the one before it.
                    passing = screen.isatty() and STEP.search(progress["said"])
                    print(f"{ERASE}      {progress['said']}", end="" if passing else "\n", file=screen, flush=True)

    copying = threading.Thread(target=copy)
    copying.start()
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, original in zip((1, 2), kept, strict=True):
            os.dup2(original, descriptor)
            os.close(original)
        copying.join()


def run_dag(dag_id: str, day: date, screen: TextIO, **parameters: Any) -> None:
    """Runs one DAG for one day and shows its tasks.

    Raises:
        SystemExit: a task failed, or did not run.
    """
    dag = importlib.import_module(dag_id).dag
    explain_failure = importlib.import_module("stages").explain_failure
    print(f"  {dag_id}", file=screen)
    starts: dict[str, float] = {}

    def started(context: Any) -> None:
        starts[context["task"].task_id] = time.monotonic()
        print(f"    {context['task'].task_id} ...", file=screen)

    def ended(context: Any) -> None:
        name = context["task"].task_id
        print(f"{ERASE}    {name} done in {time.monotonic() - starts[name]:.0f} s", file=screen)

    def failed(context: Any) -> None:
        print(f"{ERASE}{explain_failure(context)}", file=screen)

    dag.deadline = None  # dag.test() fails with one, in Airflow 3.3.2
    for task in dag.tasks:
        task.retries = 0  # a person is watching: say at once what is wrong
        task.on_execute_callback, task.on_success_callback, task.on_failure_callback = [started], [ended], [failed]
    run = dag.test(run_conf={"date": day.isoformat(), **parameters})
    states = {instance.task_id: instance.state for instance in run.get_task_instances()}
    # A run whose tasks were all left out is a success for Airflow.
    if set(states) != {task.task_id for task in dag.tasks} or set(states.values()) != {"success"}:
        sys.exit(f"{dag_id} {day} did not succeed: {', '.join(f'{task} {state}' for task, state in states.items())}")


if __name__ == "__main__":
    sys.exit(main())
