"""Where a sequence looks: how much of its queries' attention falls on each of its cache blocks.

Shape letters: W queries, N query heads, M key/value heads, G = N / M, H head size, L tokens, B blocks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from inference_pio.ops import native
from inference_pio.ops.dispatch import serves
from inference_pio.ops.kept_heads import dequantize_heads


def attention_mass(
    q_WNH: Tensor,
    k_cache: Tensor,
    blocks_B: Tensor,
    seq_len: int,
    scale: float,
    scales: Tensor | None = None,
    window: int | None = None,
) -> Tensor:
    """softmax(scale · q kᵀ), causal, added up by blocks: float32 [W, N, B], each row adding up to 1.

    The queries are those of the last W tokens of one sequence, which has `seq_len` tokens in the cache blocks `blocks`,
    int32 and as many as they fill; caches, `scales` and `window` are as `paged_attention` takes them. The native result
    of a row is the same, bit for bit, however many rows the call has, for any number of threads.
    """
    if serves(q_WNH, "attention"):
        window = native.NO_WINDOW if window is None else window
        q_WNH, blocks_B = q_WNH.contiguous(), blocks_B.contiguous()
        mass: Tensor = native.call("attention_mass", q_WNH, k_cache, blocks_B, seq_len, scale, scales, window)
        return mass
    return _reference(q_WNH, k_cache, blocks_B, seq_len, scale, scales, window)


def _reference(
    q_WNH: Tensor,
    k_cache: Tensor,
    blocks_B: Tensor,
    seq_len: int,
    scale: float,
    scales: Tensor | None,
    window: int | None,
) -> Tensor:
    queries, block_size = len(q_WNH), k_cache.shape[2]
    k_MLH = k_cache[blocks_B.long()].transpose(0, 1).flatten(1, 2)[:, :seq_len]
    if scales is not None:
        k_MLH = dequantize_heads(k_MLH, scales[blocks_B.long(), :, 0].transpose(0, 1).flatten(1)[:, :seq_len])
    k_MLH = k_MLH.float()
    q_MGWH = q_WNH.float().unflatten(1, (len(k_MLH), -1)).permute(1, 2, 0, 3)
    scores = torch.einsum("mgwh,mlh->mgwl", q_MGWH, k_MLH) * scale
    key = torch.arange(seq_len, device=q_WNH.device)
    position_W1 = key[seq_len - queries :, None]
    hidden = key > position_W1
    if window is not None:
        hidden |= key <= position_W1 - window
    shares = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)
    padded = F.pad(shares, (0, len(blocks_B) * block_size - seq_len))
    mass_NWB: Tensor = padded.unflatten(-1, (-1, block_size)).sum(dim=-1).flatten(0, 1)
    return mass_NWB.transpose(0, 1)
