"""How fast the network trains and scores on one GPU, with windows cut there from a coded panel. A CPU runs it small.

    python -m benchmarks.gpu [--series 1000000] [--seconds 255] [--out docs/gpu.md] [--json docs/gpu.json]
    python -m benchmarks.gpu --only losses,medians --base docs/gpu.json --out docs/gpu.md --json docs/gpu.json

Needs torch, numpy, pyarrow, scipy and safetensors. Made-up series of the simulator's shape (4 metrics, 6 behaviors, 3
tasks, 56 days, width 64), about three days in four without a row; nothing is measured on zeros. Times are CUDA events
around every step, medians after a warm-up. Parts that no time is left for, and parts that fail, are named on the page.
The last line is JSON. The second form measures those parts alone and puts them into an earlier run's figures.

A headline takes no form that learns or forecasts something else: ``LIMIT``.

B windows of a batch, N series, T days, M tasks, P metrics, F behaviors, C tokens, H heads, E width of a head, D width.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.model import Backbone
from m2m_model.config import ModelConfig, Task, TrainConfig
from m2m_model.data.features import Inputs, Windows, fit_inputs
from m2m_model.data.panel import Panel
from m2m_model.data.spec import SequenceSpec
from m2m_model.data.statistics import PanelStatistics
from m2m_model.network.coded import CodedPanel
from m2m_model.network.encoder import PatchEmbedding, SummedEmbedding, attend, slot_rows
from m2m_model.network.model import M2M, Batch, Learned

Step = Callable[[], object]

LAST_DAY, DAYS, SCENARIOS = date(2025, 6, 30), 120, 4
SAMPLE = 20_000  # series that inputs are fitted on, and that numpy cuts windows from
SPEC = SequenceSpec(
    metrics=("impressions", "clicks", "spend", "conversions"),
    behaviors=("campaign_created", "budget_raised", "budget_cut", "bid_changed", "top_up", "login"),
    advertiser_attributes=("industry", "tier"),
    scenario_attributes=("placement", "format"),
    tasks=(Task("spend", "spend", "sum"), Task("clicks", "clicks", "sum"), Task("active_days", "active", "days")),
    horizon_days=7,
    window_days=56,
)
PRECISIONS = ("fp32", "tf32", "bf16")
GOALS = {"training": 1_000_000, "scoring": 3_000_000}
LIMIT = 0.002  # a headline's form lies this near to fp32: training in held-out loss, scoring in its medians
FAIR = 32_768  # plain PyTorch's attention trains at most 65,535 windows at once
OUTSIDE = (
    "NVIDIA's published 13.7k items/s of TFT training (hidden size 128, one A100): their figure, not measured here"
)


# Data, made where it is read.


def made_block(series: int, days: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Values of ``series`` (NaN: no row) and their registration: size, rhythm and activity are the advertiser's own."""

    def of_advertisers(draw_A: Tensor) -> Tensor:
        return draw_A.repeat_interleave(SCENARIOS)[:series].unsqueeze(1)

    advertisers = -(-series // SCENARIOS)
    size_N1 = torch.exp(of_advertisers(torch.randn(advertisers, device=device)) * 1.3 + 5)
    size_N1 = size_N1 * torch.exp(torch.randn(series, 1, device=device) * 0.7)
    active_N1 = of_advertisers(torch.rand(advertisers, device=device)) ** 2 * 1.2
    registered_N = torch.randint(-200, days, (series,), device=device, dtype=torch.int32).clamp_min(-150)
    day_T = torch.arange(days, device=device)
    working_T = torch.where(day_T % 7 < 5, 1.0, 0.5)
    on_NT = torch.rand(series, days, device=device) < active_N1 * working_T
    row_NT = on_NT & (day_T >= registered_N.unsqueeze(1))
    noise_NT = torch.exp(torch.randn(series, days, device=device) * 0.5)
    impressions_NT = (size_N1 * working_T * noise_NT).floor()
    clicks_NT = (impressions_NT * 0.05 * torch.exp(torch.randn(series, days, device=device) * 0.3)).floor()
    spend_NT = clicks_NT * torch.exp(torch.randn(series, days, device=device) * 0.4)
    conversions_NT = (clicks_NT * torch.rand(series, days, device=device) * 0.2).floor()
    performance_NTP = torch.stack([impressions_NT, clicks_NT, spend_NT, conversions_NT], -1)
    performance_NTP = performance_NTP.masked_fill(~row_NT.unsqueeze(-1), torch.nan)
    acted_NTF = torch.rand(series, days, len(SPEC.behaviors), device=device)
    behavior_NTF = torch.where(acted_NTF < 0.05, (acted_NTF * 100).ceil(), torch.nan)
    return performance_NTP, behavior_NTF, registered_N


def made_panel(series: int, days: int) -> Panel:
    """The same as numpy's panel, on the CPU."""
    performance, behavior, registered = (tensor.numpy() for tensor in made_block(series, days, torch.device("cpu")))
    number = np.arange(series)
    columns = {"advertiser_id": number // SCENARIOS, "scenario_id": number % SCENARIOS}
    columns |= {"industry": number // SCENARIOS % 12, "tier": number // SCENARIOS % 3}
    columns |= {"placement": number % SCENARIOS, "format": number % 2}
    keys = pa.table({name: [f"{name}-{value}" for value in column] for name, column in columns.items()})
    return Panel(SPEC, LAST_DAY, performance, behavior, registered, keys)


def made_coded(inputs: Inputs, series: int, days: int, device: torch.device) -> CodedPanel:
    """A coded panel of any size, never on the host."""
    coded = CodedPanel(inputs, LAST_DAY - timedelta(days=days - 1), days, series, device)
    block = 32_768
    for start in range(0, series, block):
        coded.fill(start, *made_block(min(block, series - start), days, device))
    number_N = torch.arange(series, device=device)
    total_ATM = torch.zeros(-(-series // SCENARIOS), days, len(SPEC.tasks), device=device)
    total_ATM.index_add_(0, number_N // SCENARIOS, coded.daily_NUM[:, coded.pad :])
    coded.set_advertisers(number_N // SCENARIOS, total_ATM)
    coded.scenario_N.copy_(1 + number_N % SCENARIOS)
    coded.scenario_attributes_NS.copy_(torch.stack([1 + number_N % SCENARIOS, 1 + number_N % 2], 1))
    advertiser_N = number_N // SCENARIOS
    coded.advertiser_attributes_NA.copy_(torch.stack([1 + advertiser_N % 12, 1 + advertiser_N % 3], 1))
    return coded


@dataclass(frozen=True)
class Bed:
    """What every side reads: the panel, the windows that may train (X), the series to score (Y), and the network's
    start."""

    inputs: Inputs
    coded: CodedPanel
    series_X: Tensor
    cutoff_X: Tensor
    series_Y: Tensor
    learned: Learned
    config: ModelConfig = field(default_factory=ModelConfig)

    @property
    def device(self) -> torch.device:
        return self.coded.device

    @classmethod
    def of(cls, inputs: Inputs, coded: CodedPanel, config: ModelConfig) -> Bed:
        """Eligible windows of registered series with 14 days and a horizon that lies in the panel, in random order."""
        draws, last = min(8 * len(coded), 16_000_000), coded.days - 1 - SPEC.horizon_days
        series_X = torch.randint(len(coded), (draws,), device=coded.device)
        cutoff_X = torch.randint(14, last, (draws,), device=coded.device)
        fit_X = coded.silence_NT[series_X, cutoff_X] < SPEC.eligible_days
        fit_X &= cutoff_X + 1 - coded.registered_N[series_X] >= 14
        series_X, cutoff_X = series_X[fit_X], cutoff_X[fit_X]
        served_N = coded.silence_NT[:, -1] < SPEC.eligible_days
        some = slice(0, 50_000)
        batch = coded.windows(series_X[some], cutoff_X[some])
        windows = Windows(*(tensor.cpu().numpy() for tensor in vars(batch).values()))
        target_XM = coded.targets(series_X[some], cutoff_X[some]).cpu().double().numpy()
        learned = Learned.of(windows, target_XM, config.ratio_bins)
        return cls(inputs, coded, series_X, cutoff_X, served_N.nonzero().squeeze(1), learned, config)

    def network(self, kind: str) -> Network:
        torch.manual_seed(1)
        if kind == "M2M":
            return M2M(self.config, self.inputs, self.learned).to(self.device)
        rivals: dict[str, type[Backbone | Plain]] = {"backbone": Backbone, "plain PyTorch": Plain}
        return rivals[kind](self.config, self.inputs).to(self.device)


class Plain(nn.Module):
    """A plain PyTorch transformer of the same size: nn.EmbeddingBag, nn.TransformerEncoderLayer, one linear head."""

    def __init__(self, config: ModelConfig, inputs: Inputs) -> None:
        super().__init__()
        whole, width = M2M(config, inputs), config.width
        self.likelihood, self.loss_of, self.codes, self.patch = (
            whole.likelihood,
            whole.loss_of,
            inputs.codes,
            config.patch_days,
        )
        self.tokens = -(-SPEC.window_days // self.patch)
        features = (len(SPEC.metrics), len(SPEC.behaviors))
        self.embeddings = nn.ModuleList(
            nn.EmbeddingBag(self.patch * count * self.codes, width, mode="sum") for count in features
        )
        self.positions = nn.ModuleList(nn.Embedding(self.tokens, width) for _ in features)
        self.encoders = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, config.heads, 2 * width, config.dropout, "gelu", batch_first=True, norm_first=True
            )
            for _ in features
        )
        joined = 2 * width * len(features) + inputs.dense_features
        self.head = nn.Linear(joined, whole.tasks * whole.likelihood.outputs)

    def forward(self, batch: Batch) -> Tensor:
        absent_BC = ~batch.registered_BL.view(len(batch.level_BM), self.tokens, -1).any(-1)
        absent_BC = torch.cat([absent_BC[:, :-1], torch.zeros_like(absent_BC[:, :1])], 1)
        views = [batch.dense_BD]
        sequences = (batch.performance_BLP, batch.behavior_BLF)
        for code_BLF, embedding, position, encoder in zip(
            sequences, self.embeddings, self.positions, self.encoders, strict=True
        ):
            slots = self.patch * code_BLF.shape[-1]
            token_BCD = embedding(slot_rows(code_BLF.reshape(-1, slots), self.codes)).view(*absent_BC.shape, -1)
            token_BCD = encoder(token_BCD + position.weight, src_key_padding_mask=absent_BC)
            views += [token_BCD[:, -1], token_BCD.mean(1)]
        output_BX: Tensor = self.head(torch.cat(views, 1))
        return output_BX.view(*batch.level_BM.shape, -1)

    def loss(self, batch: Batch, target_BM: Tensor) -> Tensor:
        return self.loss_of(self(batch), batch.level_BM, target_BM)


Network = M2M | Backbone | Plain


# Steps.


@contextmanager
def precision(name: str, device: torch.device) -> Iterator[None]:
    """fp32 products exact; tf32 on matrix units; bf16 by autocast."""
    torch.set_float32_matmul_precision("highest" if name == "fp32" else "high")
    with torch.autocast(device.type, torch.bfloat16, enabled=name == "bf16"):
        yield


def training_step(bed: Bed, kind: str, batch: int, number: str, how: str) -> Callable[[], Tensor]:
    """Windows drawn and cut, forward, loss, backward, gradients clipped, AdamW: as training does it."""
    return training(bed, kind, batch, number, how)[1]


def training(bed: Bed, kind: str, batch: int, number: str, how: str) -> tuple[Network, Callable[[], Tensor]]:
    """A network and the step that trains it."""
    # cuDNN's attention fails on the gradients of large batches in bfloat16; only the plain network asks for it.
    torch.backends.cuda.enable_cudnn_sdp(False)
    network, settings = bed.network(kind).train(), TrainConfig()
    optimizer = torch.optim.AdamW(
        network.parameters(),
        settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
        capturable="graph" in how,
    )

    def loss_of(series_B: Tensor, cutoff_B: Tensor) -> Tensor:
        return network.loss(bed.coded.windows(series_B, cutoff_B), bed.coded.targets(series_B, cutoff_B))

    made = torch.compile(loss_of, dynamic=False) if "compiled" in how else loss_of

    def step() -> Tensor:
        row_B = torch.randint(len(bed.series_X), (batch,), device=bed.device)
        with precision(number, bed.device):
            loss = made(bed.series_X[row_B], bed.cutoff_X[row_B])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return network, graphed(step) if "graph" in how else step


def scoring_step(
    bed: Bed,
    kind: str,
    batch: int,
    number: str,
    how: str,
    to_host: bool = False,
    weights: Mapping[str, Tensor] | None = None,
) -> Callable[[], tuple[Tensor, ...]]:
    """Windows of the newest day cut, forward, and the distribution: mean, zero mass and 43 quantiles a task."""
    torch.backends.cuda.enable_cudnn_sdp(True)
    network = bed.network(kind).eval()
    if weights:
        network.load_state_dict(weights)
    order = torch.arange(batch, device=bed.device)
    cutoff_B = torch.full((batch,), bed.coded.days - 1, device=bed.device)
    first = torch.zeros((), dtype=torch.int64, device=bed.device)

    def laws_of(series_B: Tensor) -> tuple[Tensor, ...]:
        windows = bed.coded.windows(series_B, cutoff_B)
        output_BMQ: Tensor = network(windows).float()
        return network.likelihood.distribution(output_BMQ, windows.level_BM)

    made = torch.compile(laws_of, dynamic=False) if "compiled" in how else laws_of
    hosts: list[Tensor] = []

    def step() -> tuple[Tensor, ...]:
        with torch.no_grad(), precision(number, bed.device):
            laws = made(bed.series_Y[(first + order) % len(bed.series_Y)])
            first.add_(batch)
        if to_host:
            if not hosts:
                pinned = bed.device.type == "cuda"
                hosts.extend(torch.empty(law.shape, dtype=torch.float32, pin_memory=pinned) for law in laws)
            for host, law in zip(hosts, laws, strict=True):
                host.copy_(law.float(), non_blocking=True)
        return laws

    return graphed(step) if "graph" in how else step


def graphed(step: Callable[[], Any]) -> Callable[[], Any]:
    """A step as one CUDA graph, replayed; what it returned is written anew by every replay."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()

    def replay() -> Any:
        graph.replay()
        return result

    return replay


def milliseconds(step: Step, device: torch.device, seconds: float, warm_up: int = 3) -> list[float]:
    """Each of 5..60 steps, in about ``seconds``."""
    for _ in range(warm_up):
        step()
    if device.type != "cuda":
        times = []
        for _ in range(3):
            started = time.perf_counter()
            step()
            times.append((time.perf_counter() - started) * 1e3)
        return times
    torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    torch.cuda.synchronize()
    repeats = int(min(60, max(5, seconds / (time.perf_counter() - started + 1e-9))))
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]  # type: ignore[no-untyped-call]
    marks[0].record()
    for mark in marks[1:]:
        step()
        mark.record()
    torch.cuda.synchronize()
    return [one.elapsed_time(other) for one, other in pairwise(marks)]


# The page.


@dataclass
class Run:
    """What is measured, as it comes; the page is made anew after every part."""

    device: torch.device
    small: bool
    seconds: float
    page_path: Path | None
    json_path: Path | None
    only: tuple[str, ...] = ()
    started: float = field(default_factory=time.monotonic)
    rows: list[dict[str, Any]] = field(default_factory=list)
    sections: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def spent(self) -> float:
        return time.monotonic() - self.started

    def say(self, line: str) -> None:
        print(f"[{self.spent:6.1f} s] {line}", flush=True)

    def part(self, name: str, work: Callable[[], None], needs: float = 0.0) -> None:
        """Do a part when ``needs`` seconds are left for it; what fails is named and the rest goes on."""
        if self.only and not name.startswith(self.only):
            return
        if self.spent + needs > self.seconds:
            self.notes.append(f"{name}: skipped, {self.spent:.0f} s of {self.seconds:.0f} s were spent")
            self.say(self.notes[-1])
            return
        self.say(f"{name} ...")
        try:
            work()
        except Exception as error:  # noqa: BLE001 - one part of many on a machine that is there once
            traceback.print_exc(file=sys.stdout)
            self.notes.append(f"{name}: failed, {type(error).__name__}: {str(error).splitlines()[0][:200]}")
            self.say(self.notes[-1])
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.write()

    def measure(self, what: str, kind: str, batch: int, number: str, how: str, make: Callable[[], Step]) -> None:
        """One row: the median of a step's times, and the memory that it took beside the panel."""
        row: dict[str, Any] = {"what": what, "network": kind, "batch": batch, "precision": number, "how": how}
        self.rows = [other for other in self.rows if any(other[name] != value for name, value in row.items())]
        row["run"] = len(self.raw.get("runs", ())) or 1
        on_gpu = self.device.type == "cuda"
        try:
            if on_gpu:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
            made = time.perf_counter()
            step = make()
            step()
            row["first_step_s"] = time.perf_counter() - made
            times = milliseconds(step, self.device, 0.6)
            row |= {"ms": statistics.median(times), "ms_min": min(times), "ms_max": max(times), "steps": len(times)}
            row["windows_per_s"] = batch / row["ms"] * 1e3
            if on_gpu:
                row["peak_gib"] = (torch.cuda.max_memory_allocated() - before) / 2**30
        except torch.OutOfMemoryError:
            row["failed"] = "out of memory"
        except Exception as error:  # noqa: BLE001 - a form that this machine cannot run is a finding
            traceback.print_exc(file=sys.stdout)
            row["failed"] = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
        self.rows.append(row)
        said = row.get("failed") or f"{row['ms']:.2f} ms, {row['windows_per_s']:,.0f} windows/s"
        self.say(f"{what}, {kind}, B {batch:,}, {number}, {how}: {said}")

    def best(self, what: str, kind: str = "M2M", **fixed: object) -> dict[str, Any] | None:
        """The row of most windows a second among those with the ``fixed`` values."""
        found = [row for row in self.rows if row["what"] == what and row["network"] == kind and "ms" in row]
        found = [row for row in found if all(row[name] == value for name, value in fixed.items())]
        return max(found, key=lambda row: row["windows_per_s"], default=None)

    def headline(self, what: str, number: str | None = None) -> dict[str, Any] | None:
        """The best row of a form (and precision) that was found as good as fp32, eager: ``LIMIT``."""
        apart = {"fp32": 0.0}
        if what == "scoring":
            apart |= self.raw.get("median_apart", {})
        elif "fp32" in (losses := self.raw.get("losses", {})):
            apart |= {form: held / losses["fp32"][1] - 1 for form, (_, held, _) in losses.items()}
        rows = [row for row in self.rows if row["what"] == what and row["network"] == "M2M" and "ms" in row]
        rows = [row for row in rows if apart.get(form_of(row), 1) <= LIMIT and number in (None, row["precision"])]
        return max(rows, key=lambda row: row["windows_per_s"], default=None)

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = {"device": self.raw.get("device", str(self.device))}
        for what, key in (("training", "train"), ("scoring", "score")):
            row = self.headline(what)
            found |= {f"{key}_windows_per_s": round(row["windows_per_s"]) if row else None, f"{key}_how": how_of(row)}
        return found

    def write(self) -> None:
        with self.lock:
            made = {"rows": self.rows, "notes": self.notes, "sections": self.sections}
            raw = {"summary": self.summary(), **self.raw, **made}
            for path, text in ((self.page_path, self.page()), (self.json_path, json.dumps(raw, indent=1) + "\n")):
                if path:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(text, encoding="utf-8")

    def page(self) -> str:
        lines = ["# The network on a GPU", "", "Made by `make bench-gpu`.", ""]
        lines += [f"- Run {number}: {made}" for number, made in enumerate(self.raw.get("runs", ()), 1)]
        lines += [f"\n{remark}" for remark in self.raw.get("remarks", ())]
        lines += ["", self.raw.get("data", ""), "", "## Against the goals", ""]
        lines += ["| | windows/s | goal | of the goal | how |", "| --- | ---: | ---: | ---: | --- |"]
        for what, goal in GOALS.items():
            row = self.headline(what)
            if row:
                speed = row["windows_per_s"]
                lines.append(f"| {what} | {speed:,.0f} | {goal:,} | {speed / goal:.2f} | {how_of(row)} |")
        lines += [
            "",
            f"The best of the forms that stay within {LIMIT:.1%} of fp32, eager: training in held-out loss after",
        ]
        lines += [
            "the same steps, scoring in its medians from the same weights (both below). A form that was not judged"
        ]
        lines += ["so does not count; a CUDA graph is the form that it repeats."]
        for what in GOALS:
            best = [row for number in PRECISIONS if (row := self.headline(what, number))]
            said = "; ".join(f"{row['windows_per_s']:,.0f} ({how_of(row)})" for row in best)
            lines += ["", f"Best of each precision, {what}: {said}."]
        lines += ["", f"Outside reference: {OUTSIDE}.", "", self.raw.get("processes", ""), ""]
        lines += self.beside()
        for what in GOALS:
            lines += self.table_of(what)
        for section in self.sections.values():
            lines += [section, ""]
        lines += self.judged()
        if self.notes:
            lines += ["## Skipped or failed", "", *(f"- {note}" for note in self.notes), ""]
        return "\n".join(lines)

    def judged(self) -> list[str]:
        """How near to fp32 each form learns and forecasts."""
        lines = []
        if losses := self.raw.get("losses"):
            lines += [f"## Loss after {self.raw['losses_of']}, same data and seed", ""]
            lines += ["Held-out windows are judged in fp32, and in the precision itself; always eager.", ""]
            lines += ["| form | last tenth of training | held out | held out, own precision |"]
            lines += ["| --- | ---: | ---: | ---: |"]
            for form, figures in losses.items():
                lines.append(f"| {form} | " + " | ".join(f"{figure:.5f}" for figure in figures) + " |")
            lines += [""]
        if apart := self.raw.get("median_apart"):
            said = ", ".join(f"{form} {share:.3%}" for form, share in apart.items())
            lines += ["## Medians against those of fp32, eager, the same weights", ""]
            lines += [f"Sum of differences over their sum: {said}.", ""]
        return lines

    def beside(self) -> list[str]:
        """M2M over the bare backbone and plain PyTorch, at the same batch and precision."""
        lines = ["## Beside plain networks of the same size", ""]
        lines += [
            "The backbone is M2M's encoders and one linear head; plain PyTorch is nn.EmbeddingBag,",
            "nn.TransformerEncoderLayer and one linear head. All read the same windows, cut on the device. In training",
            "plain PyTorch runs without cuDNN's attention, whose gradients fail on these batches in bfloat16, and at",
            f"B {FAIR:,}, for the attention that is left takes at most 65,535.",
            "",
        ]
        lines += ["| | B | precision, how | M2M windows/s | backbone | M2M / backbone | plain PyTorch | M2M / plain |"]
        lines += ["| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |"]
        others = [row for row in self.rows if row["network"] != "M2M" and "ms" in row]
        names = ("what", "batch", "precision", "how")
        for what, batch, number, how in dict.fromkeys(tuple(row[name] for name in names) for row in others):
            same = {"batch": batch, "precision": number, "how": how}
            m2m = self.best(what, **same)
            if not m2m:
                continue
            cells = [what, f"{batch:,}", f"{number}, {how}", f"{m2m['windows_per_s']:,.0f}"]
            for kind in ("backbone", "plain PyTorch"):
                other = self.best(what, kind, **same)
                ratio = other and m2m["windows_per_s"] / other["windows_per_s"]
                cells += [f"{other['windows_per_s']:,.0f}", f"{ratio:.2f}"] if other else ["-", "-"]
            lines.append(f"| {' | '.join(cells)} |")
        return [*lines, ""]

    def table_of(self, what: str) -> list[str]:
        lines = [f"## {what.capitalize()}", ""]
        lines += ["| network | B | precision | how | ms a step (min .. max) | windows/s | GiB beside the panel | run |"]
        lines += ["| --- | ---: | --- | --- | ---: | ---: | ---: | ---: |"]
        for row in (row for row in self.rows if row["what"].startswith(what)):
            cells = [row["network"], f"{row['batch']:,}", row["precision"], row["how"]]
            if "ms" in row:
                cells += [f"{row['ms']:.2f} ({row['ms_min']:.2f} .. {row['ms_max']:.2f})"]
                cells += [f"{row['windows_per_s']:,.0f}", f"{row['peak_gib']:.2f}" if "peak_gib" in row else "-"]
            else:
                cells += [row["failed"], "-", "-"]
            cells.append(str(row["run"]))
            lines.append(f"| {' | '.join(cells)} |")
        return [*lines, ""]


def form_of(row: dict[str, Any]) -> str:
    """What decides a row's figures: "bf16", or "bf16 compiled"."""
    how = row["how"].replace("CUDA graph", "").strip(", ")
    return row["precision"] if how in ("", "eager") else f"{row['precision']} {how}"


def how_of(row: dict[str, Any] | None) -> str | None:
    return f"B {row['batch']:,}, {row['precision']}, {row['how']}" if row else None


# Parts.


def machine(device: torch.device) -> tuple[str, str]:
    """The device's name, and the line that says what all of it ran on."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU ({platform.machine()})"
    parts = [name, f"{os.cpu_count()} cores", f"Python {platform.python_version()}", f"PyTorch {torch.__version__}"]
    return name, ", ".join([*parts, str(datetime.now(UTC).date()), f"code {code_digest()}"])


def code_digest() -> str:
    """Of the files that are measured, and of this one: a copy elsewhere has no history, or another."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted([*root.glob("m2m_model/**/*.py"), *root.glob("benchmarks/*.py")]):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def ceilings(run: Run) -> None:
    """What the device can do: bytes copied (read + written), and products."""
    cells, size = run.device, 2**28 if run.device.type == "cuda" else 2**22
    source, into = torch.rand(size, device=cells), torch.empty(size, device=cells)
    found = {
        "copy_bytes_per_s": 8 * size / statistics.median(milliseconds(partial(into.copy_, source), cells, 0.3)) * 1e3
    }
    side = 8192 if run.device.type == "cuda" else 256
    for name in PRECISIONS:
        dtype = torch.bfloat16 if name == "bf16" else torch.float32
        left, right = (torch.randn(side, side, device=cells, dtype=dtype) for _ in range(2))
        torch.set_float32_matmul_precision("highest" if name == "fp32" else "high")

        found[f"{name}_flop_per_s"] = (
            2 * side**3 / statistics.median(milliseconds(partial(torch.mm, left, right), cells, 0.3)) * 1e3
        )
    run.raw["ceilings"] = found
    products = ", ".join(f"{name} {found[f'{name}_flop_per_s'] / 1e12:,.1f}" for name in PRECISIONS)
    run.sections["ceilings"] = (
        f"## The device's ceilings, measured in this run\n\nCopy {found['copy_bytes_per_s'] / 1e12:.2f} TB/s (read and "
        f"written); products of {side:,} x {side:,} random matrices, TFLOP/s: {products}."
    )
    run.say(run.sections["ceilings"].splitlines()[-1])


def flops_of(run: Run, bed: Bed) -> None:
    """Products per window, counted by PyTorch."""
    batch = 256
    counts = {}
    for what, step in (
        ("training", training_step(bed, "M2M", batch, "fp32", "eager")),
        ("scoring", scoring_step(bed, "M2M", batch, "fp32", "eager")),
    ):
        with FlopCounterMode(display=False) as counter:
            step()
        counts[what] = counter.get_total_flops() / batch
    run.raw["flop_per_window"] = counts
    lines = [f"{what} {count / 1e6:.2f} MFLOP" for what, count in counts.items()]
    text = f"## Floors\n\nProducts a window, counted by PyTorch: {', '.join(lines)}."
    if ceiling := run.raw.get("ceilings"):
        for number in PRECISIONS:
            most = [f"{what} {ceiling[f'{number}_flop_per_s'] / count:,.0f}" for what, count in counts.items()]
            text += f" At the {number} ceiling that is {', '.join(most)} windows/s at most."
    run.sections["floors"] = text
    run.say(text.splitlines()[-1])


def grid(run: Run, bed: Bed, batches: Sequence[int]) -> None:
    for batch in batches:
        for number in PRECISIONS:
            run.measure(
                "training",
                "M2M",
                batch,
                number,
                "eager",
                partial(training_step, bed, "M2M", batch, number, "eager"),
            )
    for batch in batches:
        for number in PRECISIONS:
            run.measure(
                "scoring",
                "M2M",
                batch,
                number,
                "eager",
                partial(scoring_step, bed, "M2M", batch, number, "eager"),
            )


def other_forms(run: Run, bed: Bed, what: str, kinds: Sequence[str], batch: int, number: str, how: str) -> None:
    for kind in kinds:
        if what == "training":
            run.measure(what, kind, batch, number, how, partial(training_step, bed, kind, batch, number, how))
        else:
            run.measure(what, kind, batch, number, how, partial(scoring_step, bed, kind, batch, number, how))
    if "compiled" in how:
        torch._dynamo.reset()


def to_the_host(run: Run, bed: Bed, batch: int, number: str) -> None:
    """Scoring, and all 45 figures a task copied to the host's memory."""
    form = "eager, copied to the host"
    run.measure(
        "scoring to the host",
        "M2M",
        batch,
        number,
        form,
        lambda: scoring_step(bed, "M2M", batch, number, "eager", True),
    )


def windows_alone(run: Run, bed: Bed, batch: int) -> None:
    """Cutting alone: on the device, and as before with numpy and a copy."""
    row_B = torch.randint(len(bed.series_X), (batch,), device=bed.device)
    series_B, cutoff_B = bed.series_X[row_B], bed.cutoff_X[row_B]

    def cut() -> tuple[Batch, Tensor]:
        return bed.coded.windows(series_B, cutoff_B), bed.coded.targets(series_B, cutoff_B)

    spent = statistics.median(milliseconds(cut, bed.device, 0.5))
    run.raw["windows_alone_per_s"] = batch / spent * 1e3
    size = sum(tensor.nbytes for tensor in vars(cut()[0]).values()) / batch
    run.raw["bytes_a_window"] = size
    run.say(f"windows alone: {batch / spent * 1e3:,.0f} a second, {size:.0f} bytes each")


def before(run: Run, bed: Bed, panel: Panel, batch: int) -> None:
    """The path without coded panels: numpy cuts the windows, and they are copied to the device."""
    inputs, profile, random = bed.inputs, bed.inputs.profile(panel), np.random.default_rng(1)
    found: dict[str, float] = {}
    _ = panel.advertiser_total_ATM  # made once, as the coded panel is
    network = bed.network("M2M").train()
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)

    def cut() -> Batch:
        series, cutoff = random.integers(0, len(panel), batch), random.integers(60, panel.days - 8, batch)
        return Batch.of(inputs.windows(panel, profile, series, cutoff), bed.device)

    target_BM = torch.rand(batch, len(SPEC.tasks), device=bed.device)

    def train() -> None:
        network.loss(cut(), target_BM).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def score() -> None:
        with torch.no_grad():
            windows = cut()
            network.likelihood.distribution(network(windows), windows.level_BM)

    for name, step in (("windows", cut), ("training", train), ("scoring", score)):
        torch.set_float32_matmul_precision("highest")
        found[name] = batch / statistics.median(milliseconds(step, bed.device, 0.8, warm_up=1)) * 1e3
    run.raw["before_windows_per_s"] = found
    lines = ["## Before: windows cut by numpy on the host", ""]
    lines += [f"One process, {batch:,} windows a batch, copied to the device; fp32, eager.", ""]
    lines += [
        "| | numpy and a copy, windows/s | cut on the device, windows/s | times |",
        "| --- | ---: | ---: | ---: |",
    ]
    after = {"windows": run.raw.get("windows_alone_per_s")}
    for what in GOALS:
        row = run.best(what, batch=batch, precision="fp32", how="eager")
        after[what] = row and row["windows_per_s"]
    for name, speed in found.items():
        now = after[name]
        lines.append(f"| {name} | {speed:,.0f} | {f'{now:,.0f} | {now / speed:.1f}' if now else '- | -'} |")
    run.sections["before"] = "\n".join(lines)
    run.say("; ".join(lines[-3:]))


def shares(run: Run, bed: Bed, batch: int, number: str) -> None:
    """Where a step's time goes: each side does what the one before it does, and more."""
    network = bed.network("M2M").train()
    assert isinstance(network, M2M)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)

    def cut() -> tuple[Batch, Tensor]:
        row_B = torch.randint(len(bed.series_X), (batch,), device=bed.device)
        series_B, cutoff_B = bed.series_X[row_B], bed.cutoff_X[row_B]
        return bed.coded.windows(series_B, cutoff_B), bed.coded.targets(series_B, cutoff_B)

    def encoded(windows: Batch) -> Tensor:
        views = [network.performance(windows.performance_BLP, windows.registered_BL)]
        if network.behavior is not None:
            views.append(network.behavior(windows.behavior_BLF, windows.registered_BL))
        return torch.cat(views, 1)

    def encoders() -> None:
        windows, _ = cut()
        with precision(number, bed.device):
            view_BX = encoded(windows)
        view_BX.backward(view_BX.detach())  # type: ignore[no-untyped-call]
        optimizer.zero_grad(set_to_none=True)

    def gradients() -> None:
        windows, target_BM = cut()
        with precision(number, bed.device):
            loss = network.loss(windows, target_BM)
        loss.backward()  # type: ignore[no-untyped-call]

    def whole_gradients() -> None:
        gradients()
        optimizer.zero_grad(set_to_none=True)

    def whole() -> None:
        gradients()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def view() -> None:
        with torch.no_grad():
            windows, _ = cut()
            with precision(number, bed.device):
                encoded(windows)

    def output() -> tuple[Tensor, Batch]:
        with torch.no_grad():
            windows, _ = cut()
            with precision(number, bed.device):
                return network(windows).float(), windows

    def laws() -> None:
        output_BMQ, windows = output()
        network.likelihood.distribution(output_BMQ, windows.level_BM)

    sides: dict[str, dict[str, Step]] = {
        "training": {
            "windows and targets": cut,
            "+ encoders, forward and backward": encoders,
            "+ S~, experts, meta, head, loss": whole_gradients,
            "+ clipping and AdamW": whole,
        },
        "scoring": {"windows": cut, "+ encoders": view, "+ S~, experts, meta, head": output, "+ distribution": laws},
    }
    lines = [f"## Where the time goes: B {batch:,}, {number}, eager", ""]
    lines += ["Each side does what the one before it does, and more.", ""]
    lines += ["| | ms | of the step |", "| --- | ---: | ---: |"]
    for what, steps in sides.items():
        network.train(what == "training")
        times = {name: statistics.median(milliseconds(step, bed.device, 0.5)) for name, step in steps.items()}
        total, last = list(times.values())[-1], 0.0
        for name, spent in times.items():
            lines.append(f"| {what}: {name} | {spent:.2f} | {(spent - last) / total:.0%} |")
            last = spent
        run.raw.setdefault("shares_ms", {})[f"{what} {number} {batch}"] = times
    run.sections[f"shares {number}"] = "\n".join(lines)
    print(run.sections[f"shares {number}"], flush=True)


def kernels(run: Run, bed: Bed, what: str, batch: int, number: str, how: str, most: int = 22) -> None:
    """The profiler's list of what ran longest on the device."""
    make = training_step if what == "training" else scoring_step
    step = make(bed, "M2M", batch, number, how)
    for _ in range(3):
        step()
    on_gpu = run.device.type == "cuda"
    activity = torch.profiler.ProfilerActivity
    activities = [activity.CPU, activity.CUDA] if on_gpu else [activity.CPU]
    if on_gpu:
        torch.cuda.synchronize()
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(2):
            step()
        if on_gpu:
            torch.cuda.synchronize()
    if "compiled" in how:
        torch._dynamo.reset()
    found: dict[str, tuple[float, int]] = {}
    for event in profile.key_averages():
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if spent > 0 and (not on_gpu or "CUDA" in str(event.device_type)):
            found[event.key] = (spent / 2e3, event.count // 2)
    ranked = sorted(found.items(), key=lambda item: -item[1][0])
    total = sum(spent for spent, _ in found.values())
    title = f"## Kernels of a {what} step: B {batch:,}, {number}, {how}"
    lines = [title, "", f"torch.profiler, a mean of 2 steps, {total:.2f} ms on the device in all.", ""]
    lines += ["| kernel | calls | ms | share |", "| --- | ---: | ---: | ---: |"]
    for name, (spent, count) in ranked[:most]:
        lines.append(f"| `{name.replace('|', '/')[:110]}` | {count} | {spent:.3f} | {spent / total:.1%} |")
    run.raw.setdefault("kernels", {})[f"{what} {number} {how} {batch}"] = [
        {"kernel": name, "ms": spent, "calls": count} for name, (spent, count) in ranked[:80]
    ]
    run.sections[f"kernels {what} {how}"] = "\n".join(lines)
    print(run.sections[f"kernels {what} {how}"], flush=True)


def losses(run: Run, bed: Bed, steps: int, batch: int, number: str, how: str) -> None:
    """The loss of a form after the same steps from the same seed, judged in fp32 on windows apart."""
    held = max(len(bed.series_X) // 20, 1)
    train_bed = replace(bed, series_X=bed.series_X[held:], cutoff_X=bed.cutoff_X[held:])
    network, step = training(train_bed, "M2M", batch, number, how)
    torch.manual_seed(2)
    seen = torch.stack([step() for _ in range(steps)])
    network.eval()
    judged: dict[str, list[Tensor]] = {"fp32": [], number: []}
    part = min(batch, 8192)
    for own, found in judged.items():
        for start in range(0, min(held, 16 * part) - part + 1, part):
            rows = slice(start, start + part)
            with torch.no_grad(), precision(own, bed.device):
                windows = bed.coded.windows(bed.series_X[rows], bed.cutoff_X[rows])
                target_BM = bed.coded.targets(bed.series_X[rows], bed.cutoff_X[rows])
                found.append(network.loss(windows, target_BM))
    figures = [float(seen[-max(steps // 10, 1) :].mean())]
    figures += [float(torch.stack(judged[own]).mean()) for own in ("fp32", number)]
    if "compiled" in how:
        torch._dynamo.reset()
    said = f"{steps} steps of {batch:,} windows"
    if run.raw.get("losses_of") != said:
        run.raw |= {"losses_of": said, "losses": {}}  # losses after other steps are no match for these
    run.raw["losses"][form_of({"precision": number, "how": how})] = figures
    run.say(f"{number}, {how}, after {said}: " + ", ".join(f"{figure:.5f}" for figure in figures))


def agreement(run: Run, bed: Bed, batch: int) -> None:
    """How far medians of other forms lie from those of fp32, eager: the same weights, after a few steps."""
    network, step = training(bed, "M2M", batch, "fp32", "eager")
    for _ in range(100 if run.device.type == "cuda" else 3):
        step()
    weights = network.state_dict()
    forms = [(number, "eager") for number in PRECISIONS]
    if run.device.type == "cuda":
        forms += [("bf16", "compiled")]
    expected = None
    for number, how in forms:
        median = scoring_step(bed, "M2M", batch, number, how, weights=weights)()[2]
        median = median[len(median) // 2].double()
        expected = median if expected is None else expected
        apart = float((median - expected).abs().sum() / expected.abs().sum())
        if number != "fp32":
            run.raw.setdefault("median_apart", {})[form_of({"precision": number, "how": how})] = apart
        run.say(f"medians of {number}, {how}: {apart:.3%} from those of fp32")
    torch._dynamo.reset()


def tried(run: Run, bed: Bed, batch: int) -> None:
    """Parts of the encoder in several forms, forward and backward, alone."""
    device, config = bed.device, bed.config
    width, heads = config.width, config.heads
    windows = bed.coded.windows(bed.series_X[:batch], bed.cutoff_X[:batch])
    embedding = PatchEmbedding(len(SPEC.metrics), bed.inputs.codes, 56, config.patch_days, width).to(device)
    table = embedding.value
    code_XS = windows.performance_BLP.reshape(-1, config.patch_days * len(SPEC.metrics))
    tokens = len(code_XS) // batch
    split_BC3HE = torch.randn(batch, tokens, 3, heads, width // heads, device=device, requires_grad=True)
    present_BC = windows.registered_BL.view(batch, tokens, -1).any(-1)
    present_BC[:, -1] = True

    def attended(form: Callable[..., Tensor], dtype: torch.dtype) -> Callable[[], Tensor]:
        def mix() -> Tensor:
            query, key, value = split_BC3HE.to(dtype).permute(2, 0, 3, 1, 4)
            return form(query, key, value, present_BC)

        return mix

    def library(query: Tensor, key: Tensor, value: Tensor, present_BC: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=present_BC[:, None, None])

    def summed() -> Tensor:
        total_XD: Tensor = SummedEmbedding.apply(code_XS, table.weight)  # type: ignore[no-untyped-call]
        return total_XD

    torch.backends.cuda.enable_cudnn_sdp(False)
    sides: dict[str, tuple[Callable[[], Tensor], str]] = {}
    for number in ("fp32", "bf16"):
        dtype = torch.bfloat16 if number == "bf16" else torch.float32
        sides |= {
            f"embedding: EmbeddingBag, {number}": (lambda: table(slot_rows(code_XS, bed.inputs.codes)), number),
            f"embedding: SummedEmbedding, {number}": (summed, number),
            f"attention: scaled_dot_product_attention, {number}": (attended(library, dtype), number),
            f"attention: attend, {number}": (attended(attend, dtype), number),
        }
        if device.type == "cuda":
            whole, part = torch.compile(attend, dynamic=False), torch.compile(summed, dynamic=False)
            sides[f"embedding: SummedEmbedding, compiled, {number}"] = (part, number)
            sides[f"attention: attend, compiled, {number}"] = (attended(whole, dtype), number)
    lines = [f"## Forms of the encoder's parts, alone: B {batch:,}", ""]
    lines += ["| | forward, ms | forward and backward, ms |", "| --- | ---: | ---: |"]
    leaves = [table.weight, split_BC3HE]
    for name, (side, number) in sides.items():
        try:
            with precision(number, device):
                down = torch.randn_like(side())

            def forward(side: Callable[[], Tensor] = side, number: str = number) -> None:
                with torch.no_grad(), precision(number, device):
                    side()

            def both(side: Callable[[], Tensor] = side, number: str = number, down: Tensor = down) -> None:
                with precision(number, device):
                    result = side()
                torch.autograd.grad(result, leaves, down, allow_unused=True)

            spent = [statistics.median(milliseconds(step, device, 0.25)) for step in (forward, both)]
        except Exception as error:  # noqa: BLE001 - a form that this machine cannot run is a finding
            lines.append(f"| {name} | {type(error).__name__}: {str(error).splitlines()[0][:80]} | - |")
            continue
        run.raw.setdefault("tried_ms", {})[name] = spent
        lines.append(f"| {name} | {spent[0]:.2f} | {spent[1]:.2f} |")
    if device.type == "cuda":
        torch._dynamo.reset()
    run.sections["forms of parts"] = "\n".join(lines)
    print(run.sections["forms of parts"], flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, help="1,000,000 on a GPU, 4,000 on a CPU")
    parser.add_argument("--days", type=int, default=DAYS, help="of the panel")
    parser.add_argument("--batches", help="sizes, with commas between")
    parser.add_argument("--seconds", type=float, default=255, help="no part starts after this; 30 more end the run")
    parser.add_argument("--only", default="", help="beginnings of parts' names, with commas between: no others")
    parser.add_argument("--base", type=Path, help="raw figures of an earlier run, which this one replaces or adds to")
    parser.add_argument("--out", type=Path, help="also write the page to this file")
    parser.add_argument("--json", type=Path, help="also write the raw figures to this file")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    asked = parse(arguments)
    device = torch.device(asked.device)
    on_gpu = device.type == "cuda"
    only = tuple(name for name in asked.only.split(",") if name)
    run = Run(device, not on_gpu, asked.seconds, asked.out, asked.json, only)
    if asked.base:
        run.raw = json.loads(asked.base.read_text(encoding="utf-8"))
        run.rows, run.sections = run.raw.pop("rows"), run.raw.pop("sections")
        del run.raw["notes"], run.raw["summary"]
    series = asked.series or (1_000_000 if on_gpu else 4_000)
    batches = [1024, 4096, 16384, 65536, 131072] if on_gpu else [256]
    if asked.batches:
        batches = [int(size) for size in asked.batches.split(",")]
    run.raw["device"], made = machine(device)
    run.raw.setdefault("runs", []).append(f"{made}{f': {asked.only}' if only else ''}")
    gpus = torch.cuda.device_count() if on_gpu else 0
    run.raw["processes"] = f"One process; torchrun over more was not measured (GPUs of this machine: {gpus})."

    def out_of_time() -> None:
        run.notes.append(f"the run was ended after {run.spent:.0f} s")
        run.write()
        print(run.page(), flush=True)
        print(json.dumps(run.summary()), flush=True)
        os._exit(0)

    watchdog = threading.Timer(asked.seconds + 30, out_of_time)
    watchdog.daemon = True
    watchdog.start()

    torch.manual_seed(1)
    if on_gpu:
        torch.zeros(1, device=device)
    run.part("ceilings", lambda: ceilings(run))
    run.say("making data ...")
    panel = made_panel(min(SAMPLE, series), asked.days)
    inputs = fit_inputs(PanelStatistics.of(panel, panel.last_day))
    coded = made_coded(inputs, series, asked.days, device)
    bed = Bed.of(inputs, coded, ModelConfig())
    empty = float((coded.performance_NUP[: 10 * SAMPLE, coded.pad :, 0] < 2).float().mean())
    windows = coded.windows(bed.series_X[:50_000], bed.cutoff_X[:50_000])
    empty_windows = float((windows.performance_BLP[..., 0] < 2).float().mean())
    text = (
        f"{series:,} made-up series over {asked.days} days; {empty:.0%} of all days and {empty_windows:.0%} of the "
        f"days in training windows have no row. Coded, they take {coded.size_bytes / 2**30:.1f} GiB, "
        f"{coded.size_bytes / series:,.0f} bytes a series"
    )
    if on_gpu:
        memory = torch.cuda.get_device_properties(device).total_memory
        fit = (memory - 20 * 2**30) * series // coded.size_bytes
        text += f": about {fit / 1e6:.0f} million fit beside a step's 20 GiB in the device's {memory / 2**30:.0f} GiB"
    run.raw["data"] = f"{text}. {len(bed.series_Y):,} of them are eligible on the newest day and are scored."
    run.say(run.raw["data"])

    large = max(size for size in batches if size <= 65536)
    run.part("windows alone", lambda: windows_alone(run, bed, large))
    run.part("products a window", lambda: flops_of(run, bed))
    run.part("batches and precisions", lambda: grid(run, bed, batches))
    fair, networks = min(large, FAIR), ("M2M", "backbone", "plain PyTorch")
    best = run.best("scoring", how="eager") or {"batch": large, "precision": "bf16"}
    scored = best["batch"], best["precision"]
    run.part("scoring to the host", lambda: to_the_host(run, bed, *scored))
    run.part("plain training", lambda: other_forms(run, bed, "training", networks, fair, "bf16", "eager"))
    run.part("plain scoring", lambda: other_forms(run, bed, "scoring", networks[1:], *scored, "eager"))
    run.part("where the time goes, bf16", lambda: shares(run, bed, large, "bf16"))
    run.part("kernels of training", lambda: kernels(run, bed, "training", large, "bf16", "eager"))
    run.part("kernels of scoring", lambda: kernels(run, bed, "scoring", large, "bf16", "eager"))
    small = 4096 if on_gpu else large
    run.part("before", lambda: before(run, bed, panel, small))
    if on_gpu:
        for size in dict.fromkeys((1024, 4096, large)):
            for what in GOALS:
                run.part(
                    f"CUDA graph, {what}, B {size:,}",
                    partial(other_forms, run, bed, what, ("M2M",), size, "bf16", "CUDA graph"),
                )
    steps = 150 if on_gpu else 4
    for number in PRECISIONS:
        part = partial(losses, run, bed, steps, fair, number, "eager")
        run.part(f"losses {number} eager", part, 8 if on_gpu else 0)
    if on_gpu:

        def compiled(what: str, kind: str, batch: int, number: str = "bf16", how: str = "compiled") -> None:
            other_forms(run, bed, what, (kind,), batch, number, how)

        # The compiler's cache keeps what a batch of one size made: parts after the first of a kind are short.
        run.part("compiled training", partial(compiled, "training", "M2M", fair), 40)
        run.part("losses bf16 compiled", partial(losses, run, bed, steps, fair, "bf16", "compiled"), 15)
        run.part("compiled scoring", partial(compiled, "scoring", "M2M", large), 25)
        run.part("compiled graph", partial(compiled, "scoring", "M2M", large, how="compiled, CUDA graph"), 10)
    run.part("medians", lambda: agreement(run, bed, large), 15 if on_gpu else 0)
    if on_gpu:
        run.part("compiled plain training", partial(compiled, "training", "plain PyTorch", fair), 25)
        run.part("compiled tf32 training", partial(compiled, "training", "M2M", fair, "tf32"), 35)
        run.part("losses tf32 compiled", partial(losses, run, bed, steps, fair, "tf32", "compiled"), 12)
        run.part("compiled backbone training", partial(compiled, "training", "backbone", fair), 25)
        run.part("compiled plain scoring", partial(compiled, "scoring", "plain PyTorch", large), 20)
        run.part("compiled backbone scoring", partial(compiled, "scoring", "backbone", large), 20)
        for what, batch in (("training", fair), ("scoring", large)):
            run.part(f"kernels of {what}, compiled", partial(kernels, run, bed, what, batch, "bf16", "compiled"), 10)
    run.part("forms of parts", lambda: tried(run, bed, large), 25)
    if on_gpu:
        run.part("where the time goes, fp32", lambda: shares(run, bed, large, "fp32"), 5)
    watchdog.cancel()
    run.write()
    print(run.page())
    print(json.dumps(run.summary()))


if __name__ == "__main__":
    main()
