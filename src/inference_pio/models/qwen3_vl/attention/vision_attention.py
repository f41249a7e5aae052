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


class VisionAttention(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = DenseMap((config.hidden_size,), 3 * config.hidden_size)
        self.proj = DenseMap((config.hidden_size,), config.hidden_size)

    def forward(self, x_ND: Tensor, turns: tuple[Tensor, Tensor], lengths: Sequence[int]) -> Tensor:
        """lengths: patches of each run of rows that attends to itself, one image each."""
        q_NKH, k_NKH, v_NKH = self.qkv(x_ND).unflatten(1, (3, self.num_heads, -1)).unbind(1)
        q_NKH, k_NKH = _turn(q_NKH, *turns), _turn(k_NKH, *turns)
        images = zip(q_NKH.split(lengths), k_NKH.split(lengths), v_NKH.split(lengths), strict=True)
        seen = [
            functional.scaled_dot_product_attention(*(one.transpose(0, 1)[None] for one in image))[0]
            for image in images
        ]
        y_ND: Tensor = self.proj(torch.cat(seen, dim=1).transpose(0, 1).flatten(1))
        return y_ND


def _turn(x_NKH: Tensor, cos_N1H: Tensor, sin_N1H: Tensor) -> Tensor:
    """Pairs (x[i], x[i + H/2]) turned by the angle of their patch (Su et al. 2021, eq. 34, halves layout)."""
    x = x_NKH.float()
    first, second = x.chunk(2, dim=-1)
    return (x * cos_N1H + torch.cat((-second, first), dim=-1) * sin_N1H).to(x_NKH.dtype)
