from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from m2m_model.config import ModelConfig
from m2m_model.data.features import Inputs
from m2m_model.data.panel import Panel
from m2m_model.network.encoder import (
    PatchEmbedding,
    SequenceEncoder,
    SummedEmbedding,
    TransformerLayer,
    attend,
    slot_rows,
)
from m2m_model.network.model import M2M, Batch

SMALL = ModelConfig(width=16, experts=3)
VARIANTS = {
    "m2m": SMALL,
    "paper": replace(SMALL, loss="poisson", patch_days=1, meta_rank=0, exposure_offset=False, level_weights=False),
    "negative binomial": replace(SMALL, loss="negative_binomial"),
    "lognormal": replace(SMALL, loss="lognormal"),
    "low rank": replace(SMALL, meta_rank=4),
    "deep": replace(SMALL, meta_depth=2, tower_depth=2, layers=2),
    "no meta attention": replace(SMALL, meta_attention=False),
    "no meta tower": replace(SMALL, meta_tower=False),
    "no transformer": replace(SMALL, transformer=False),
    "mmoe": replace(SMALL, architecture="mmoe"),
    "shared bottom": replace(SMALL, architecture="shared_bottom"),
    "without window features": replace(SMALL, window_features=False),
}


@pytest.fixture(scope="module")
def batch(panel: Panel, inputs: Inputs, windows_of: Callable[..., Batch]) -> Batch:
    series = np.arange(24)
    return windows_of(inputs, panel, series, 60 + series)


def some(batch: Batch, rows: list[int]) -> Batch:
    return Batch(*(tensor[rows] for tensor in vars(batch).values()))


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_row_does_not_depend_on_its_batch(config: ModelConfig, inputs: Inputs, batch: Batch) -> None:
    torch.manual_seed(0)
    model = M2M(config, inputs).eval()
    together = model(batch)
    torch.testing.assert_close(model(some(batch, [3])), together[[3]], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(some(batch, [9, 3])), together[[9, 3]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_gradients_reach_every_parameter(config: ModelConfig, inputs: Inputs, batch: Batch) -> None:
    torch.manual_seed(0)
    model = M2M(replace(config, dropout=0.0, scenario_dropout=0.0), inputs)
    model.loss(batch, torch.rand(24, 3)).backward()
    untouched = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert untouched == []


def test_only_the_scenario_differs_and_so_does_the_forecast(inputs: Inputs, batch: Batch) -> None:
    torch.manual_seed(0)
    model = M2M(SMALL, inputs).eval()
    other = replace(batch, scenario_B=3 - batch.scenario_B)
    assert not torch.allclose(model(batch), model(other))


def test_forgotten_ids_are_the_unknown_slot(inputs: Inputs, batch: Batch) -> None:
    torch.manual_seed(0)
    forgotten = M2M(SMALL, inputs).knowledge.forget(batch, 0.5)
    lost = forgotten.scenario_B == 0
    assert 0 < lost.sum() < len(lost)
    assert torch.equal(forgotten.scenario_B[~lost], batch.scenario_B[~lost])


@pytest.mark.parametrize("patch_days", [1, 7])
def test_padded_days_change_nothing(patch_days: int) -> None:
    torch.manual_seed(0)
    encoder = SequenceEncoder(2, 10, 28, patch_days, 16, 4, 1, 0.0).eval()
    code_BLF, registered_BL = torch.randint(1, 10, (3, 14, 2)), torch.ones(3, 14, dtype=torch.bool)
    padded_BLF = torch.cat([torch.zeros(3, 14, 2, dtype=torch.long), code_BLF], 1)
    padded_BL = torch.cat([torch.zeros(3, 14, dtype=torch.bool), registered_BL], 1)
    expected = encoder(code_BLF, registered_BL)
    torch.testing.assert_close(encoder(padded_BLF, padded_BL), expected, atol=1e-5, rtol=1e-5)


def test_shuffled_days_change_the_result() -> None:
    torch.manual_seed(0)
    encoder = SequenceEncoder(2, 10, 28, 7, 16, 4, 1, 0.0).eval()
    code_BLF, registered_BL = torch.randint(3, 10, (3, 28, 2)), torch.ones(3, 28, dtype=torch.bool)
    assert not torch.allclose(encoder(code_BLF, registered_BL), encoder(code_BLF.flip(1), registered_BL))


def test_a_window_of_padding_alone_stays_finite() -> None:
    encoder = SequenceEncoder(2, 10, 28, 7, 16, 4, 1, 0.0).eval()
    empty = encoder(torch.zeros(3, 28, 2, dtype=torch.long), torch.zeros(3, 28, dtype=torch.bool))
    assert torch.isfinite(empty).all()


def test_daily_tokens_are_the_sum_of_one_embedding_per_metric() -> None:
    torch.manual_seed(0)
    embedding = PatchEmbedding(2, 10, 5, 1, 8)
    code_BLF = torch.randint(0, 10, (2, 5, 2))
    token_BCD, present_BC = embedding(code_BLF, torch.ones(2, 5, dtype=torch.bool))
    table = embedding.value.weight
    for row in range(2):
        for day in range(5):
            first, second = code_BLF[row, day]
            expected = table[first] + table[10 + second] + embedding.position.weight[4 - day]
            torch.testing.assert_close(token_BCD[row, day], expected)
    assert present_BC.all()


def test_attention_is_over_days_not_over_the_batch() -> None:
    torch.manual_seed(0)
    layer = TransformerLayer(16, 4, 0.0).eval()
    token_BCD, present_BC = torch.randn(4, 6, 16), torch.ones(4, 6, dtype=torch.bool)
    changed = token_BCD.clone()
    changed[0, 0] += torch.randn(16)  # not a constant: the norm would take it away
    difference = (layer(changed, present_BC) - layer(token_BCD, present_BC)).abs().amax(-1)
    assert (difference[0] > 0).all()
    assert (difference[1:] == 0).all()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("tokens", [1, 8, 56])
def test_attention_is_that_of_the_library(tokens: int, compiled: bool) -> None:
    torch.manual_seed(tokens)
    present_BC = torch.rand(20, tokens) < 0.5
    present_BC[:, -1] = True  # as the encoder sees to
    present_BC[0, :-1] = False
    split_BC3HE = torch.randn(20, tokens, 3, 4, 16, requires_grad=True)
    down_BHCE = torch.randn(20, 4, tokens, 16)
    form = torch.compile(attend, backend="eager") if compiled else attend
    query, key, value = split_BC3HE.permute(2, 0, 3, 1, 4)
    library = functional.scaled_dot_product_attention(query, key, value, attn_mask=present_BC[:, None, None])
    found = form(query, key, value, present_BC)
    torch.testing.assert_close(found, library, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(mixed, split_BC3HE, down_BHCE, retain_graph=True) for mixed in (found, library)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("patch_days", [1, 7])
def test_a_window_trains_whatever_days_are_padding(patch_days: int) -> None:
    """None, some, all but the newest, and all of them."""
    torch.manual_seed(0)
    encoder = SequenceEncoder(2, 10, 56, patch_days, 16, 4, 2, 0.0)
    registered_BL = torch.arange(56) >= torch.tensor([0, 20, 55, 56]).unsqueeze(1)
    encoder(torch.randint(1, 10, (4, 56, 2)), registered_BL).square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in encoder.parameters())


def test_a_summed_embedding_is_an_embedding_bag_with_the_same_gradient() -> None:
    """What a GPU uses in its place."""
    torch.manual_seed(0)
    codes, slots = 11, 6
    bag = torch.nn.EmbeddingBag(slots * codes, 8, mode="sum")
    code_XS = torch.randint(0, codes, (40, slots), dtype=torch.uint8)
    direction_XD = torch.randn(40, 8)
    results = []
    for side in (lambda: bag(slot_rows(code_XS, codes)), lambda: SummedEmbedding.apply(code_XS, bag.weight)):
        sum_XD = side()
        results.append((sum_XD, torch.autograd.grad(sum_XD, bag.weight, direction_XD)[0]))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1])


