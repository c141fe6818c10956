"""The GPU benchmark's data, networks and steps: made-up series coded on the device, and what is timed on them.

B windows of a batch, N series, T days, M tasks, P metrics, F behaviors, C tokens, H heads, E width of a head, D width.
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
from m2m_model.network.coded import CodedPanel
from torch import Tensor, nn

from benchmarks.model import Backbone
from m2m_model.config import ModelConfig, Task, TrainConfig
from m2m_model.data.features import Inputs, Windows
from m2m_model.data.panel import Panel
from m2m_model.data.spec import SequenceSpec
from m2m_model.network.encoder import slot_rows
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
        learned = Learned.of(windows.dense_BD, windows.level_BM, target_XM, config.ratio_bins)
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
