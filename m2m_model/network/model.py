"""M2M (Zhang et al., "Leaving No One Behind", WSDM 2022, arXiv 2201.06814), and its non-meta references.

B batch, L days, P performance metrics, F behavior columns, K experts, M tasks (in outputs, levels and totals: targets,
a task over a horizon each), S scenario attributes, A advertiser attributes, D width (of the dense features in
``dense_BD``), H horizons.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from m2m_model.arrays import Floats
from m2m_model.config import ModelConfig
from m2m_model.data.features import LEVEL_FLOOR, Inputs
from m2m_model.network.encoder import SequenceEncoder
from m2m_model.network.histogram import Histogram, histogram_edges
from m2m_model.network.laws import PerTask, level_weight
from m2m_model.network.meta import Experts, MetaAttention, MetaTower


@dataclass(frozen=True)
class Batch:
    """Windows for the network, on one device: codes per day (0 = not registered), dense features, the recent level of
    every target in units of its scale, codes of the profile."""

    performance_BLP: Tensor
    behavior_BLF: Tensor
    registered_BL: Tensor
    dense_BD: Tensor
    level_BM: Tensor
    scenario_B: Tensor
    scenario_attributes_BS: Tensor
    advertiser_attributes_BA: Tensor


@dataclass(frozen=True)
class Learned:
    """What the network takes from a sample of training windows before its first step."""

    dense_mean_D: Floats
    dense_deviation_D: Floats
    edge_MK: Floats  # of the histogram's log ratios

    @classmethod
    def of(cls, dense_BD: Floats, level_BM: Floats, target_BM: Floats, bins: int) -> Learned:
        """From what a ``Batch`` holds of the sample; ``target_BM`` in units of the targets' scales."""
        with np.errstate(divide="ignore"):
            ratio_BM = np.log(target_BM) - np.log(level_BM + LEVEL_FLOOR)
        ratios = [ratio_BM[target_BM[:, m] > 0, m] for m in range(target_BM.shape[1])]
        deviation_D = dense_BD.std(0)
        return cls(
            dense_BD.mean(0),
            np.where(deviation_D > 1e-3, deviation_D, 1.0).astype(np.float32),
            histogram_edges(ratios, bins),
        )

    @classmethod
    def nothing(cls, inputs: Inputs, bins: int) -> Learned:
        """Placeholders of the right shapes, for weights that are about to be loaded."""
        dense, targets = inputs.dense_features, len(inputs.spec.targets)
        return cls(
            np.zeros(dense, np.float32), np.ones(dense, np.float32), histogram_edges([np.zeros(0)] * targets, bins)
        )


