"""The paper's equations, against textbook loops written here."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from m2m_model.network.meta import Experts, MetaAttention, MetaLayer, MetaTower

WIDTH = 8


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(7)


def textbook_weights(layer: MetaLayer, scenario_D: Tensor) -> tuple[Tensor, Tensor]:
    """W = reshape(V_w S~ + v_w), or U of it V, and b = V_b S~ + v_b for one sample."""
    bias_O, weight_X = (layer.generator.weight @ scenario_D + layer.generator.bias).tensor_split([layer.outputs])
    weight = weight_X.reshape(layer.rows, layer.columns)
    return weight if layer.left_IR is None else layer.left_IR @ weight @ layer.right_RO, bias_O


def textbook_meta(layer: MetaLayer, scenario_D: Tensor, inputs: Tensor) -> Tensor:
    """W h + b for one sample and one input."""
    weight_IO, bias_O = textbook_weights(layer, scenario_D)
    return inputs @ weight_IO + bias_O


def textbook_attention(attention: MetaAttention, expert_KD: Tensor, task_D: Tensor, scenario_D: Tensor) -> Tensor:
    """R_t of one sample."""
    scores = []
    for expert_D in expert_KD:
        hidden = torch.cat([expert_D, task_D])
        for layer in (attention.first, *attention.rest):
            hidden = functional.leaky_relu(textbook_meta(layer, scenario_D, hidden))
        scores.append(attention.score_D @ hidden)
    share_K = torch.stack(scores).softmax(0)
    return sum((share * expert_D for share, expert_D in zip(share_K, expert_KD, strict=True)), torch.zeros(WIDTH))


def textbook_tower(tower: MetaTower, task_D: Tensor, scenario_D: Tensor) -> Tensor:
    """L^(last) of one sample and one task."""
    for layer in tower.layers:
        task_D = functional.leaky_relu(textbook_meta(layer, scenario_D, task_D) + task_D)
    return task_D


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("depth", [1, 2])
def test_attention_and_tower_equal_the_textbook_loop(rank: int, depth: int) -> None:
    attention, tower = MetaAttention(WIDTH, depth, rank), MetaTower(WIDTH, depth, rank)
    expert_BKD, task_MD, scenario_BD = torch.randn(5, 3, WIDTH), torch.randn(2, WIDTH), torch.randn(5, WIDTH)
    leaves = [tensor.requires_grad_() for tensor in (expert_BKD, task_MD, scenario_BD)]
    leaves += [*attention.parameters(), *tower.parameters()]
    attended_BMD = attention(expert_BKD, task_MD, scenario_BD)
    towered_BMD = tower(attended_BMD, scenario_BD)
    expected = []
    for sample in range(5):
        for task in range(2):
            loop_D = textbook_attention(attention, expert_BKD[sample], task_MD[task], scenario_BD[sample])
            torch.testing.assert_close(attended_BMD[sample, task], loop_D, atol=1e-5, rtol=0)
            expected.append(textbook_tower(tower, loop_D, scenario_BD[sample]))
            torch.testing.assert_close(towered_BMD[sample, task], expected[-1], atol=1e-5, rtol=0)
    direction_XD = torch.randn(10, WIDTH)
    fast = torch.autograd.grad((towered_BMD.flatten(0, 1) * direction_XD).sum(), leaves)
    loop = torch.autograd.grad((torch.stack(expected) * direction_XD).sum(), leaves)
    for found, wanted in zip(fast, loop, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_attention_sums_to_one_over_experts() -> None:
    attention = MetaAttention(WIDTH, 1, 0)
    weights_BMK = attention.weights(torch.randn(5, 4, WIDTH), torch.randn(3, WIDTH), torch.randn(5, WIDTH))
    assert weights_BMK.shape == (5, 3, 4)
    torch.testing.assert_close(weights_BMK.sum(-1), torch.ones(5, 3))


@pytest.mark.parametrize("rank", [0, 3])
def test_another_scenario_gives_other_weights(rank: int) -> None:
    layer, scenario_BD, input_BXI = (
        MetaLayer(WIDTH, WIDTH, WIDTH, rank),
        torch.randn(2, WIDTH),
        torch.randn(1, 3, WIDTH),
    )
    one, other = layer(scenario_BD, input_BXI.expand(2, -1, -1))
    assert not torch.allclose(one, other)
    zero_BXI = torch.zeros(2, 3, WIDTH)
    one, other = layer(scenario_BD, zero_BXI)  # the bias alone
    assert not torch.allclose(one, other)


def test_experts_are_separate_mlps() -> None:
    experts = Experts(3, 5, WIDTH, 0.0)
    joined_BI = torch.randn(4, 5)
    expert_BKD = experts(joined_BI)
    for i in range(3):
        rows = slice(i * WIDTH, (i + 1) * WIDTH)
        hidden_BD = functional.leaky_relu(joined_BI @ experts.first.weight[rows].T + experts.first.bias[rows])
        expected_BD = functional.leaky_relu(hidden_BD @ experts.second_KDD[i] + experts.bias_K1D[i])
        torch.testing.assert_close(expert_BKD[:, i], expected_BD)


def test_tower_of_zero_weights_is_the_activation_alone() -> None:
    tower = MetaTower(WIDTH, 1, 0)
    for parameter in tower.parameters():
        torch.nn.init.zeros_(parameter)
    task_BMD = torch.randn(4, 3, WIDTH)
    torch.testing.assert_close(tower(task_BMD, torch.randn(4, WIDTH)), functional.leaky_relu(task_BMD))


def test_ablated_layers_do_not_see_the_scenario() -> None:
    attention, tower = MetaAttention(WIDTH, 1, 0, generated=False), MetaTower(WIDTH, 1, 0, generated=False)
    expert_BKD, task_MD = torch.randn(4, 3, WIDTH), torch.randn(2, WIDTH)
    one, other = torch.randn(4, WIDTH), torch.randn(4, WIDTH)
    torch.testing.assert_close(attention(expert_BKD, task_MD, one), attention(expert_BKD, task_MD, other))
    torch.testing.assert_close(tower(expert_BKD, one), tower(expert_BKD, other))
