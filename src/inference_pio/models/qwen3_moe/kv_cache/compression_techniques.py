"""Keys, normalised and turned, and values of every token in every layer.

Qwen3-Coder-30B-A3B takes 98,304 bytes a token in bfloat16: 4 KV heads of 128 in 48 layers.
"""

from __future__ import annotations

import torch

from inference_pio.cache.specs import PagedKV
from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig
from inference_pio.parallel import Shard
from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def cache_specs(config: Qwen3MoeConfig, dtype: torch.dtype, shard: Shard) -> tuple[PagedKV, ...]:
    """The same for each layer, with experts or without; a rank holds the KV heads of its own heads."""
    heads = shard.part(config.num_key_value_heads)
    return tuple(PagedKV(heads, config.head_dim, dtype) for _ in range(config.num_hidden_layers))


def technique() -> TechniqueFact:
    return techniques.int8_cache("keys of normalised heads have no outliers that would spoil a head's scale")
