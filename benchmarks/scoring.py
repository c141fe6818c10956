"""What scoring costs beside the bare network: the stage, and each step before it, on the same cores and windows.

    python -m benchmarks.scoring [--advertisers 100000] [--turns 3] [--out docs/scoring.md]

Made-up advertisers, 4 scenarios, 90 days, a model trained at the defaults. The bare side is a forward pass over windows
that lie ready in memory, in one process a core with one thread each, as Spark's workers have. The last line is JSON.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import machine, make_page, run, simulated, watched
from m2m_model.data.panel import Panel
from m2m_model.data.served_by import eligible
from m2m_model.forecasts.forecaster import Forecaster
from m2m_model.forecasts.forward import BATCH_SIZE, network_outputs, to_distribution
from m2m_model.network import encoder
from m2m_model.network.model import Batch
from m2m_model.network.windows import Days
from pipelines.chain import CHALLENGER
from pipelines.cli import Run, code_version
from pipelines.life.registry import Registry
from pipelines.quality import ledger
from pipelines.spark import buckets
from pipelines.spark.session import spark_session
from pipelines.stages import score as scoring
from pipelines.warehouse.commits import Warehouse
from pipelines.warehouse.sequences import SequenceFiles, open_sequences

DAYS = 90
BATCHES = (128, 256, 512, 1024, 4096, 16384)
FORWARD, WINDOWS, LAW = "forward pass", "+ windows cut", "+ distributions"
PREDICT, READ = "+ calibration, blend, points, the other series", "+ sequences read, panels made"
JOB, STAGE = "Spark's job: + checked, who may leave, written", "the stage: + planned, judged, committed"
NETWORK = [FORWARD, WINDOWS, LAW]
RATIOS = {"of_bare_torch": JOB, "stage_of_bare_torch": STAGE}
# What the stage does beside Spark's job, on the driver.
AROUND = [(scoring, "open_sequences"), (scoring, "usable_champion"), (scoring, "publish"), (ledger, "check")]


@dataclass(frozen=True)
class Bucket:
    """One bucket's panel, and the series of it that the network serves."""

    panel: Panel
    series: np.ndarray

    @classmethod
    def of(cls, sequences: SequenceFiles, bucket: int) -> Bucket:
        panel = sequences.panel(bucket, sequences.spec.lookback_days)
        day = panel.index_of(sequences.as_of)
        return cls(panel, np.flatnonzero(eligible(panel, day)))


def sides_of(
    forecaster: Forecaster, sequences: SequenceFiles, numbers: list[int], batch_size: int
) -> tuple[int, dict[str, Callable[[], object]]]:
    """Windows of some buckets, and the work of each side on them."""
    model, inputs, device = forecaster.model, forecaster.inputs, forecaster.device
    parts = [Bucket.of(sequences, number) for number in numbers]
    day = parts[0].panel.index_of(sequences.as_of)

    def cutter(part: Bucket) -> Callable[[slice], Batch]:
        days, series_X = Days.of(part.panel, inputs.profile(part.panel), device), torch.from_numpy(part.series)
        day_X = torch.full_like(series_X, day)
        return lambda rows: forecaster.windows.of(days.runs(series_X[rows], day_X[rows]))

    def cut(part: Bucket) -> list[Batch]:
        starts, of = range(0, len(part.series), batch_size), cutter(part)
        return [of(slice(start, start + batch_size)) for start in starts]

    ready = [cut(part) for part in parts]

    def forward(batches: list[list[Batch]]) -> None:
        with torch.inference_mode():
            for of_bucket in batches:
                for batch in of_bucket:
                    model(batch)

    def laws() -> None:
        for part in parts:
            for _, batch, said in network_outputs(model, cutter(part), len(part.series), batch_size):
                to_distribution(model, inputs, batch, said)

    def predict(panels: Iterable[Panel]) -> None:
        for panel in panels:
            forecaster.predict(panel, sequences.as_of, all_series=True, batch_size=batch_size)

    return sum(len(part.series) for part in parts), {
        FORWARD: lambda: forward(ready),
        WINDOWS: lambda: forward([cut(part) for part in parts]),
        LAW: laws,
        PREDICT: lambda: predict(part.panel for part in parts),
        READ: lambda: predict(sequences.panel(number, sequences.spec.lookback_days) for number in numbers),
    }


