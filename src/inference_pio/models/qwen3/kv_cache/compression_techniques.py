"""Keys and values of every token in every layer; Qwen3-0.6B takes 114,688 bytes a token in bfloat16.

That is four times as much as Qwen2.5-Coder-1.5B, a larger model: it has 8 KV heads where that has 2. Keys are stored as
attention reads them, normalised and turned.
"""

from __future__ import annotations

import torch

from inference_pio.cache.specs import PagedKV
from inference_pio.models.qwen3.config import Qwen3Config
from inference_pio.parallel import Shard


def cache_specs(config: Qwen3Config, dtype: torch.dtype, shard: Shard) -> tuple[PagedKV, ...]:
    """One spec per layer; a rank holds the KV heads of its own heads."""
    spec = PagedKV(shard.part(config.num_key_value_heads), config.head_dim, dtype)
    return (spec,) * config.num_hidden_layers
