"""How fast the network is: its fast form against the textbook loop, and a training step against its bare backbone's.

    python -m benchmarks.model [--repeats 30] [--threads 1]

Both sides of a ratio take turns in one run, so that whatever else the machine does meets both; a ratio is the median
over turns. The threads of an operation wait for each other: beside other work, two of them measure that work (a step
of 22 ms takes 900). So the figures are one thread's, and the tables at the end show all cores. The last line is JSON.

B batch, K experts, M tasks, D width, I and O a layer's input and output width.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from m2m_model.config import ModelConfig, Task, TrainConfig
from m2m_model.data.features import Inputs, fit_inputs
from m2m_model.data.panel import Panel
from m2m_model.data.spec import SequenceSpec
from m2m_model.data.statistics import PanelStatistics
from m2m_model.network.meta import MetaAttention, MetaLayer, MetaTower
from m2m_model.network.model import M2M, Batch
from m2m_model.network.windows import Days, Windows

Step = Callable[[], object]

SERIES, DAYS, LAST_DAY = 3000, 374, date(2011, 12, 9)  # of online_retail's size
FORMS = ((0, 7), (4, 7), (8, 7), (16, 7), (32, 7), (0, 1), (16, 1))  # (meta_rank, patch_days)


# The textbook side: the equations as they are printed, vectorised over the batch alone.


def textbook_meta(layer: nn.Module, scenario_BD: Tensor, input_BI: Tensor) -> Tensor:
    """W = reshape(V_w S~ + v_w), b = V_b S~ + v_b, W h + b."""
    assert isinstance(layer, MetaLayer)  # an ablation's layer has no generator
    vector, constant = layer.generator.weight, layer.generator.bias
    bias_BO = functional.linear(scenario_BD, vector[: layer.outputs], constant[: layer.outputs])
    weight_BX = functional.linear(scenario_BD, vector[layer.outputs :], constant[layer.outputs :])
    weight_BIO = weight_BX.view(-1, layer.rows, layer.columns)
    return (input_BI.unsqueeze(1) @ weight_BIO).squeeze(1) + bias_BO


def textbook(
    attention: MetaAttention, tower: MetaTower, expert_BKD: Tensor, task_MD: Tensor, scenario_BD: Tensor
) -> Tensor:
    """The last tower layer (B, M, D), weights generated anew for every expert and task; full rank."""
    towered = []
    for task_D in task_MD:
        task_BD = task_D.expand(len(expert_BKD), -1)
        scores = []
        for expert_BD in expert_BKD.unbind(1):
            hidden_BD = torch.cat([expert_BD, task_BD], 1)
            for layer in (attention.first, *attention.rest):
                hidden_BD = functional.leaky_relu(textbook_meta(layer, scenario_BD, hidden_BD))
            scores.append(hidden_BD @ attention.score_D)
        share_BK = torch.stack(scores, 1).softmax(1)
        hidden_BD = (share_BK.unsqueeze(2) * expert_BKD).sum(1)
        for layer in tower.layers:
            hidden_BD = functional.leaky_relu(textbook_meta(layer, scenario_BD, hidden_BD) + hidden_BD)
        towered.append(hidden_BD)
    return torch.stack(towered, 1)


@dataclass(frozen=True)
class MetaPart:
    """Meta attention and tower at the size of MODEL.md's measurement, with what they read."""

    batch: int = 512
    experts: int = 6
    tasks: int = 4
    width: int = 64

    def steps(self, rank: int = 0) -> tuple[Step, Step]:
        """Forward and backward in the fast form and as the textbook loop.

        Raises:
            SystemExit: they disagree.
        """
        attention, tower = MetaAttention(self.width, 1, rank), MetaTower(self.width, 1, rank)
        expert_BKD = torch.randn(self.batch, self.experts, self.width, requires_grad=True)
        task_MD = torch.randn(self.tasks, self.width, requires_grad=True)
        scenario_BD = torch.randn(self.batch, self.width, requires_grad=True)
        direction_BMD = torch.randn(self.batch, self.tasks, self.width)

        def fast() -> Tensor:
            towered: Tensor = tower(attention(expert_BKD, task_MD, scenario_BD), scenario_BD)
            return towered

        def loop() -> Tensor:
            return textbook(attention, tower, expert_BKD, task_MD, scenario_BD)

        leaves = [expert_BKD, task_MD, scenario_BD, *attention.parameters(), *tower.parameters()]

        def gradients(side: Callable[[], Tensor]) -> tuple[Tensor, ...]:
            return torch.autograd.grad((side() * direction_BMD).sum(), leaves)

        apart = (fast() - loop()).abs().max().item()
        for one, other in zip(gradients(fast), gradients(loop), strict=True):
            apart = max(apart, ((one - other).abs().max() / other.abs().max()).item())
        print(f"Fast form and textbook loop differ by {apart:.1e} at most, gradients relative to their largest.")
        if apart > 1e-4:
            raise SystemExit("expected 1e-4 at most")
        return lambda: gradients(fast), lambda: gradients(loop)


