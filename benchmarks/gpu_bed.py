"""The GPU benchmark's data, networks and steps: series made up on the device, and what is timed on them.

B windows of a batch, N series, T days, U days and one, M tasks, P metrics, F behaviors, C tokens, H heads, E width of a
head, D width. X and Y of a panel's days as in data/panel.py, of a ``Bed`` as it says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.model import Backbone
from m2m_model.config import ACTIVE, ModelConfig, Task, TrainConfig
from m2m_model.data.features import Inputs
from m2m_model.data.grid import LARGEST, NOTHING, SHIFT
from m2m_model.data.panel import Panel, lead
from m2m_model.data.spec import SequenceSpec
from m2m_model.network.encoder import slot_rows
from m2m_model.network.model import M2M, Batch, Learned
from m2m_model.network.windows import Days, Windows

Step = Callable[[], object]
LAST_DAY, DAYS, SCENARIOS = date(2025, 6, 30), 120, 4
SAMPLE = 20_000  # series that inputs are fitted on, and that windows are cut from on the host
BLOCK = 32_768  # series made up at a time
SPEC = SequenceSpec(
    metrics=("impressions", "clicks", "spend", "conversions"),
    behaviors=("campaign_created", "budget_raised", "budget_cut", "bid_changed", "top_up", "login"),
    advertiser_attributes=("industry", "tier"),
    scenario_attributes=("placement", "format"),
    tasks=(Task("spend", "spend", "sum"), Task("clicks", "clicks", "sum"), Task("active_days", "active", "days")),
    horizons_days=(7,),
    window_days=56,
)


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
    """The same as a panel, on the CPU."""
    performance, behavior, registered = (tensor.numpy() for tensor in made_block(series, days, torch.device("cpu")))
    number = np.arange(series)
    columns = {"advertiser_id": number // SCENARIOS, "scenario_id": number % SCENARIOS}
    columns |= {"industry": number // SCENARIOS % 12, "tier": number // SCENARIOS % 3}
    columns |= {"placement": number % SCENARIOS, "format": number % 2}
    keys = pa.table({name: [f"{name}-{value}" for value in column] for name, column in columns.items()})
    return Panel.of_values(SPEC, LAST_DAY, performance, behavior, registered, keys)


def to_grid(value_x: Tensor) -> Tensor:
    """``data.grid.to_grid``, on the device."""
    bits_x = value_x.clamp(0, LARGEST).view(torch.int32) & 0x7FFFFFFF
    return (bits_x >> SHIFT).clamp_max(NOTHING).to(torch.int16)


def daily_totals(performance_NTP: Tensor) -> Tensor:
    """``data.spec.daily_totals``, on the device."""
    value_NTP = torch.where(performance_NTP > 0, performance_NTP, 0.0)
    columns = []
    for task in SPEC.tasks:
        active = task.metric == ACTIVE
        value_NT = value_NTP.amax(-1) if active else value_NTP[..., SPEC.metrics.index(task.metric)]
        columns.append(value_NT if task.aggregate == "sum" else (value_NT > 0).float())
    return torch.stack(columns, -1)


def made_days(series: int, days: int, device: torch.device) -> Days:
    """Days of any number of series, never on the host."""
    ahead, advertisers = lead(SPEC), -(-series // SCENARIOS)

    def nothing(rows: int, columns: int, point: float, dtype: torch.dtype) -> Tensor:
        return torch.full((ahead + rows * days, columns), point, dtype=dtype, device=device)

    performance_XP = nothing(series, len(SPEC.metrics), NOTHING, torch.int16)
    behavior_XF = nothing(series, len(SPEC.behaviors), NOTHING, torch.int16)
    daily_XM = nothing(series, len(SPEC.tasks), 0, torch.float32)
    total_YM = nothing(advertisers, len(SPEC.tasks), 0, torch.float32)
    number_N = torch.arange(series, device=device)
    registered_N = torch.zeros_like(number_N)
    for start in range(0, series, BLOCK):
        own = slice(start, min(start + BLOCK, series))
        performance_NTP, behavior_NTF, registered_N[own] = made_block(own.stop - start, days, device)
        rows = slice(ahead + own.start * days, ahead + own.stop * days)
        performance_XP[rows] = to_grid(performance_NTP).flatten(0, 1)
        behavior_XF[rows] = to_grid(behavior_NTF).flatten(0, 1)
        daily_XM[rows] = daily_totals(performance_NTP).flatten(0, 1)
    advertiser_N = number_N // SCENARIOS
    daily_NTM = daily_XM[ahead:].view(series, days, -1)
    total_YM[ahead:].view(advertisers, days, -1).index_add_(0, advertiser_N, daily_NTM)
    return Days(
        SPEC,
        days,
        (LAST_DAY - timedelta(days=days - 1)).weekday(),
        performance_XP,
        behavior_XF,
        daily_XM,
        total_YM,
        nothing(series, 0, NOTHING, torch.int16),
        registered_N,
        advertiser_N,
        1 + number_N % SCENARIOS,
        torch.stack([1 + number_N % SCENARIOS, 1 + number_N % 2], 1),
        torch.stack([1 + advertiser_N % 12, 1 + advertiser_N % 3], 1),
    )


def size_bytes(days: Days) -> int:
    return sum(value.nbytes for value in vars(days).values() if isinstance(value, Tensor))


def row_NT(days: Days) -> Tensor:
    """On which days a series has a row."""
    return (days.performance_XP[lead(SPEC) :] != NOTHING).any(1).view(-1, days.days)


@dataclass(frozen=True)
class Bed:
    """What every side reads: a panel's days, the windows that may train (X), the series to score (Y), and the
    network's start."""

    inputs: Inputs
    days: Days
    cut: Windows
    series_X: Tensor
    cutoff_X: Tensor
    series_Y: Tensor
    learned: Learned
    config: ModelConfig = field(default_factory=ModelConfig)

    @property
    def device(self) -> torch.device:
        return self.cut.device

    def windows(self, series_B: Tensor, cutoff_B: Tensor) -> Batch:
        return self.cut.of(self.days.runs(series_B, cutoff_B))

    def examples(self, series_B: Tensor, cutoff_B: Tensor) -> tuple[Batch, Tensor]:
        """Windows, and what came of them in units of the tasks' scales."""
        return self.windows(series_B, cutoff_B), self.days.totals_after(series_B, cutoff_B) / self.cut.scale_X

    @classmethod
    def of(cls, inputs: Inputs, days: Days, config: ModelConfig) -> Bed:
        """Eligible windows of registered series with 14 days and a horizon that lies in the panel, in random order."""
        series, device = len(days.registered_N), days.daily_XM.device
        cut, seen_NU = Windows(inputs, device), functional.pad(row_NT(days).cumsum(1, dtype=torch.int16), (1, 0))

        def eligible(series_X: Tensor, cutoff_X: Tensor) -> Tensor:
            before_X = (cutoff_X + 1 - SPEC.eligible_days).clamp_min(0)
            return seen_NU[series_X, cutoff_X + 1] > seen_NU[series_X, before_X]

        draws, last = min(8 * series, 16_000_000), days.days - 1 - SPEC.horizon_days
        series_X = torch.randint(series, (draws,), device=device)
        cutoff_X = torch.randint(14, last, (draws,), device=device)
        fit_X = eligible(series_X, cutoff_X) & (cutoff_X + 1 - days.registered_N[series_X] >= 14)
        series_X, cutoff_X = series_X[fit_X], cutoff_X[fit_X]
        number_N = torch.arange(series, device=device)
        series_Y = number_N[eligible(number_N, torch.full_like(number_N, days.days - 1))]
        sample = series_X[:50_000], cutoff_X[:50_000]
        batch, target_BM = cut.of(days.runs(*sample)), days.totals_after(*sample) / cut.scale_X
        dense_XD, level_XM, target_XM = (part.cpu().numpy() for part in (batch.dense_BD, batch.level_BM, target_BM))
        learned = Learned.of(dense_XD, level_XM, target_XM, config.ratio_bins)
        return cls(inputs, days, cut, series_X, cutoff_X, series_Y, learned, config)

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
        return network.loss(*bed.examples(series_B, cutoff_B))

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
    cutoff_B = torch.full((batch,), bed.days.days - 1, device=bed.device)
    first = torch.zeros((), dtype=torch.int64, device=bed.device)

    def laws_of(series_B: Tensor) -> tuple[Tensor, ...]:
        windows = bed.windows(series_B, cutoff_B)
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
