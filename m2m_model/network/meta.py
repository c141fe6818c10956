"""Expert views and meta learning (paper, "Expert View", "Meta Unit", "Meta Attention Module", "Meta Tower Module"), in
the fast form: a sample's weights are generated once and applied to all its experts and tasks by one batched matmul.

B batch, K experts, M tasks, D width, I and O a layer's input and output width, X any number of inputs of a sample,
R and C rows and columns of a generated matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def act(hidden: Tensor) -> Tensor:
    """The paper's act, in place: no caller needs its input again, and a fresh tensor costs more than the arithmetic."""
    return functional.leaky_relu(hidden, inplace=True)


class Experts(nn.Module):
    """E_i = MLP_i(F), i = 1..K: two activated layers each, all experts in one matmul a layer."""

    def __init__(self, experts: int, inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.experts = experts
        self.first = nn.Linear(inputs, experts * width)
        self.dropout = nn.Dropout(dropout)
        self.second_KDD = nn.Parameter(torch.empty(experts, width, width))
        self.bias_K1D = nn.Parameter(torch.empty(experts, 1, width))
        for parameter in (self.second_KDD, self.bias_K1D):
            nn.init.uniform_(parameter, -(width**-0.5), width**-0.5)  # as nn.Linear starts

    def __len__(self) -> int:
        return self.experts

    def forward(self, joined_BI: Tensor) -> Tensor:
        """(B, K, D)."""
        hidden_BX = self.dropout(act(self.first(joined_BI)))
        hidden_KBD = hidden_BX.view(len(joined_BI), self.experts, -1).transpose(0, 1)
        return act(torch.baddbmm(self.bias_K1D, hidden_KBD, self.second_KDD)).transpose(0, 1)


class MetaLayer(nn.Module):
    """W = reshape(V_w S~ + v_w), b = V_b S~ + v_b. With ``rank`` r: W = U K(S~) V, only the r x r core is generated,
    and W itself is never made: (h U) K V needs D^2 / r^2 times less memory.

    ``generator`` is V_b above V_w: one matmul generates b and W.
    """

    def __init__(self, scenario_width: int, inputs: int, outputs: int, rank: int = 0) -> None:
        super().__init__()
        self.outputs = outputs
        self.rows, self.columns = (rank, rank) if rank else (inputs, outputs)
        self.generator = nn.Linear(scenario_width, outputs + self.rows * self.columns)
        with torch.no_grad():
            self.generator.weight[:outputs].normal_(std=0.3 * scenario_width**-0.5)
            self.generator.weight[outputs:].normal_(std=0.3 * (self.rows * scenario_width) ** -0.5)
            self.generator.bias[:outputs].zero_()
            self.generator.bias[outputs:].normal_(std=self.rows**-0.5)
        self.left_IR = nn.Parameter(torch.randn(inputs, rank) * inputs**-0.5) if rank else None
        self.right_RO = nn.Parameter(torch.randn(rank, outputs) * rank**-0.5) if rank else None

    def generate(self, scenario_BD: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """b (B, 1, O) and the upper ``rows`` of W, or of its core (B, R, C)."""
        sizes = [self.outputs, rows * self.columns]
        if rows == self.rows:
            generated_BX = self.generator(scenario_BD)
        else:
            vector_XD, constant_X = self.generator.weight[: sum(sizes)], self.generator.bias[: sum(sizes)]
            generated_BX = functional.linear(scenario_BD, vector_XD, constant_X)
        bias_BO, weight_BX = torch.split(generated_BX, sizes, 1)
        return bias_BO.unsqueeze(1), weight_BX.view(-1, rows, self.columns)

    def forward(self, scenario_BD: Tensor, input_BXI: Tensor) -> Tensor:
        """W h + b for the X inputs of every sample: (B, X, O)."""
        bias_B1O, weight_BRC = self.generate(scenario_BD, self.rows)
        if self.left_IR is None or self.right_RO is None:
            return input_BXI @ weight_BRC + bias_B1O
        return input_BXI @ self.left_IR @ weight_BRC @ self.right_RO + bias_B1O

    def of_pairs(self, scenario_BD: Tensor, expert_BKD: Tensor, task_MD: Tensor) -> Tensor:
        """W [E_i || T_t] + b = W_top E_i + (W_bottom T_t + b), neither half K x M times: (B, M, K, O)."""
        width = expert_BKD.shape[-1]
        if self.left_IR is None or self.right_RO is None:
            bias_B1O, top_BDO = self.generate(scenario_BD, width)
            expert_BKO, task_BMO = expert_BKD @ top_BDO, self.of_shared(scenario_BD, task_MD)
        else:  # U [E || T] = U_top E + U_bottom T, and both meet the same core
            bias_B1O, core_BRC = self.generate(scenario_BD, self.rows)
            upper_DR, lower_DR = torch.split(self.left_IR, width)
            task_BMR = (task_MD @ lower_DR).expand(len(expert_BKD), -1, -1)
            both_BXO = torch.cat([expert_BKD @ upper_DR, task_BMR], 1) @ core_BRC @ self.right_RO
            expert_BKO, task_BMO = torch.split(both_BXO, [expert_BKD.shape[1], len(task_MD)], 1)
        return (task_BMO + bias_B1O).unsqueeze(2) + expert_BKO.unsqueeze(1)

    def of_shared(self, scenario_BD: Tensor, task_MD: Tensor) -> Tensor:
        """W_bottom T_t, (B, M, O): T is the same for every sample, so V_w acts on it first; W_bottom is never made."""
        lower, width = task_MD.shape[1], scenario_BD.shape[1]
        size = lower * self.columns
        vector_XD = (task_MD @ self.generator.weight[-size:].view(lower, -1)).view(-1, width)
        constant_MC = task_MD @ self.generator.bias[-size:].view(lower, -1)
        return functional.linear(scenario_BD, vector_XD, constant_MC.flatten()).view(-1, *constant_MC.shape)


class SharedLayer(nn.Module):
    """The ablation of ``MetaLayer``: one learned layer for every sample."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight_IO = nn.Parameter(torch.randn(inputs, outputs) * inputs**-0.5)
        self.bias_O = nn.Parameter(torch.zeros(outputs))

    def forward(self, scenario_BD: Tensor, input_BXI: Tensor) -> Tensor:
        return input_BXI @ self.weight_IO + self.bias_O

    def of_pairs(self, scenario_BD: Tensor, expert_BKD: Tensor, task_MD: Tensor) -> Tensor:
        width = expert_BKD.shape[-1]
        expert_BKO = expert_BKD @ self.weight_IO[:width]
        task_MO = task_MD @ self.weight_IO[width:] + self.bias_O
        return task_MO.unsqueeze(1) + expert_BKO.unsqueeze(1)


def layer_of(generated: bool, scenario_width: int, inputs: int, outputs: int, rank: int) -> MetaLayer | SharedLayer:
    """A generated layer, or the shared one that an ablation puts in its place."""
    return MetaLayer(scenario_width, inputs, outputs, rank) if generated else SharedLayer(inputs, outputs)


class MetaAttention(nn.Module):
    """a_{t,i} = v . Meta([E_i || T_t]), softmax over the experts, R_t = sum_i softmax(a_t)_i E_i."""

    def __init__(self, width: int, depth: int, rank: int, generated: bool = True) -> None:
        super().__init__()
        self.first = layer_of(generated, width, 2 * width, width, rank)
        self.rest = nn.ModuleList(layer_of(generated, width, width, width, rank) for _ in range(depth - 1))
        self.score_D = nn.Parameter(torch.empty(width).uniform_(-(width**-0.5), width**-0.5))

    def weights(self, expert_BKD: Tensor, task_MD: Tensor, scenario_BD: Tensor) -> Tensor:
        """softmax(a): (B, M, K), rows add up to 1."""
        pair_BMKO = act(self.first.of_pairs(scenario_BD, expert_BKD, task_MD))
        hidden_BXO = pair_BMKO.flatten(1, 2)
        for layer in self.rest:
            hidden_BXO = act(layer(scenario_BD, hidden_BXO))
        return (hidden_BXO @ self.score_D).view(pair_BMKO.shape[:3]).softmax(-1)

    def forward(self, expert_BKD: Tensor, task_MD: Tensor, scenario_BD: Tensor) -> Tensor:
        return self.weights(expert_BKD, task_MD, scenario_BD) @ expert_BKD


class MetaTower(nn.Module):
    """L^(0) = R_t, L^(j) = act(Meta(L^(j-1)) + L^(j-1)): residual, one generated layer each."""

    def __init__(self, width: int, depth: int, rank: int, generated: bool = True) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer_of(generated, width, width, width, rank) for _ in range(depth))

    def forward(self, task_BMD: Tensor, scenario_BD: Tensor) -> Tensor:
        for layer in self.layers:
            task_BMD = act(layer(scenario_BD, task_BMD) + task_BMD)
        return task_BMD
