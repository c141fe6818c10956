"""M2M (Zhang et al., "Leaving No One Behind", WSDM 2022, arXiv 2201.06814), and its non-meta references.

B batch, L days, P performance metrics, F behavior columns, K experts, M tasks, S scenario attributes, A advertiser
attributes, D width (of the dense features in ``dense_BD``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from m2m_model.config import ModelConfig
from m2m_model.encoder import SequenceEncoder
from m2m_model.inputs import LEVEL_FLOOR, Inputs, Windows
from m2m_model.meta import MetaAttention, MetaTower


@dataclass(frozen=True)
class Batch:
    """``Windows`` as tensors on one device."""

    performance_BLP: Tensor
    behavior_BLF: Tensor
    registered_BL: Tensor
    dense_BD: Tensor
    level_BM: Tensor
    scenario_B: Tensor
    scenario_attributes_BS: Tensor
    advertiser_attributes_BA: Tensor

    @classmethod
    def of(cls, windows: Windows, device: torch.device) -> Batch:
        return cls(*(torch.from_numpy(array).to(device) for array in vars(windows).values()))


class M2M(nn.Module):
    """Forecasts log lambda_t, the logarithm of each task's total over the horizon in units of the task's scale."""

    def __init__(self, config: ModelConfig, inputs: Inputs) -> None:
        super().__init__()
        spec, width = inputs.spec, config.width
        self.config, self.tasks = config, len(spec.tasks)

        def encoder(features: int) -> SequenceEncoder:
            layers = config.layers if config.transformer else 0
            days, patch = spec.window_days, config.patch_days
            return SequenceEncoder(features, inputs.codes, days, patch, width, config.heads, layers, config.dropout)

        self.performance = encoder(len(spec.metrics))
        self.behavior = encoder(len(spec.behaviors)) if spec.behaviors else None
        self.knowledge = ScenarioKnowledge(inputs, width)
        joined = 2 * width * (1 + bool(spec.behaviors)) + inputs.dense_features
        if config.architecture != "m2m":
            joined += width  # the non-meta references read S~ as a feature
        experts = 1 if config.architecture == "shared_bottom" else config.experts
        self.experts = nn.ModuleList(mlp(joined, width, config.dropout) for _ in range(experts))
        if config.architecture == "m2m":
            self.task_embedding = nn.Embedding(self.tasks, width)
            self.task_view = mlp(width, width)
            rank = config.meta_rank
            self.meta_attention = MetaAttention(width, config.meta_depth, rank, config.meta_attention)
            self.meta_tower = MetaTower(width, config.tower_depth, rank, config.meta_tower)
        else:
            self.gates = nn.Linear(joined, self.tasks * experts) if experts > 1 else None
            self.towers = nn.ModuleList(mlp(width, width) for _ in range(self.tasks))
        self.output_weight_MD = nn.Parameter(torch.randn(self.tasks, width) * 0.01)
        self.output_bias_M = nn.Parameter(torch.zeros(self.tasks))

    def forward(self, batch: Batch) -> Tensor:
        """log lambda (B, M)."""
        if self.training and self.config.scenario_dropout:
            batch = self.knowledge.forget(batch, self.config.scenario_dropout)
        scenario_BD = self.knowledge(batch)
        views = [self.performance(batch.performance_BLP, batch.registered_BL)]
        if self.behavior is not None:
            views.append(self.behavior(batch.behavior_BLF, batch.registered_BL))
        joined_BX = torch.cat([*views, batch.dense_BD], 1)
        task_BMD = self.represent(joined_BX, scenario_BD)
        log_rate_BM = (task_BMD * self.output_weight_MD).sum(-1) + self.output_bias_M
        if self.config.exposure_offset:
            log_rate_BM = log_rate_BM + torch.log(batch.level_BM + LEVEL_FLOOR)
        return log_rate_BM

    def represent(self, joined_BX: Tensor, scenario_BD: Tensor) -> Tensor:
        """The last tower layer of every task, (B, M, D)."""
        if self.config.architecture == "m2m":
            expert_BKD = torch.stack([expert(joined_BX) for expert in self.experts], 1)
            task_MD = self.task_view(self.task_embedding.weight)
            task_BMD = self.meta_attention(expert_BKD, task_MD, scenario_BD)
            towered: Tensor = self.meta_tower(task_BMD, scenario_BD)
            return towered
        joined_BX = torch.cat([joined_BX, scenario_BD], 1)
        expert_BKD = torch.stack([expert(joined_BX) for expert in self.experts], 1)
        if self.gates is not None:
            gate_BMK = self.gates(joined_BX).view(-1, self.tasks, len(self.experts)).softmax(-1)
            task_BMD = gate_BMK @ expert_BKD
        else:
            task_BMD = expert_BKD.expand(-1, self.tasks, -1)
        return torch.stack([tower(task_BMD[:, m]) for m, tower in enumerate(self.towers)], 1)


class ScenarioKnowledge(nn.Module):
    """S~ = MLP(S, A): scenario id and attributes, advertiser attributes, and the advertiser's own size. Per sample."""

    def __init__(self, inputs: Inputs, width: int) -> None:
        super().__init__()
        spec = inputs.spec
        sizes = [len(inputs.attributes[name]) for name in (*spec.scenario_attributes, *spec.advertiser_attributes)]
        self.scenario = nn.Embedding(1 + len(inputs.scenarios), width)
        self.attributes = nn.ModuleList(nn.Embedding(1 + size, width // 4) for size in sizes)
        self.mlp = mlp(width + len(sizes) * (width // 4) + len(spec.tasks), width)

    def forward(self, batch: Batch) -> Tensor:
        codes = [*batch.scenario_attributes_BS.unbind(1), *batch.advertiser_attributes_BA.unbind(1)]
        parts = [embedding(code) for embedding, code in zip(self.attributes, codes, strict=True)]
        size_BM = torch.log(batch.level_BM + LEVEL_FLOOR) / 2
        known: Tensor = self.mlp(torch.cat([self.scenario(batch.scenario_B), *parts, size_BM], 1))
        return known

    @staticmethod
    def forget(batch: Batch, probability: float) -> Batch:
        """Make ids and attributes unknown (code 0) at random, each on its own."""

        def drop(code: Tensor) -> Tensor:
            return code * (torch.rand(code.shape, device=code.device) >= probability)

        return replace(
            batch,
            scenario_B=drop(batch.scenario_B),
            scenario_attributes_BS=drop(batch.scenario_attributes_BS),
            advertiser_attributes_BA=drop(batch.advertiser_attributes_BA),
        )


def mlp(inputs: int, outputs: int, dropout: float = 0.0) -> nn.Sequential:
    """Two activated layers: the shape of every view and of every reference tower."""
    return nn.Sequential(
        nn.Linear(inputs, outputs), nn.LeakyReLU(), nn.Dropout(dropout), nn.Linear(outputs, outputs), nn.LeakyReLU()
    )
