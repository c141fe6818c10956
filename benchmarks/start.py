"""What a command costs before it does anything: help, a look, a stage and a whole day of ten advertisers.

    python -m benchmarks.start

Every command is a process of its own, as a person starts it, on a data set of 10 made-up advertisers in 4 scenarios, 90
days, with a trained champion. Beside the wall time stand the CPU seconds of the process and of all that it started,
which say the same on a machine with company. The last line is JSON, in wall seconds: the dearest help, the dearer of
`show` and `status`, the dearest stage of a day, and the four stages of a day as one `m2m day`.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from benchmarks.measure import ROOT, machine, simulated
from pipelines.chain import CHALLENGER, STAGES
from pipelines.day import STAGES as OF_A_DAY
from pipelines.life.registry import Registry

ADVERTISERS, DAYS = 10, 90
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: a JVM that outlives who started it is waited for here, and counted


def seconds(*arguments: str) -> tuple[float, float]:
    """Wall and CPU seconds of ``m2m`` with these arguments.

    Raises:
        SystemExit: it failed.
    """
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    wall = time.perf_counter() - started
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 4):  # 4: `status` found a day missing
        sys.exit(f"m2m {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def champion_of(folder: Path) -> list[tuple[str, str]]:
    """A history with a champion, whose last two days are raw alone; returns the options that name them."""
    config = simulated(ADVERTISERS, DAYS, folder)
    text = config.path.read_text(encoding="utf-8")
    config.path.write_text(text + "\n[training]\nepochs = 1\nmin_steps = 10\nboosted = false\n", encoding="utf-8")
    os.environ["M2M_CONFIG"] = str(config.path)
    days = [config.dataset.first_day + timedelta(days=n) for n in range(DAYS)]
    seconds("stage_sources", "--from", str(days[0]), "--to", str(days[-3]))
    for stage in ("build_sequences", "train"):
        seconds(stage, "--date", str(days[-3]))
    registry = Registry(config)
    challenger = registry.get(CHALLENGER)
    assert challenger is not None
    registry.promote(challenger.version)  # whatever its backtest says: it is time that is looked at
    return [("--date", str(day)) for day in days[-2:]]


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    load, found = os.getloadavg()[0], dict[str, tuple[float, float]]()
    with tempfile.TemporaryDirectory() as folder:
        one_by_one, together = champion_of(Path(folder))
        found["--help"] = seconds("--help")
        found |= {f"{name} --help": seconds(name, "--help") for name in STAGES}
        found |= {name: seconds(name, *one_by_one) for name in OF_A_DAY}
        found |= {"show tables": seconds("show", "tables"), "status": seconds("status", *one_by_one)}
        found["day"] = seconds("day", *together)
    print(f"{machine()}; load before it {load:.1f}; {ADVERTISERS} advertisers\n")
    print("| m2m | wall s | CPU s |\n| --- | ---: | ---: |")
    for name, (wall, cpu) in found.items():
        print(f"| {name} | {wall:.1f} | {cpu:.1f} |")
    chain = [sum(figures) for figures in zip(*(found[name] for name in OF_A_DAY), strict=True)]
    print(f"| the four stages one by one | {chain[0]:.1f} | {chain[1]:.1f} |")
    figures = {
        "help_s": max(wall for name, (wall, _) in found.items() if name.endswith("--help")),
        "show_s": max(found["show tables"][0], found["status"][0]),
        "stage_fixed_s": max(found[name][0] for name in OF_A_DAY),
        "day_fixed_s": found["day"][0],
    }
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
