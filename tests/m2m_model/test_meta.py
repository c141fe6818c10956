"""The paper's equations, against textbook loops written here."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from m2m_model.meta import MetaAttention, MetaLayer, MetaTower

WIDTH = 8


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(7)


def textbook_meta(layer: MetaLayer, scenario_D: Tensor, inputs: Tensor) -> Tensor:
    """W = reshape(V_w S~ + v_w), b = V_b S~ + v_b, W h + b for one sample and one input."""
    weight = (layer.weight.weight @ scenario_D + layer.weight.bias).reshape(layer.rows, layer.columns)
    if layer.left_IR is not None:
        weight = layer.left_IR @ weight @ layer.right_RO
    return inputs @ weight + layer.bias.weight @ scenario_D + layer.bias.bias


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("depth", [1, 2])
def test_attention_equals_the_textbook_loop(rank: int, depth: int) -> None:
    attention = MetaAttention(WIDTH, depth, rank)
    expert_BKD, task_MD, scenario_BD = torch.randn(5, 3, WIDTH), torch.randn(2, WIDTH), torch.randn(5, WIDTH)
    fast_BMD = attention(expert_BKD, task_MD, scenario_BD)
    for sample in range(5):
        for task in range(2):
            scores = []
            for expert in range(3):
                hidden = torch.cat([expert_BKD[sample, expert], task_MD[task]])
                for layer in attention.layers:
                    hidden = functional.leaky_relu(textbook_meta(layer, scenario_BD[sample], hidden))
                scores.append(attention.score.weight[0] @ hidden)
            share = torch.stack(scores).softmax(0)
            expected = sum(share[i] * expert_BKD[sample, i] for i in range(3))
            torch.testing.assert_close(fast_BMD[sample, task], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rank", [0, 3])
def test_tower_equals_the_textbook_loop(rank: int) -> None:
    tower = MetaTower(WIDTH, 2, rank)
    task_BMD, scenario_BD = torch.randn(5, 2, WIDTH), torch.randn(5, WIDTH)
    fast_BMD = tower(task_BMD, scenario_BD)
    for sample in range(5):
        for task in range(2):
            hidden = task_BMD[sample, task]
            for layer in tower.layers:
                hidden = functional.leaky_relu(textbook_meta(layer, scenario_BD[sample], hidden) + hidden)
            torch.testing.assert_close(fast_BMD[sample, task], hidden, atol=1e-5, rtol=0)


def test_attention_sums_to_one_over_experts() -> None:
    attention = MetaAttention(WIDTH, 1, 0)
    weights_BMK = attention.weights(torch.randn(5, 4, WIDTH), torch.randn(3, WIDTH), torch.randn(5, WIDTH))
    assert weights_BMK.shape == (5, 3, 4)
    torch.testing.assert_close(weights_BMK.sum(-1), torch.ones(5, 3))


@pytest.mark.parametrize("rank", [0, 3])
def test_another_scenario_gives_other_weights(rank: int) -> None:
    generated = MetaLayer(WIDTH, WIDTH, WIDTH, rank)(torch.randn(2, WIDTH))
    assert not torch.allclose(generated.weight_BIO[0], generated.weight_BIO[1])
    assert not torch.allclose(generated.bias_B1O[0], generated.bias_B1O[1])


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