class M2M(nn.Module):
    """Forecasts the Q parameters of each target's distribution; ``likelihood`` says what they mean. All before the last
    layer is per task; that has a head a horizon."""

    def __init__(self, config: ModelConfig, inputs: Inputs, learned: Learned | None = None) -> None:
        super().__init__()
        spec, width = inputs.spec, config.width
        self.config, self.tasks, self.horizons = config, len(spec.tasks), len(spec.horizons_days)
        learned = learned or Learned.nothing(inputs, config.ratio_bins)
        self.register_buffer("dense_mean_D", torch.as_tensor(learned.dense_mean_D))
        self.register_buffer("dense_deviation_D", torch.as_tensor(learned.dense_deviation_D))
        self.dense_mean_D: Tensor
        self.dense_deviation_D: Tensor
        laws = (spec.targets, inputs.target_scales)
        self.likelihood = (
            Histogram(*laws, learned.edge_MK)
            if config.loss == "histogram"
            else PerTask(config.loss, *laws, config.exposure_offset)
        )

        def encoder(features: int) -> SequenceEncoder:
            layers = config.layers if config.transformer else 0
            days, patch = spec.window_days, config.patch_days
            return SequenceEncoder(features, inputs.codes, days, patch, width, config.heads, layers, config.dropout)

        self.performance = encoder(len(spec.metrics))
        self.behavior = encoder(len(spec.behaviors)) if spec.behaviors else None
        self.knowledge = ScenarioKnowledge(inputs, width)
        joined = 2 * width * (1 + bool(spec.behaviors)) + config.window_features * inputs.dense_features
        if config.architecture != "m2m":
            joined += width  # the non-meta references read S~ as a feature
        experts = 1 if config.architecture == "shared_bottom" else config.experts
        self.experts = Experts(experts, joined, width, config.dropout)
        if config.architecture == "m2m":
            self.task_embedding = nn.Embedding(self.tasks, width)
            self.task_view = mlp(width, width)
            rank = config.meta_rank
            self.meta_attention = MetaAttention(width, config.meta_depth, rank, config.meta_attention)
            self.meta_tower = MetaTower(width, config.tower_depth, rank, config.meta_tower)
        else:
            self.gates = nn.Linear(joined, self.tasks * experts) if experts > 1 else None
            self.towers = nn.ModuleList(mlp(width, width) for _ in range(self.tasks))
        outputs = self.horizons * self.likelihood.outputs
        self.output_weight_MDX = nn.Parameter(torch.randn(self.tasks, width, outputs) * 0.01)  # X = H x Q
        self.output_bias_MX = nn.Parameter(torch.zeros(self.tasks, outputs))

    def forward(self, batch: Batch) -> Tensor:
        """(B, M, Q)."""
        if self.training and self.config.scenario_dropout:
            batch = self.knowledge.forget(batch, self.config.scenario_dropout)
        scenario_BD = self.knowledge(batch)
        views = [self.performance(batch.performance_BLP, batch.registered_BL)]
        if self.behavior is not None:
            views.append(self._acted(batch.behavior_BLF, batch.registered_BL))
        if self.config.window_features:
            # A feature that training never saw move must not carry a forecast away.
            views.append(((batch.dense_BD - self.dense_mean_D) / self.dense_deviation_D).clamp(-8, 8))
        task_BMD = self.represent(torch.cat(views, 1), scenario_BD)
        output_BMX = torch.einsum("bmd,mdx->bmx", task_BMD, self.output_weight_MDX) + self.output_bias_MX
        return output_BMX.reshape(len(output_BMX), self.tasks * self.horizons, self.likelihood.outputs)

    def _acted(self, behavior_BLF: Tensor, registered_BL: Tensor) -> Tensor:
        """The behavior's view. Where forecasts are made on a CPU, the scenarios of an advertiser follow each other and
        often share what it did: that is encoded once."""
        assert self.behavior is not None
        if torch.is_grad_enabled() or behavior_BLF.is_cuda or len(behavior_BLF) < 2:
            view_BX: Tensor = self.behavior(behavior_BLF, registered_BL)
            return view_BX
        other_B = torch.ones(len(behavior_BLF), dtype=torch.bool)
        other_B[1:] = (behavior_BLF[1:] != behavior_BLF[:-1]).flatten(1).any(1)
        other_B[1:] |= (registered_BL[1:] != registered_BL[:-1]).any(1)
        view_BX = self.behavior(behavior_BLF[other_B], registered_BL[other_B])
        return view_BX[other_B.cumsum(0) - 1]

    def loss(self, batch: Batch, target_BM: Tensor) -> Tensor:
        """Mean over rows and horizons of the weighted sum over tasks; ``target_BM`` in units of the targets' scales."""
        return self.loss_of(self(batch), batch.level_BM, target_BM)

    def loss_of(self, output_BMQ: Tensor, level_BM: Tensor, target_BM: Tensor) -> Tensor:
        """``loss`` for outputs that are there already."""
        loss_BM = self.likelihood.loss(output_BMQ, target_BM, level_BM)
        if self.config.level_weights:
            loss_BM = loss_BM * level_weight(level_BM, self.config.loss)
        return loss_BM.sum(1).mean() / self.horizons

    def represent(self, joined_BX: Tensor, scenario_BD: Tensor) -> Tensor:
        """The last tower layer of every task, (B, M, D)."""
        if self.config.architecture == "m2m":
            expert_BKD = self.experts(joined_BX)
            task_MD = self.task_view(self.task_embedding.weight)
            task_BMD = self.meta_attention(expert_BKD, task_MD, scenario_BD)
            towered: Tensor = self.meta_tower(task_BMD, scenario_BD)
            return towered
        joined_BX = torch.cat([joined_BX, scenario_BD], 1)
        expert_BKD = self.experts(joined_BX)
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
        self.longest = spec.longest  # the recent level of a task, once
        self.scenario = nn.Embedding(1 + len(inputs.scenarios), width)
        self.attributes = nn.ModuleList(nn.Embedding(1 + size, width // 4) for size in sizes)
        self.mlp = mlp(width + len(sizes) * (width // 4) + len(spec.tasks), width)

    def forward(self, batch: Batch) -> Tensor:
        codes = [*batch.scenario_attributes_BS.unbind(1), *batch.advertiser_attributes_BA.unbind(1)]
        parts = [embedding(code) for embedding, code in zip(self.attributes, codes, strict=True)]
        size_BM = torch.log(batch.level_BM[:, self.longest] + LEVEL_FLOOR) / 2
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
