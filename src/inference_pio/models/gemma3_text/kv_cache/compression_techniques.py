"""Keys and values of every token in every layer; Gemma-3-270M takes 18,432 bytes a token in bfloat16.

Layers with a window keep what lies before it as well: blocks belong to all layers alike, and a shared prefix is reused
from any of its tokens on.
"""

from __future__ import annotations

import torch

from inference_pio.cache.specs import PagedKV
from inference_pio.models.gemma3_text.config import Gemma3TextConfig
from inference_pio.parallel import Shard


def cache_specs(config: Gemma3TextConfig, dtype: torch.dtype, shard: Shard) -> tuple[PagedKV, ...]:
    """One spec per layer; a rank holds the KV heads of its own heads."""
    spec = PagedKV(shard.part(config.num_key_value_heads), config.head_dim, dtype)
    return (spec,) * config.num_hidden_layers