def worker(
    folder: Path,
    sequences: SequenceFiles,
    numbers: list[int],
    batch_size: int,
    names: list[str],
    turns: int,
    together: Any,
) -> tuple[int, dict[str, list[float]]]:
    """One process with one thread: its windows, and the seconds of every turn of every side; all processes do the same
    side at the same time."""
    torch.set_num_threads(1)
    windows, sides = sides_of(Forecaster.load(folder), sequences, numbers, batch_size)
    spent: dict[str, list[float]] = defaultdict(list)
    for turn in range(turns + 1):
        for name in names:
            together.wait()
            started = time.perf_counter()
            sides[name]()
            if turn:
                spent[name].append(time.perf_counter() - started)
    return windows, dict(spent)


def in_processes(
    folder: Path, sequences: SequenceFiles, batch_size: int, names: list[str], turns: int
) -> tuple[int, dict[str, list[float]]]:
    """The windows, and windows a second of every turn of every side, with a process a core."""
    cores = os.cpu_count() or 1
    shares = [sequences.buckets[core::cores] for core in range(cores)]
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(cores, context) as pool:
        together = manager.Barrier(cores)
        running = [pool.submit(worker, folder, sequences, s, batch_size, names, turns, together) for s in shares]
        found = [future.result() for future in running]
    windows = sum(count for count, _ in found)
    seconds = {name: np.max([spent[name] for _, spent in found], axis=0) for name in names}
    return windows, {name: (windows / of_side).tolist() for name, of_side in seconds.items()}


def attend_plainly(query_BHCE: Tensor, key_BHCE: Tensor, value_BHCE: Tensor, present_BC: Tensor) -> Tensor:
    """``encoder.attend`` with PyTorch's own softmax."""
    absent_B11C = torch.zeros(present_BC.shape).masked_fill(~present_BC, -torch.inf)[:, None, None]
    score_BHCC = query_BHCE * query_BHCE.shape[-1] ** -0.5 @ key_BHCE.transpose(2, 3) + absent_B11C
    mixed: Tensor = score_BHCC.softmax(-1) @ value_BHCE
    return mixed