# The backbone side: the same encoders in front of one linear output.


class Backbone(nn.Module):
    """What is left of M2M without S~, experts, meta attention and tower, under the same loss."""

    def __init__(self, config: ModelConfig, inputs: Inputs) -> None:
        super().__init__()
        whole = M2M(config, inputs)
        self.performance, self.behavior, self.loss_of = whole.performance, whole.behavior, whole.loss_of
        self.likelihood = whole.likelihood
        joined = 2 * config.width * (1 + bool(inputs.spec.behaviors)) + inputs.dense_features
        self.output = nn.Linear(joined, whole.tasks * whole.likelihood.outputs)

    def forward(self, batch: Batch) -> Tensor:
        views = [self.performance(batch.performance_BLP, batch.registered_BL)]
        if self.behavior is not None:
            views.append(self.behavior(batch.behavior_BLF, batch.registered_BL))
        output_BX: Tensor = self.output(torch.cat([*views, batch.dense_BD], 1))
        return output_BX.view(*batch.level_BM.shape, -1)

    def loss(self, batch: Batch, target_BM: Tensor) -> Tensor:
        return self.loss_of(self(batch), batch.level_BM, target_BM)


def training_step(model: M2M | Backbone, batch: Batch, fused: bool = False) -> Step:
    """Forward, loss, backward and AdamW's step, as in training."""
    settings = TrainConfig()
    target_BM = torch.rand(batch.level_BM.shape)
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=fused
    )
    model.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        model.loss(batch, target_BM).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def generated_bytes(config: ModelConfig, rows: int) -> int:
    """float32 weights and biases that one batch makes: the attention's upper half (or core), and the tower's."""
    layers = config.meta_depth + config.tower_depth
    return 4 * rows * layers * ((config.meta_rank or config.width) ** 2 + config.width)


# Data of online_retail's shapes: most days of most series have no row.


def made_panel(behaviors: int) -> Panel:
    """3 metrics, 3 tasks, 7 scenarios, an attribute on each side, 56 days of history."""
    random = np.random.default_rng(1)
    tasks = Task("revenue", "revenue", "sum"), Task("orders", "orders", "sum"), Task("active_days", "active", "days")
    spec = SequenceSpec(
        metrics=("revenue", "units", "orders"),
        behaviors=tuple(f"behavior_{k}" for k in range(behaviors)),
        advertiser_attributes=("price_band",),
        scenario_attributes=("trade",),
        tasks=tasks,
        horizons_days=(7,),
        window_days=56,
    )
    registered_N = random.integers(-50, 200, SERIES).astype(np.int32)
    row_NT = (random.random((SERIES, DAYS)) < 0.4) & (np.arange(DAYS) >= registered_N[:, None])

    def sequence(columns: int) -> NDArray[np.float32]:
        value_NTC = random.lognormal(2, 1.5, (SERIES, DAYS, columns)).astype(np.float32)
        return np.where(row_NT[..., None], value_NTC, np.float32(np.nan))

    names = {"advertiser_id": SERIES, "scenario_id": 7, "price_band": 4, "trade": 2}
    keys = pa.table({name: [f"{name}_{n % size}" for n in range(SERIES)] for name, size in names.items()})
    return Panel.of_values(spec, LAST_DAY, sequence(len(spec.metrics)), sequence(behaviors), registered_N, keys)


@dataclass(frozen=True)
class Data:
    """One batch of a panel, and how it is cut."""

    inputs: Inputs
    windows: Callable[[], Batch]

    @classmethod
    def of(cls, behaviors: int, rows: int) -> Data:
        panel, random = made_panel(behaviors), np.random.default_rng(2)
        inputs = fit_inputs(PanelStatistics.of(panel, LAST_DAY - timedelta(days=30)), ModelConfig().bins)
        drawn = random.integers(0, SERIES, rows), random.integers(250, DAYS - 7, rows)
        series_B, cutoff_B = (torch.from_numpy(index_B) for index_B in drawn)
        cpu = torch.device("cpu")
        days, cut = Days.of(panel, inputs.profile(panel), cpu), Windows(inputs, cpu)
        return cls(inputs, lambda: cut.of(days.runs(series_B, cutoff_B)))


# Measuring and printing.


def in_turns(sides: dict[str, Step], repeats: int) -> dict[str, NDArray[np.float64]]:
    """Milliseconds of every turn of every side, warm-up apart."""
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 3):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            if turn >= 3:
                spent[name].append((time.perf_counter() - started) * 1e3)
    return {name: np.array(times) for name, times in spent.items()}


