"""Norms of heads, rotary positions and the cache write in one pass; the angles of three axes in one gather.

A head's queries and keys are normalised and turned, keys and values stored, while they are in registers: read qkv once,
write q, k, v once. `ops.rope_and_cache` holds the implementations (torch reference everywhere, native on the CPU); this
file says in which layout and order qwen3_vl uses it. It turns a token by one row of a table. In steps with images,
whose tokens have three positions, the rows are put together first, once for all layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inference_pio import ops
from inference_pio.cache.specs import KVCache
from inference_pio.plugin import techniques
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.facts import TechniqueFact


def normalise_rotate_and_store(
    qkv_TE: Tensor,
    batch: ForwardBatch,
    turns: tuple[Tensor, Tensor],
    cache: KVCache,
    num_heads: int,
    num_kv_heads: int,
    norms: ops.HeadNorms,
) -> Tensor:
    """qkv_TE is [T, (heads + 2 · kv_heads) · head_dim], queries first; returns queries [T, heads, head_dim].

    The norms come before the rotation, and values have none (`Qwen3VLTextAttention` of transformers'
    modeling_qwen3_vl). turns: row of each token, and the table that has it (`RotaryEmbedding.forward`).
    """
    return ops.rope_and_cache(
        qkv_TE,
        *turns,
        cache.k,
        cache.v,
        batch.slot_mapping,
        num_heads,
        num_kv_heads,
        cache.scales,
        norms,
    )


def pick_axes(cos_sin_PH: Tensor, positions_3T: Tensor, axis_H: Tensor) -> Tensor:
    """[T, H] float32: column h of token t out of the row of its position along axis axis_H[h]."""
    columns = torch.arange(len(axis_H), device=axis_H.device)
    return cos_sin_PH[positions_3T.T.index_select(1, axis_H), columns]


def technique() -> TechniqueFact:
    return techniques.fused_operations(
        "in the text's layers norms of heads, rotary positions and cache write are one; the vision tower has torch's"
    )
