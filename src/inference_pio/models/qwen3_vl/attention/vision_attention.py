"""The vision tower's attention: every patch of an image sees every other, and no patch sees another image.

No causal mask and no cache (Dosovitskiy et al. 2021). Queries, keys and values come from one map with a bias; they are
turned in float32 by row and column and rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference_pio.models.qwen3_vl.config import VisionConfig
from inference_pio.models.qwen3_vl.linear_optimizations.dense_map import DenseMap

# N patches of all images, D hidden size of the tower, K heads, H head size

# Patches that are turned, or fed forward, at once: what that needs beside the stream stays small.
PORTION = 1024


class VisionAttention(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = DenseMap((config.hidden_size,), 3 * config.hidden_size)
        self.proj = DenseMap((config.hidden_size,), config.hidden_size)

    def forward(self, x_ND: Tensor, turns: tuple[Tensor, Tensor], lengths: Sequence[int]) -> Tensor:
        """lengths: patches of each run of rows that attends to itself, one image each."""
        qkv_N3KH = self.qkv(x_ND).unflatten(1, (3, self.num_heads, -1))
        _turn(qkv_N3KH[:, :2], *turns)
        seen = []
        for image_N3KH in qkv_N3KH.split(lengths):
            q_KNH, k_KNH, v_KNH = image_N3KH.permute(1, 2, 0, 3)[:, None]
            o_KNH = functional.scaled_dot_product_attention(q_KNH, k_KNH, v_KNH)[0]
            seen.append(o_KNH.transpose(0, 1).flatten(1))
        y_ND: Tensor = self.proj(torch.cat(seen))
        return y_ND


def _turn(qk_N2KH: Tensor, cos_NH: Tensor, sin_NH: Tensor) -> None:
    """In place: pairs (x[i], x[i + H/2]) turned by the angle of their patch (Su et al. 2021, eq. 34, halves layout)."""
    for part, cos, sin in zip(*(one.split(PORTION) for one in (qk_N2KH, cos_NH, sin_NH)), strict=True):
        x = part.float()
        first, second = x.chunk(2, dim=-1)
        part.copy_(x * cos[:, None, None] + torch.cat((-second, first), dim=-1) * sin[:, None, None])