def ratio(times: NDArray[np.float64], base: NDArray[np.float64]) -> float:
    return float(np.median(times / base))


def table(title: str, rows: int, times: dict[str, NDArray[np.float64]], base: str, notes: dict[str, str]) -> None:
    print(f"\n## {title}\n")
    print(f"| side | ms min / median / max | rows/s | times {base}: median (25..75 %) | of the minima | |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    for name, spent in times.items():
        low, high = np.quantile(spent / times[base], (0.25, 0.75))
        print(
            f"| {name} | {spent.min():.1f} / {np.median(spent):.1f} / {spent.max():.1f} "
            f"| {rows / np.median(spent) * 1e3:,.0f} | {ratio(spent, times[base]):.2f} ({low:.2f}..{high:.2f}) "
            f"| {spent.min() / times[base].min():.2f} | {notes.get(name, '')} |",
            flush=True,
        )


def machine() -> str:
    today, load = datetime.now(UTC).date(), os.getloadavg()[0]
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, PyTorch {torch.__version__}, {today}; load before it {load:.1f}"
    )


def fast_over_textbook(repeats: int) -> float:
    part = MetaPart()
    fast, loop = part.steps()
    times = in_turns({"fast form": fast, "textbook loop": loop}, repeats)
    title = f"Meta attention and tower, forward and backward: B {part.batch}, k {part.experts}, m {part.tasks}"
    table(
        f"{title}, widths {part.width}, full rank, {torch.get_num_threads()} thread(s)",
        part.batch,
        times,
        "fast form",
        {},
    )
    return ratio(times["textbook loop"], times["fast form"])


def m2m_over_backbone(behaviors: int, repeats: int) -> float:
    """The training step at the defaults, with AdamW as training makes it, and fused."""
    rows = TrainConfig().batch_size
    data, config = Data.of(behaviors, rows), ModelConfig()
    batch = data.windows()
    times = in_turns(
        {
            "backbone": training_step(Backbone(config, data.inputs), batch),
            "m2m": training_step(M2M(config, data.inputs), batch),
            "backbone, fused AdamW": training_step(Backbone(config, data.inputs), batch, fused=True),
            "m2m, fused AdamW": training_step(M2M(config, data.inputs), batch, fused=True),
            "windows": data.windows,
        },
        repeats,
    )
    fused = ratio(times["m2m, fused AdamW"], times["backbone, fused AdamW"])
    notes = {
        "m2m, fused AdamW": f"{fused:.2f} times its own backbone",
        "windows": f"windows: {np.median(times['windows']):.1f} ms a batch",
    }
    title = f"Training step at the defaults (meta_rank {config.meta_rank}), {behaviors} behavior columns"
    title += f", {torch.get_num_threads()} thread(s)"
    table(title, rows, times, "backbone", notes)
    return ratio(times["m2m"], times["backbone"])


def forms(repeats: int) -> None:
    """The training step over ranks and patches, each against the backbone of the same patches."""
    rows = TrainConfig().batch_size
    data = Data.of(0, rows)
    batch = data.windows()
    for patch_days in sorted({days for _, days in FORMS}, reverse=True):
        config = replace(ModelConfig(), patch_days=patch_days)
        sides, notes = {"backbone": training_step(Backbone(config, data.inputs), batch)}, {}
        for rank in (rank for rank, days in FORMS if days == patch_days):
            form = replace(config, meta_rank=rank)
            name = f"meta_rank {rank}"
            sides[name] = training_step(M2M(form, data.inputs), batch)
            notes[name] = f"{generated_bytes(form, rows) / 2**20:.1f} MiB of generated weights"
        title = f"Training step, patch_days {patch_days}, {torch.get_num_threads()} thread(s)"
        table(title, rows, in_turns(sides, repeats if patch_days > 1 else max(repeats // 3, 3)), "backbone", notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30, help="turns of every side")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    arguments = parser.parse_args()
    repeats, cores = arguments.repeats, torch.get_num_threads()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    print(f"# The network's speed\n\nMade by `make bench-model` on: {machine()}.\n")
    textbook_ratio = fast_over_textbook(repeats)
    backbone_ratio = m2m_over_backbone(0, repeats)
    m2m_over_backbone(3, repeats)
    forms(repeats)
    torch.set_num_threads(cores)
    fast_over_textbook(repeats)
    for behaviors in (0, 3):
        m2m_over_backbone(behaviors, repeats)
    print(json.dumps({"fast_over_textbook": round(textbook_ratio, 2), "m2m_over_backbone": round(backbone_ratio, 3)}))


if __name__ == "__main__":
    main()
