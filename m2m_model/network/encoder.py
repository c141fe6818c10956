"""Shared bottom embedding and the transformer layer over days (paper, "Backbone Network").

B batch, L days, F features a day, C tokens (L / patch_days), D width, H heads, E width of a head.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from m2m_model.data.features import NOT_REGISTERED

FEW_TOKENS = 16  # so many attend in sums of one compiled kernel, more in matrix products


class SummedEmbedding(torch.autograd.Function):
    """``nn.EmbeddingBag``'s sum, for a GPU: the weight's gradient is one product with the codes as zeros and ones.

    EmbeddingBag sorts all rows of a batch for it, and adds up a code that most days share one after the other. Under
    autocast the table is read in the lower precision, and a compiled step makes the sum itself such a product. X
    tokens, S slots of a token (each with codes of its own), V = S x codes rows.
    """

    @staticmethod
    def forward(ctx: Any, code_XS: Tensor, weight_VD: Tensor) -> Tensor:
        ctx.save_for_backward(code_XS)
        ctx.rows = len(weight_VD)
        autocast = torch.is_autocast_enabled(code_XS.device.type)
        ctx.dtype = torch.get_autocast_dtype(code_XS.device.type) if autocast else weight_VD.dtype
        slots = code_XS.shape[1]
        codes = ctx.rows // slots
        weight_VD = weight_VD.detach()
        if autocast and torch.compiler.is_compiling():
            weight_SCD = functional.pad(weight_VD.view(slots, codes, -1), (0, 0, 0, -codes % 8))
            return _hot(code_XS, codes, ctx.dtype) @ weight_SCD.flatten(0, 1).to(ctx.dtype)
        return functional.embedding_bag(slot_rows(code_XS, codes), weight_VD.to(ctx.dtype), mode="sum")

    @staticmethod
    def backward(ctx: Any, grad_XD: Tensor) -> tuple[None, Tensor]:
        (code_XS,) = ctx.saved_tensors
        slots = code_XS.shape[1]
        codes = ctx.rows // slots
        # A long sum into a small matrix keeps few of a GPU's units busy: it is cut in parts.
        parts = math.gcd(len(code_XS), 64)
        hot_PYW, grad_PYD = (
            tensor_XY.reshape(parts, -1, tensor_XY.shape[1])
            for tensor_XY in (_hot(code_XS, codes, ctx.dtype), grad_XD.to(ctx.dtype))
        )
        grad_WD = (hot_PYW.transpose(1, 2) @ grad_PYD).sum(0, dtype=torch.float32)
        return None, grad_WD.view(slots, -1, grad_WD.shape[1])[:, :codes].reshape(ctx.rows, -1)


def _hot(code_XS: Tensor, codes: int, dtype: torch.dtype) -> Tensor:
    """A row of zeros and ones for each token, a block of columns for each slot: codes, made up to whole 16 bytes, for
    matrix units take nothing else at full speed."""
    code_C = torch.arange(codes + -codes % 8, dtype=code_XS.dtype, device=code_XS.device)
    return (code_XS.unsqueeze(2) == code_C).to(dtype).flatten(1)


def slot_rows(code_XS: Tensor, codes: int) -> Tensor:
    """Rows of a table that holds ``codes`` for each slot, one slot after the other."""
    return code_XS + torch.arange(code_XS.shape[1], dtype=torch.int32, device=code_XS.device) * codes


class PatchEmbedding(nn.Module):
    """Discretised days to tokens: the sum of one embedding per (day of the patch, feature), plus a position embedding.

    With ``patch_days`` = 1 a token is a day. Positions count back from the cutoff, so longer padding moves nothing.
    """

    def __init__(self, features: int, codes: int, days: int, patch_days: int, width: int) -> None:
        super().__init__()
        self.codes, self.patch_days, self.tokens = codes, patch_days, -(-days // patch_days)
        self.value = nn.EmbeddingBag(patch_days * features * codes, width, mode="sum")
        self.position = nn.Embedding(self.tokens, width)
        nn.init.normal_(self.value.weight, std=(patch_days * features) ** -0.5)
        nn.init.normal_(self.position.weight, std=0.1)

    def forward(self, code_BLF: Tensor, registered_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, C, D) and which of them hold a registered day (B, C)."""
        batch, days, features = code_BLF.shape
        missing = -days % self.patch_days
        code_BLF = functional.pad(code_BLF, (0, 0, missing, 0), value=NOT_REGISTERED)
        registered_BL = functional.pad(registered_BL, (missing, 0))
        slots = self.patch_days * features
        code_XS = code_BLF.reshape(-1, slots)
        value_XD = (
            SummedEmbedding.apply(code_XS, self.value.weight)  # type: ignore[no-untyped-call]
            if code_XS.is_cuda
            else self.value(slot_rows(code_XS, self.codes))
        )
        value_BCD = value_XD.view(batch, -1, self.position.embedding_dim)
        tokens = value_BCD.shape[1]
        back_C = torch.arange(tokens - 1, -1, -1, device=code_BLF.device)
        present_BC = registered_BL.view(batch, tokens, self.patch_days).any(-1)
        return value_BCD + self.position(back_C), present_BC