def forms(folder: Path, sequences: SequenceFiles, turns: int) -> list[str]:
    """Other forms of the network, on one core and one bucket: how fast, and how many points they move."""
    torch.set_num_threads(1)
    forecaster = Forecaster.load(folder)
    model, part = forecaster.model, Bucket.of(sequences, sequences.buckets[0])
    days = Days.of(part.panel, forecaster.inputs.profile(part.panel), forecaster.device)
    series_X, day = torch.from_numpy(part.series), part.panel.index_of(sequences.as_of)
    batches = [
        forecaster.windows.of(days.runs(some_B, torch.full_like(some_B, day)))
        for some_B in torch.split(series_X, BATCH_SIZE)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        quantize: Any = torch.ao.quantization.quantize_dynamic
        whole = quantize(model, {nn.Linear}, torch.qint8)
    sides: dict[str, tuple[Any, Callable[[], AbstractContextManager[object]]]] = {
        "as it is": (model, nullcontext),
        "PyTorch's softmax": (model, lambda: patch.object(encoder, "attend", attend_plainly)),
        "products in bfloat16": (model, lambda: torch.autocast("cpu", torch.bfloat16)),
        "linear layers in int8": (whole, nullcontext),
        "compiled": (torch.compile(model), nullcontext),
    }
    points, seconds = dict[str, Any](), defaultdict[str, list[float]](list)
    for turn in range(turns + 1):
        for name, (form, around) in sides.items():
            with around(), torch.inference_mode():
                if not turn:
                    of_form = replace(forecaster, model=form)
                    points[name] = of_form.predict(part.panel, sequences.as_of).distribution.point_NM
                started = time.perf_counter()
                for batch in batches:
                    form(batch)
                if turn:
                    seconds[name].append(time.perf_counter() - started)
    own_NM, own_s, lines = points["as it is"], statistics.median(seconds["as it is"]), []
    for name, spent in seconds.items():
        took, moved = statistics.median(spent), (np.abs(points[name] - own_NM) > 1e-3 * own_NM).mean()
        lines.append(f"| {name} | {len(series_X) / took:,.0f} | {own_s / took:.2f} | {moved:.1%} |")
    return [
        "## Other forms of the network",
        "",
        f"One core, {len(series_X):,} windows of one bucket, median of {turns} turns. A form may serve where hardly a",
        "point moves by more than 0.1 %; a compiled one needs a C++ compiler wherever forecasts are made.",
        "",
        "| the network | windows/s | times as it is | points moved by more than 0.1 % |",
        "| --- | ---: | ---: | ---: |",
        *lines,
        "",
    ]


def report(advertisers: int, turns: int, folder: Path) -> tuple[list[str], dict[str, float]]:
    """Prepare, measure, and put the page together."""
    load, config = os.getloadavg()[0], simulated(advertisers, DAYS, folder)
    home, log = folder / "home", folder / "log.txt"
    first, as_of = config.dataset.first_day, config.dataset.first_day + timedelta(days=DAYS - 1)
    date = ["--date", str(as_of)]
    for stage, *options in (
        ("stage_sources", "--from", str(first), "--to", str(as_of)),
        ("build_sequences", *date),
        ("train", *date),
    ):
        run(["-m", f"pipelines.{stage}", "--config", str(config.path), *options], home, log)
    registry, warehouse = Registry(config), Warehouse(config)
    version = registry.get(CHALLENGER)
    assert version is not None
    registry.promote(version.version)  # whatever its backtest says: it is speed that is looked at
    sequences = open_sequences(config, warehouse, as_of)

    by_batch = {size: in_processes(version.folder, sequences, size, NETWORK, 1)[1] for size in BATCHES}
    rates, around = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    with spark_session(config, "bench-scoring") as spark:
        for turn in range(turns + 1):  # the first warms Spark's workers up
            windows, found = in_processes(version.folder, sequences, BATCH_SIZE, [*NETWORK, PREDICT, READ], 1)
            with watched([(buckets, "map_buckets"), *AROUND]) as spent:
                started = time.perf_counter()
                scoring.score(Run(f"score-{turn}", "score", config, as_of, as_of), spark, warehouse, registry)
                took = time.perf_counter() - started
            found |= {JOB: [windows / spent["map_buckets"]], STAGE: [windows / took]}
            if turn:
                for name, of_turn in found.items():
                    rates[name] += of_turn
                for name, seconds in (spent | {"stage": took}).items():
                    around[name].append(seconds)
    bare = statistics.median(rates[FORWARD])
    lines = [
        "# How fast forecasts are made",
        "",
        f"Made by `make bench-scoring` on: {machine()}, PyTorch {torch.__version__};",
        f"code {code_version()}; load before it {load:.1f}. {advertisers:,} made-up advertisers, 4 scenarios, 90 days:",
        f"{sequences.series:,} series. The network serves {windows:,} of them (the windows), rules the others.",
        "",
        "Windows a second on all cores, median of the turns (all of them). Each side does what the one before it does,",
        f"and more. Before Spark's job, each core has a process of one thread. {BATCH_SIZE:,} windows a batch.",
        "",
        "| side | windows/s | us a window | of the forward pass |",
        "| --- | ---: | ---: | ---: |",
        *(rate_row(name, of_side, bare) for name, of_side in rates.items()),
        "",
        f"The stage took {statistics.median(around.pop('stage')):.1f} s (median): "
        + ", ".join(f"`{name}` {statistics.median(seconds):.1f} s" for name, seconds in around.items())
        + ".",
        "",
        *forms(version.folder, sequences, turns),
        "## Windows a batch",
        "",
        "Windows a second, one turn.",
        "",
        f"| windows a batch | {' | '.join(NETWORK)} |",
        "| ---: | ---: | ---: | ---: |",
        *(
            f"| {size:,} | {' | '.join(f'{found[name][0]:,.0f}' for name in NETWORK)} |"
            for size, found in by_batch.items()
        ),
        "",
    ]
    of_bare = {name: round(statistics.median(rates[side]) / bare, 3) for name, side in RATIOS.items()}
    return lines, of_bare


def rate_row(name: str, rates: list[float], bare: float) -> str:
    median = statistics.median(rates)
    all_turns = ", ".join(f"{rate:,.0f}" for rate in rates)
    return f"| {name} | {median:,.0f} ({all_turns}) | {1e6 / median:.1f} | {median / bare:.2f} |"


if __name__ == "__main__":
    make_page(__doc__, 100_000, report)
