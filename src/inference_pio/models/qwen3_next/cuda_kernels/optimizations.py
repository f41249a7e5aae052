"""What lies between the merged projection of gated attention and the scores: gates apart, norms, rotation, cache write.

`ops.rope_and_cache` does the last three in one pass (torch reference everywhere, native on the CPU).
"""

from __future__ import annotations

import torch
from torch import Tensor

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def split_gate(projected_TF: Tensor, num_heads: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """(q|k|v [T, (N + 2M)·H], gate [T, N·H]) out of [q and gate of each head | k | v], [T, (2N + 2M)·H]."""
    width = 2 * num_heads * head_dim
    q_TNH, gate_TNH = projected_TF[:, :width].unflatten(1, (num_heads, -1)).chunk(2, dim=2)
    return torch.cat((q_TNH.flatten(1), projected_TF[:, width:]), dim=1), gate_TNH.flatten(1)


def technique() -> TechniqueFact:
    return techniques.gpu_kernels(
        "norms of heads, rotation and cache write are one native pass",
        "the delta rule, and everything on a GPU, runs in torch",
    )