def attend(query_BHCE: Tensor, key_BHCE: Tensor, value_BHCE: Tensor, present_BC: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(E)) V over the tokens that are present, (B, H, C, E).

    Written out: ``scaled_dot_product_attention`` is made for long sequences. For eight tokens it takes four times as
    long on a GPU (docs/gpu.md), no less on a CPU, and cuDNN's fails on the gradients of large batches in bfloat16.
    """
    absent_B11C = torch.zeros_like(present_BC, dtype=torch.float32).masked_fill(~present_BC, -torch.inf)[:, None, None]
    scale = query_BHCE.shape[-1] ** -0.5
    if torch.compiler.is_compiling() and query_BHCE.shape[2] <= FEW_TOKENS:
        score_BHCC = (query_BHCE.unsqueeze(3) * key_BHCE.unsqueeze(2)).sum(-1) * scale + absent_B11C
        mixed: Tensor = (score_BHCC.softmax(-1).unsqueeze(-1) * value_BHCE.unsqueeze(2)).sum(3)
        return mixed
    score_BHCC = (query_BHCE * scale) @ key_BHCE.transpose(2, 3) + absent_B11C
    if score_BHCC.is_cuda:
        mixed = score_BHCC.softmax(-1) @ value_BHCE
        return mixed
    # On a CPU, softmax over a row of eight takes five times as long as its parts.
    weight_BHCC = (score_BHCC - score_BHCC.detach().amax(-1, keepdim=True)).exp()
    mixed = (weight_BHCC @ value_BHCE) / weight_BHCC.sum(-1, keepdim=True)
    return mixed


class TransformerLayer(nn.Module):
    """MH(X) = concat(head_1 .. head_H) W^H over the day axis, padding masked; residuals, norms and feed-forward."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.join_heads = nn.Linear(width, width)
        self.norm_attention, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, token_BCD: Tensor, present_BC: Tensor) -> Tensor:
        """Every row of ``present_BC`` has a True: there is no softmax over nothing."""
        batch, tokens, width = token_BCD.shape
        split = self.query_key_value(self.norm_attention(token_BCD)).view(batch, tokens, 3, self.heads, -1)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed_BHCE = attend(query, key, value, present_BC)
        token_BCD = token_BCD + self.dropout(self.join_heads(mixed_BHCE.transpose(1, 2).reshape(batch, tokens, width)))
        fed_BCD: Tensor = self.dropout(self.feed(self.norm_feed(token_BCD)))
        return token_BCD + fed_BCD


class SequenceEncoder(nn.Module):
    """One sequence to one vector: embedding, transformer layers, then [newest token || mean of the tokens]."""

    def __init__(
        self, features: int, codes: int, days: int, patch_days: int, width: int, heads: int, layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.embedding = PatchEmbedding(features, codes, days, patch_days, width)
        self.layers = nn.ModuleList(TransformerLayer(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, code_BLF: Tensor, registered_BL: Tensor) -> Tensor:
        token_BCD, present_BC = self.embedding(code_BLF, registered_BL)
        # The cutoff's own token is always attended to: a row of nothing but padding must not divide by zero.
        present_BC = torch.cat([present_BC[:, :-1], torch.ones_like(present_BC[:, -1:])], 1)
        for layer in self.layers:
            token_BCD = layer(token_BCD, present_BC)
        token_BCD = self.norm(token_BCD)
        weight_BC1 = (present_BC / present_BC.sum(1, keepdim=True)).unsqueeze(-1)
        return torch.cat([token_BCD[:, -1], (token_BCD * weight_BC1).sum(1)], -1)
