"""Meta learning (paper, "Meta Unit", "Meta Attention Module", "Meta Tower Module"), in the fast form: the weights of a
sample are generated once and applied to all its experts and tasks by one batched matmul.

B batch, K experts, M tasks, D width, I and O a layer's input and output width, X any number of inputs of a sample.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class GeneratedLayer(NamedTuple):
    """Weights of one layer, one set per sample (B = 1: the same for all)."""

    weight_BIO: Tensor
    bias_B1O: Tensor


class MetaLayer(nn.Module):
    """W = reshape(V_w S~ + v_w), b = V_b S~ + v_b. With ``rank`` r: W = U K(S~) V, only the r x r core is generated."""

    def __init__(self, scenario_width: int, inputs: int, outputs: int, rank: int = 0) -> None:
        super().__init__()
        self.rows, self.columns = (rank, rank) if rank else (inputs, outputs)
        self.weight = nn.Linear(scenario_width, self.rows * self.columns)
        self.bias = nn.Linear(scenario_width, outputs)
        nn.init.normal_(self.weight.weight, std=0.3 * (self.rows * scenario_width) ** -0.5)
        nn.init.normal_(self.weight.bias, std=self.rows**-0.5)
        nn.init.normal_(self.bias.weight, std=0.3 * scenario_width**-0.5)
        nn.init.zeros_(self.bias.bias)
        self.left_IR = nn.Parameter(torch.randn(inputs, rank) * inputs**-0.5) if rank else None
        self.right_RO = nn.Parameter(torch.randn(rank, outputs) * rank**-0.5) if rank else None

    def forward(self, scenario_BD: Tensor) -> GeneratedLayer:
        weight_BIO = self.weight(scenario_BD).view(-1, self.rows, self.columns)
        if self.left_IR is not None and self.right_RO is not None:
            weight_BIO = self.left_IR @ weight_BIO @ self.right_RO
        return GeneratedLayer(weight_BIO, self.bias(scenario_BD).unsqueeze(1))


class SharedLayer(nn.Module):
    """The ablation of ``MetaLayer``: one learned layer for every sample."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight_1IO = nn.Parameter(torch.randn(1, inputs, outputs) * inputs**-0.5)
        self.bias_11O = nn.Parameter(torch.zeros(1, 1, outputs))

    def forward(self, scenario_BD: Tensor) -> GeneratedLayer:
        return GeneratedLayer(self.weight_1IO, self.bias_11O)


def layer_of(generated: bool, scenario_width: int, inputs: int, outputs: int, rank: int) -> nn.Module:
    """A generated layer, or the shared one that an ablation puts in its place."""
    return MetaLayer(scenario_width, inputs, outputs, rank) if generated else SharedLayer(inputs, outputs)


class MetaAttention(nn.Module):
    """a_{t,i} = v . Meta([E_i || T_t]), softmax over the experts, R_t = sum_i softmax(a_t)_i E_i."""

    def __init__(self, width: int, depth: int, rank: int, generated: bool = True) -> None:
        super().__init__()
        widths = [2 * width] + [width] * depth
        self.layers = nn.ModuleList(layer_of(generated, width, *pair, rank) for pair in itertools.pairwise(widths))
        self.score = nn.Linear(width, 1, bias=False)

    def weights(self, expert_BKD: Tensor, task_MD: Tensor, scenario_BD: Tensor) -> Tensor:
        """softmax(a): (B, M, K), rows add up to 1."""
        width = expert_BKD.shape[-1]
        first, *rest = [layer(scenario_BD) for layer in self.layers]
        # [E || T] W = E W_top + T W_bottom: neither half is computed K x M times.
        expert_BKO = expert_BKD @ first.weight_BIO[:, :width]
        task_BMO = task_MD @ first.weight_BIO[:, width:] + first.bias_B1O
        hidden_BMKO = functional.leaky_relu(task_BMO.unsqueeze(2) + expert_BKO.unsqueeze(1))
        for layer in rest:
            hidden_BMKO = hidden_BMKO @ layer.weight_BIO.unsqueeze(1) + layer.bias_B1O.unsqueeze(1)
            hidden_BMKO = functional.leaky_relu(hidden_BMKO)
        scores: Tensor = self.score(hidden_BMKO).squeeze(-1)
        return scores.softmax(-1)

    def forward(self, expert_BKD: Tensor, task_MD: Tensor, scenario_BD: Tensor) -> Tensor:
        return self.weights(expert_BKD, task_MD, scenario_BD) @ expert_BKD


class MetaTower(nn.Module):
    """L^(0) = R_t, L^(j) = act(Meta(L^(j-1)) + L^(j-1)): residual, one generated layer each."""

    def __init__(self, width: int, depth: int, rank: int, generated: bool = True) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer_of(generated, width, width, width, rank) for _ in range(depth))

    def forward(self, task_BMD: Tensor, scenario_BD: Tensor) -> Tensor:
        for layer in self.layers:
            generated = layer(scenario_BD)
            task_BMD = functional.leaky_relu(task_BMD @ generated.weight_BIO + generated.bias_B1O + task_BMD)
        return task_BMD
