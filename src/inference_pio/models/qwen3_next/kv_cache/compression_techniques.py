"""Two kinds of memory: keys and values in attention layers, a state of one size in DeltaNet layers.

Qwen3-Coder-Next takes 24,576 bytes a token in bfloat16 (12 layers of 2 KV heads of 256), and for each sequence
79,036,416 bytes of state (36 layers of 3 × 8,192 inputs of the convolution and 32 matrices of 128 × 128), as much as
3,216 tokens. So how many sequences run at once is decided by their states. A draft takes 2,368,512 bytes until it is
known whether it counts.
"""

from __future__ import annotations

import torch

from inference_pio.cache.specs import PagedKV, RecurrentState
from inference_pio.models.qwen3_next.config import ATTENTION, Qwen3NextConfig
from inference_pio.parallel import Shard
from inference_pio.plugin.facts import TechniqueFact


def cache_specs(
    config: Qwen3NextConfig, dtype: torch.dtype, shard: Shard
) -> tuple[PagedKV | RecurrentState, ...]:
    """One spec per layer, that of the layer that drafts last; a rank holds the KV heads, and the state of the key
    heads, that are its own.
    """
    attention = PagedKV(shard.part(config.num_key_value_heads), config.head_dim, dtype)
    state = RecurrentState(
        channels=shard.part(config.linear_num_key_heads)
        * ((2 * config.key_width + config.value_width) // config.linear_num_key_heads),
        width=config.linear_conv_kernel_dim,
        num_heads=shard.part(config.linear_num_key_heads)
        * (config.linear_num_value_heads // config.linear_num_key_heads),
        key_dim=config.linear_key_head_dim,
        value_dim=config.linear_value_head_dim,
    )
    drafting = (attention,) if config.use_mtp else ()
    return (*(attention if kind == ATTENTION else state for kind in config.layer_types), *drafting)


def technique() -> TechniqueFact:
    return TechniqueFact(
        "KV-cache compression",
        "memory",
        "dormant",
        exact=False,
        reason="kv_cache_dtype int8 halves what attention layers keep, on a CPU; states stay float32: each token adds "
        "to them, and its rounding would stay",
    )
