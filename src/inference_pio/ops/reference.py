"""The operations in plain torch: what each of them means, on any device and in any floating dtype.

Shape letters: T tokens, S sequences, N query heads, M key/value heads, G = N / M, H head size, D hidden size,
I intermediate size, B blocks per sequence.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from inference_pio.ops.kept_heads import dequantize_heads, quantize_heads


class HeadNorms(NamedTuple):
    """RMSNorm of each head's queries and keys, weights [H] and numbers as `rms_norm` takes them."""

    q: Tensor
    k: Tensor
    eps: float
    offset: float = 0.0


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float, offset: float = 0.0) -> Tensor:
    """x / sqrt(mean(x²) + eps) · (offset + weight) (Zhang and Sennrich 2019, eq. 4), statistics in float32."""
    x32_TD = x_TD.float()
    x32_TD = x32_TD * torch.rsqrt(x32_TD.square().mean(dim=-1, keepdim=True) + eps)
    if offset:
        return (x32_TD * (offset + weight_D.float())).to(x_TD.dtype)
    return weight_D * x32_TD.to(x_TD.dtype)


def add_rms_norm(
    x_TD: Tensor, residual_TD: Tensor, weight_D: Tensor, eps: float, offset: float = 0.0
) -> tuple[Tensor, Tensor]:
    residual_TD = residual_TD + x_TD
    return rms_norm(residual_TD, weight_D, eps, offset), residual_TD


def apply_rope(x_TNH: Tensor, positions_T: Tensor, cos_sin_PH: Tensor) -> Tensor:
    """Turns (x[i], x[i + R/2]) by the angle of the position (Su et al. 2021, eq. 34, halves layout).

    R is the width of the table; what a head has beyond it stays as it is.
    """
    width = cos_sin_PH.shape[1]
    cos_T1h, sin_T1h = cos_sin_PH[positions_T].float().unsqueeze(1).chunk(2, dim=-1)
    first, second = x_TNH[..., :width].float().chunk(2, dim=-1)
    rotated = torch.cat((first * cos_T1h - second * sin_T1h, second * cos_T1h + first * sin_T1h), dim=-1)
    return torch.cat((rotated.to(x_TNH.dtype), x_TNH[..., width:]), dim=-1)


def rope_and_cache(
    qkv_TE: Tensor,
    positions_T: Tensor,
    cos_sin_PH: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slot_mapping_T: Tensor,
    num_heads: int,
    num_kv_heads: int,
    scales: Tensor | None = None,
    norms: HeadNorms | None = None,
) -> Tensor:
    heads = qkv_TE.reshape(qkv_TE.shape[0], num_heads + 2 * num_kv_heads, -1)
    q_TNH, k_TMH, v_TMH = torch.split(heads, [num_heads, num_kv_heads, num_kv_heads], dim=1)
    if norms is not None:
        q_TNH = rms_norm(q_TNH, norms.q, norms.eps, norms.offset)
        k_TMH = rms_norm(k_TMH, norms.k, norms.eps, norms.offset)
    block_size = k_cache.shape[2]
    block_T, offset_T = slot_mapping_T // block_size, slot_mapping_T % block_size
    kept = ((k_cache, apply_rope(k_TMH, positions_T, cos_sin_PH)), (v_cache, v_TMH))
    for which, (cache, x_TMH) in enumerate(kept):
        if scales is not None:
            x_TMH, scales[block_T, :, which, offset_T] = quantize_heads(x_TMH, cache.dtype)
        cache[block_T, :, offset_T] = x_TMH.to(cache.dtype)
    return apply_rope(q_TNH, positions_T, cos_sin_PH)