@pytest.mark.parametrize("compiled", [False, True])
def test_a_summed_embedding_in_bfloat16_is_near_the_whole_one(compiled: bool) -> None:
    torch.manual_seed(0)
    codes, slots = 11, 6
    bag = torch.nn.EmbeddingBag(slots * codes, 8, mode="sum")
    code_XS = torch.randint(0, codes, (640, slots), dtype=torch.uint8)
    direction_XD = torch.randn(640, 8)
    form = torch.compile(SummedEmbedding.apply, backend="aot_eager") if compiled else SummedEmbedding.apply
    with torch.autocast("cpu", torch.bfloat16):
        sum_XD = form(code_XS, bag.weight)
    assert sum_XD.dtype == torch.bfloat16
    whole_XD = bag(slot_rows(code_XS, codes))
    torch.testing.assert_close(sum_XD.float(), whole_XD, atol=0.05, rtol=0.02)
    found, expected = (
        torch.autograd.grad(side, bag.weight, direction_XD.to(side.dtype))[0] for side in (sum_XD, whole_XD)
    )
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0.02)


@pytest.mark.slow
def test_compiled_steps_drop_anew_each_and_lose_what_eager_ones_lose(batch: Batch, inputs: Inputs) -> None:
    torch.manual_seed(0)
    network = M2M(replace(SMALL, dropout=0.3, scenario_dropout=0.3), inputs)
    network.output_weight_MDX.data *= 30  # as far apart as a trained network's: no two losses are equal by chance
    target_BM = torch.rand(batch.level_BM.shape)
    compiled = torch.compile(network.loss, backend="aot_eager_decomp_partition", dynamic=False)
    network.eval()
    torch.testing.assert_close(compiled(batch, target_BM), network.loss(batch, target_BM))
    network.train()
    losses = {}
    for name, form in (("eager", network.loss), ("compiled", compiled)):
        losses[name] = torch.stack([form(batch, target_BM).detach() for _ in range(60)])
    torch._dynamo.reset()
    assert len(losses["compiled"].unique()) == 60
    spread = losses["eager"].std() + losses["compiled"].std()
    assert (losses["eager"].mean() - losses["compiled"].mean()).abs() < 4 * spread / 60**0.5
    assert 0.5 < losses["compiled"].std() / losses["eager"].std() < 2
