"""A token's row in the cache: norm of the latent, turn of the rotary key, and the write.

`ops.store_latents` holds the implementation; this file says in which layout glm4_moe_lite uses it.
"""

from __future__ import annotations

from torch import Tensor

from inference_pio import ops
from inference_pio.cache.specs import LatentCache
from inference_pio.layers import RMSNorm
from inference_pio.plugin import techniques
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.facts import TechniqueFact


def store_latents(
    kv_TW: Tensor, norm: RMSNorm, batch: ForwardBatch, cos_sin: Tensor, cache: LatentCache, pairs: bool
) -> None:
    """kv_TW is [T, kv_lora_rank + qk_rope_head_dim], latents first, as the down-projection gives them.

    Of the rotary key neighbours turn together (`pairs`), or the two halves do.
    """
    ops.store_latents(
        kv_TW, norm.weight, norm.eps, batch.positions, cos_sin, cache.rows, batch.slot_mapping, pairs
    )


def technique() -> TechniqueFact:
    return techniques.fused_operations(
        "norm of the latent, rotation of the key and cache write are one, attention over latents is another"
    )
