"""What follows the projection of queries, keys and values, in one pass: norm of each head, rotation, cache write.

A head is normalised and turned while it is in registers, and its key and value go to the cache from there.
"""

from __future__ import annotations

from torch import Tensor

from inference_pio import ops
from inference_pio.cache.specs import KVCache
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.facts import TechniqueFact


def normalize_rotate_and_store(
    qkv_TE: Tensor,
    batch: ForwardBatch,
    cos_sin: Tensor,
    cache: KVCache,
    heads: tuple[int, int],
    norms: ops.HeadNorms,
) -> Tensor:
    """Turned queries [T, heads, head_dim] of qkv [T, (heads + 2 · kv_heads) · head_dim], queries first."""
    caches = (cache.k, cache.v, batch.slot_mapping)
    return ops.rope_and_cache(qkv_TE, batch.positions, cos_sin, *caches, *heads, cache.scales, norms)


def technique() -> TechniqueFact:
    return TechniqueFact(
        "CUDA kernels",
        "hardware",
        "dormant",
        exact=True,
        reason="norms, rotation and cache write are one native pass on a CPU, the router and the experts one each; "
        "on a GPU the torch reference runs",
    )
