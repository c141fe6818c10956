"""A simulated quarter: days that are lived one by one with daily retraining, mishaps and mistakes, and an audit.

    python -m benchmarks.soak [--days 90] [--out docs/reliability.md]

The history is loaded at once and a model is trained; then every day its files arrive, and the stages run as their
commands do, in one process with one Spark session: those of the three DAGs, the forecasts once the gate has decided.
Each morning `status` is asked, and the commands that it prints are run. What happens on which day stands in
benchmarks/soak_world.py, what must hold in the end in benchmarks/soak_audit.py. Exit status 1: it does not.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

import psutil
import torch

from benchmarks import soak_page
from benchmarks.measure import ROOT, machine
from benchmarks.soak_audit import PLANTED, audit, outcome, planted_versions
from benchmarks.soak_world import FIRST_LOAD, HAPPENS, World, deployed
from m2m_model.forecasts.forecaster import Forecaster
from pipelines.chain import CHAIN, CHALLENGER, CHAMPION, MODEL, has
from pipelines.cli import code_version, exit_status
from pipelines.config import Config, load_config
from pipelines.errors import EXIT_DATA, EXIT_HOLES
from pipelines.life.registry import Registry
from pipelines.spark.session import spark_session
from pipelines.warehouse.commits import Warehouse

DATA, LEARNING, FORECASTS = (
    tuple(stage.name for stage in CHAIN if stage.dag == dag)
    for dag in ("advertiser_sequences", "m2m_training", "advertiser_forecasts")
)

# A stage whose process dies at its commit number N: as many others are done.
DIES_AT_COMMIT = """
import os, signal, sys
from importlib import import_module
from pipelines.cli import exit_status
from pipelines.warehouse.commits import Warehouse
commit, left = Warehouse.commit, [int(sys.argv[1])]
def dies(*arguments, **named):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    return commit(*arguments, **named)
Warehouse.commit = dies
sys.exit(exit_status(import_module("pipelines." + sys.argv[2]).main, sys.argv[3:]))
"""


def cpu_seconds() -> float:
    """Of this process and all that it started."""
    me, own = psutil.Process(), os.times()
    total = own.user + own.system + own.children_user + own.children_system
    for child in me.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            total += sum(child.cpu_times()[:4])
    return total


def is_written(config: Config, table: str) -> bool:
    """Whether a table is one, and the data set has it."""
    return not table.startswith(MODEL) and has(config, table)


class UnexpectedError(Exception):
    """A stage ended otherwise than it should."""


@dataclass
class Soak:
    """The platform's world, its deployment, and what was done."""

    world: World
    folder: Path
    screen: TextIO | None = None
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    cpu: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    words: list[str] = field(default_factory=list)  # about the day that is lived
    said: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.toml = deployed(self.world, self.folder)
        self.log = (self.folder / "soak.log").open("a", encoding="utf-8", buffering=1)

    @cached_property
    def config(self) -> Config:
        return load_config(self.toml)

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(self.config)

    def tell(self, day: int, words: str) -> None:
        print(f"day {day:3} {self.world.date_of(day)}  {words}", file=self.screen or sys.stdout, flush=True)

    def run(self, stage: str, *arguments: object, expect: tuple[int, ...] = (0,)) -> tuple[int, str]:
        """A stage as its command line runs it; its status, and all that it said.

        Raises:
            UnexpectedError: it ended with another status than one of ``expect``.
        """
        argv, said = ["--config", str(self.toml), *map(str, arguments)], io.StringIO()
        started, before = time.monotonic(), cpu_seconds()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                status = exit_status(importlib.import_module(f"pipelines.{stage}").main, argv)
            except SystemExit as stopped:  # argparse
                status = int(stopped.code or 0)
            except Exception:  # noqa: BLE001 - what the interpreter would do with it
                traceback.print_exc()
                status = 1
        spent = time.monotonic() - started
        self.seconds[stage] += spent
        self.cpu[stage] += cpu_seconds() - before
        self.calls[stage] += 1
        print(f"$ {stage} {' '.join(argv[2:])}    {spent:.1f} s, status {status}\n{said.getvalue()}", file=self.log)
        if status not in expect:
            raise UnexpectedError(
                f"{stage} {' '.join(argv)} ended with {status}, expected {expect}:\n{said.getvalue()}"
            )
        return status, said.getvalue()

    def first_load(self) -> None:
        """The days before, at once, and the first model."""
        for day in range(self.world.first, 1):
            self.world.deliver(self.config.home / "raw", day)
        self.run("stage_sources", "--from", self.world.date_of(self.world.first), "--to", self.world.date_of(0))
        self.run("build_sequences", "--date", self.world.date_of(0))
        for stage in (*LEARNING, *FORECASTS):
            self.run(stage, "--date", self.world.date_of(0))

    def live(self, day: int) -> None:
        """One day: its files arrive, what is left to mend is mended, the stages run, and what happens happens."""
        started, events = time.monotonic(), {kind for kind, on in self.world.events.items() if day in on}
        self.world.deliver(self.config.home / "raw", day)
        self.words = [words for kind, words in HAPPENS.items() if kind in events]
        self.mend(day - 1)
        if "restated" in events:
            of = self.world.date_of(day - self.world.restated_back)
            self.words.append(f"{of} is staged again")
            self.run("stage_sources", "--from", of, "--to", self.world.date_of(day - 1))
            self.mend(day - 1)
        if self.stages(day, DATA, events) and self.stages(day, LEARNING, events):
            for event, happens in (
                ("worse", self.plant_worse),
                ("weak", self.promote_worse),
                ("rollback", self.roll_back),
            ):
                if event in events:
                    self.words.append(happens(day))
            self.stages(day, FORECASTS, events)
            self.words.append(f"champion {Registry(self.config).version_of(CHAMPION)}")
        self.said[day] = "; ".join(self.words)
        self.tell(day, f"{time.monotonic() - started:5.1f} s  {self.said[day]}")

    def stages(self, day: int, stages: tuple[str, ...], events: set[str]) -> bool:
        """Run some stages of a day; whether all ended well."""
        for stage in stages:
            if "crash" in events and stage == (moment := self.moment(day))[0]:
                self.words.append(self.crash(*moment, day))
            if "executor" in events and stage == "score":
                self.words.append(self.lose_executor(stage, day))
                continue
            status, said = self.run(stage, "--date", self.world.date_of(day), expect=(0, EXIT_DATA))
            if status:
                reason = said.strip().splitlines()[1].strip().removeprefix("source ").partition(";")[0]
                self.words.append(f"{stage} refuses: {reason}")
                return False
        return True

    def mend(self, day: int) -> None:
        """Do what `status` says, up to the first command that fails."""
        status, said = self.run("status", "--date", self.world.date_of(day), "--days", 30, expect=(0, EXIT_HOLES))
        done = 0
        todo = said.partition("to mend, in this order:")[2]
        for stage, arguments in re.findall(r"python -m pipelines\.(\w+) --config \S+ (.*)", todo) if status else ():
            if self.run(stage, *arguments.split(), expect=(0, EXIT_DATA))[0]:
                break
            done += 1
        if done:
            self.words.append(f"{done} commands of status")

    def plant_worse(self, day: int) -> str:
        """The challenger's network forgets what it learned, and is registered as a version like any other."""
        registry = Registry(self.config)
        version = registry.get(CHALLENGER)
        assert version is not None
        forecaster = Forecaster.load(version.folder)
        noise = torch.Generator().manual_seed(self.world.seed)
        with torch.no_grad():
            for weights in forecaster.model.parameters():
                weights.add_(torch.randn(weights.shape, generator=noise) * weights.std(unbiased=False).nan_to_num(1.0))
        folder = self.folder / "planted" / "model"
        replace(forecaster, blend=None, young_blend=None).save(folder)
        run = registry.client.get_run(version.run_id)
        tags = {key: value for key, value in run.data.tags.items() if key.startswith("m2m.")}
        with registry.new_run(
            f"planted {self.world.date_of(day)}", run.data.params, tags | {PLANTED: "worse"}
        ) as run_id:
            planted = registry.register(run_id, folder)
        shutil.rmtree(folder.parent)
        for stage in ("backtest", "promote"):
            self.run(stage, "--date", self.world.date_of(day))
        return f"version {planted.version} is planted"

    def promote_worse(self, day: int) -> str:
        """Somebody makes the planted version champion, by mistake."""
        (version,) = planted_versions(Registry(self.config))
        self.run("promote", "--to", version, "--reason", "it looked good in a notebook")
        return f"version {version} by hand"

    def roll_back(self, day: int) -> str:
        """Somebody takes the champion before this one back; the day's gate is asked once more, and must not undo it."""
        registry = Registry(self.config)
        now = registry.version_of(CHAMPION)
        lines = self.warehouse.scan("ops.promotion").filter(promoted=True).sort("decided_at")
        no_choice = {now, *planted_versions(registry)}
        before = [version for version in lines["champion"].drop_nulls() if version not in no_choice][-1]
        self.run("promote", "--to", before, "--reason", "sales say its figures were better")
        for stage in ("backtest", "promote"):
            self.run(stage, "--date", self.world.date_of(day))
        return f"rolled back from {now} to {before}"

    def moment(self, day: int) -> tuple[str, int]:
        """When a process dies on a day with a crash: in turn before one of all the commits of the day, and in training
        after some of its words."""
        chance = random.Random(f"{self.world.seed} {day}")
        if self.world.events["crash"].index(day) % 2:
            return "train", chance.randrange(1, 5)
        moments = [
            (stage.name, before)
            for stage in CHAIN
            if stage.dag
            for before, _ in enumerate(table for table in stage.tables if is_written(self.config, table))
        ]
        return chance.choice(moments)

    def crash(self, stage: str, moment: int, day: int) -> str:
        """The stage in a process of its own, killed at a moment."""
        arguments = ["--config", str(self.toml), "--date", str(self.world.date_of(day))]
        command = ["-m", "pipelines", stage] if stage == "train" else ["-c", DIES_AT_COMMIT, str(moment), stage]
        with self.process([sys.executable, "-u", *command, *arguments]) as process:
            assert process.stdout
            for number, line in enumerate(process.stdout, 1):
                print(line, end="", file=self.log)
                if stage == "train" and number == moment:
                    process.kill()
        if process.wait() != -signal.SIGKILL:
            raise UnexpectedError(f"{stage} {arguments} ended with {process.returncode} before it could be killed")
        return f"{stage} killed " + (f"after line {moment}" if stage == "train" else f"before commit {moment + 1}")

    def lose_executor(self, stage: str, day: int) -> str:
        """The stage on a cluster of this machine, one of whose executors is killed while it works."""
        sys.path.insert(0, str(ROOT / "examples"))
        from local_cluster import LocalCluster

        arguments = ["--config", str(self.toml), "--date", str(self.world.date_of(day))]
        with LocalCluster(self.folder / "cluster") as cluster:
            env = {"M2M_MASTER": cluster.master, "SPARK_LOCAL_IP": "127.0.0.1"}
            with self.process([sys.executable, "-u", "-m", "pipelines", stage, *arguments], env) as process:
                while process.poll() is None:
                    if busy := [each for each in cluster.executors() if each.children()]:
                        busy[0].kill()
                        break
                    time.sleep(0.02)
                killed = process.poll() is None
                print(process.communicate()[0], file=self.log)
            if process.returncode or not killed:
                raise UnexpectedError(f"{stage} {arguments} on the cluster: {process.returncode}, killed {killed}")
        return f"{stage} lost an executor"

    @contextlib.contextmanager
    def process(self, command: list[str], env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
        whole = os.environ | {"PYTHONPATH": str(ROOT)} | (env or {})
        with subprocess.Popen(
            command, cwd=ROOT, env=whole, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            yield process

    def whole(self) -> dict[str, Any]:
        """The first load, all days, and the audit: what benchmarks/soak_page.py shows."""
        started, load = time.monotonic(), os.getloadavg()[0]
        with spark_session(self.config, "soak") as spark:
            self.first_load()
            self.tell(0, f"{time.monotonic() - started:5.1f} s  first load of {FIRST_LOAD} days")
            for day in range(1, self.world.days + 1):
                self.live(day)
            self.mend(self.world.days)
            minutes = (time.monotonic() - started) / 60
            findings = audit(self.world, self.config, spark)
        return {
            "machine": machine(),
            "code": code_version(),
            "load": load,
            "minutes": minutes,
            "first_load": FIRST_LOAD,
            "advertisers": self.world.advertisers,
            "trained": self.calls["train"],
            "stages": {name: (runs, self.seconds[name], self.cpu[name]) for name, runs in self.calls.items()},
            "findings": [asdict(finding) for finding in findings],
            **outcome(self.world, self.config, self.said),
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=90, help="days to live after the first load (default 90)")
    parser.add_argument("--advertisers", type=int, default=World.advertisers, help="default %(default)s")
    parser.add_argument(
        "--folder", type=Path, help="where it lives, and is left (default: one that is removed if all is well)"
    )
    parser.add_argument("--out", type=Path, help="page that gets the section; its picture and JSON lie beside it")
    arguments = parser.parse_args()
    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="m2m-soak-"))).absolute()
    if (folder / "home").exists():
        parser.error(f"--folder {folder}: something lives there already; name another, or remove it")
    os.environ["M2M_HOME"] = str(folder / "home")
    print(f"lives in {folder}; what the stages say: {folder / 'soak.log'}")
    found = Soak(World(arguments.days, arguments.advertisers), folder).whole()
    for of in found["findings"]:
        print(f"{'holds' if not of['wrong'] else 'WRONG':6} {of['check']} ({of['looked_at']})")
        print(*(f"       {words}" for words in of["wrong"]), sep="\n", end="\n" if of["wrong"] else "")
    for name, (runs, wall, cpu) in found["stages"].items():
        print(f"{name:16} {runs:4} runs, {wall / runs:5.1f} s and {cpu / runs:5.1f} s of CPU each")
    wrong = [of["check"] for of in found["findings"] if of["wrong"]]
    print(
        f"{arguments.days} days in {found['minutes']:.1f} minutes; {len(wrong)} of {len(found['findings'])} do not hold"
    )
    if arguments.out:
        soak_page.write(found, arguments.out)
    if not wrong and not arguments.folder:
        shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
