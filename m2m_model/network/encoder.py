"""Shared bottom embedding and the transformer layer over days (paper, "Backbone Network").

B batch, L days, F features a day, C tokens (L / patch_days), D width, H heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from m2m_model.data.features import NOT_REGISTERED


class SummedEmbedding(torch.autograd.Function):
    """``nn.EmbeddingBag``'s sum, for a GPU: the weight's gradient is one product with the codes as zeros and ones.

    EmbeddingBag sorts all rows of a batch for it, and adds up a code that most days share one after the other. X
    tokens, S slots of a token (each with codes of its own), V = S x codes rows.
    """

    @staticmethod
    def forward(ctx: Any, code_XS: Tensor, weight_VD: Tensor) -> Tensor:
        ctx.save_for_backward(code_XS)
        ctx.rows = len(weight_VD)
        autocast = torch.is_autocast_enabled(code_XS.device.type)
        ctx.dtype = torch.get_autocast_dtype(code_XS.device.type) if autocast else weight_VD.dtype
        row_XS = slot_rows(code_XS, ctx.rows // code_XS.shape[1])
        return functional.embedding_bag(row_XS, weight_VD.detach(), mode="sum")

    @staticmethod
    def backward(ctx: Any, grad_XD: Tensor) -> tuple[None, Tensor]:
        (code_XS,) = ctx.saved_tensors
        slots = code_XS.shape[1]
        codes = ctx.rows // slots
        # Rows of whole 16 bytes: matrix units take nothing else at full speed.
        code_C = torch.arange(-(-codes // 8) * 8, dtype=code_XS.dtype, device=code_XS.device)
        hot_XSC = (code_XS.unsqueeze(2) == code_C).to(ctx.dtype)
        grad_YD = hot_XSC.flatten(1).T @ grad_XD.to(ctx.dtype)
        grad_VD = grad_YD.view(slots, len(code_C), -1)[:, :codes].reshape(ctx.rows, -1)
        return None, grad_VD.to(grad_XD.dtype)


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
        batch, tokens, width = token_BCD.shape
        split = self.query_key_value(self.norm_attention(token_BCD)).view(batch, tokens, 3, self.heads, -1)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed_BHCE = functional.scaled_dot_product_attention(query, key, value, attn_mask=present_BC[:, None, None, :])
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