def paged_attention(
    q_TNH: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables_SB: Tensor,
    query_start_S1: Tensor,
    seq_lens_S: Tensor,
    scale: float,
    max_query_len: int,  # noqa: ARG001
    max_seq_len: int,  # noqa: ARG001
    scales: Tensor | None = None,
    window: int | None = None,
    reads_all: bool = False,  # noqa: ARG001
    *,
    rows_at_once: int | None = None,
) -> Tensor:
    """softmax(scale · q kᵀ + mask) v (Vaswani et al. 2017, eq. 1), sequence by sequence, in float32.

    The scores of a sequence stand in memory at once, or those of `rows_at_once` of its queries (Rabe and Staats 2021).
    """
    block_size = k_cache.shape[2]
    out_TNH = torch.empty_like(q_TNH)
    starts = query_start_S1.tolist()
    for s, length in enumerate(seq_lens_S.tolist()):
        blocks = block_tables_SB[s, : -(-length // block_size)].long()
        k_MLH, v_MLH = (_gather(cache, blocks, length) for cache in (k_cache, v_cache))
        if scales is not None:
            scale_2ML = scales[blocks].permute(2, 1, 0, 3).flatten(2)[:, :, :length]
            k_MLH, v_MLH = dequantize_heads(k_MLH, scale_2ML[0]), dequantize_heads(v_MLH, scale_2ML[1])
        k_MLH, v_MLH = k_MLH.float(), v_MLH.float()
        count = starts[s + 1] - starts[s]
        step = rows_at_once or max(1, count)
        for first in range(0, count, step):
            part = slice(starts[s] + first, starts[s] + min(first + step, count))
            seen = length - count + min(first + step, count)
            scored = _causal(q_TNH[part].float(), k_MLH[:, :seen], v_MLH[:, :seen], scale, window)
            out_TNH[part] = scored.to(q_TNH.dtype)
    return out_TNH


def row_max(x_TV: Tensor) -> tuple[Tensor, Tensor]:
    largest = x_TV.max(dim=-1)
    return largest.values, largest.indices


def top_experts(x_TD: Tensor, router_ED: Tensor, per_token: int, normalize: bool) -> tuple[Tensor, Tensor]:
    """softmax(x routerᵀ), sorted; a stable sort leaves the lower of two equal ones in front."""
    scores_TE = F.linear(x_TD.float(), router_ED.float()).softmax(dim=-1)
    weights_TE, chosen_TE = scores_TE.sort(dim=-1, descending=True, stable=True)
    weights_TK = weights_TE[:, :per_token]
    if normalize:
        weights_TK = weights_TK / weights_TK.sum(dim=-1, keepdim=True)
    return chosen_TE[:, :per_token].contiguous(), weights_TK.contiguous()


def silu_and_mul(x_T2I: Tensor) -> Tensor:
    gate_TI, up_TI = x_T2I.chunk(2, dim=-1)
    return F.silu(gate_TI) * up_TI


def gelu_tanh_and_mul(x_T2I: Tensor) -> Tensor:
    gate_TI, up_TI = x_T2I.chunk(2, dim=-1)
    return F.gelu(gate_TI, approximate="tanh") * up_TI


def _gather(cache: Tensor, blocks: Tensor, length: int) -> Tensor:
    """[M, length, W]: the sequence's own tokens and nothing that lies behind them."""
    return cache[blocks].transpose(0, 1).flatten(1, 2)[:, :length]


def _causal(q_QNH: Tensor, k_MLH: Tensor, v_MLH: Tensor, scale: float, window: int | None) -> Tensor:
    rows, length = q_QNH.shape[0], k_MLH.shape[1]
    q_MGQH = q_QNH.reshape(rows, k_MLH.shape[0], -1, q_QNH.shape[2]).permute(1, 2, 0, 3)
    scores = torch.einsum("mgqh,mlh->mgql", q_MGQH, k_MLH) * scale
    key = torch.arange(length, device=q_QNH.device)
    position = torch.arange(length - rows, length, device=q_QNH.device)
    hidden = key[None, :] > position[:, None]
    if window is not None:
        hidden |= key[None, :] <= position[:, None] - window
    scores = scores.masked_fill(hidden, float("-inf"))
    out_MGQH = torch.einsum("mgql,mlh->mgqh", scores.softmax(dim=-1), v_MLH)
    return out_MGQH.permute(2, 0, 1, 3).flatten(1, 2)
