"""Rotary positions and the cache write in one pass.

Queries and keys are turned and keys and values stored while they are in registers: read qkv once, write q, k, v once.
`ops.rope_and_cache` holds the implementations (torch reference everywhere, native on the CPU); this file says in which
layout mistral uses it.
"""

from __future__ import annotations

from torch import Tensor

from inference_pio import ops
from inference_pio.cache.specs import KVCache
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.facts import TechniqueFact


def rotate_and_store(
    qkv_TE: Tensor, batch: ForwardBatch, cos_sin: Tensor, cache: KVCache, num_heads: int, num_kv_heads: int
) -> Tensor:
    """qkv_TE is [T, (heads + 2 · kv_heads) · head_dim], queries first; returns turned queries [T, heads, head_dim]."""
    return ops.rope_and_cache(
        qkv_TE,
        batch.positions,
        cos_sin,
        cache.k,
        cache.v,
        batch.slot_mapping,
        num_heads,
        num_kv_heads,
        cache.scales,
    )


def technique() -> TechniqueFact:
    return TechniqueFact(
        "fused operations",
        "hardware",
        "active",
        exact=True,
        reason="rotary positions and cache write are one",
    )
