"""Keys and values of every token in every layer; SmolLM2-135M takes 23,040 bytes a token in bfloat16."""

from __future__ import annotations

import torch

from inference_pio.cache.specs import PagedKV
from inference_pio.models.llama.config import LlamaConfig
from inference_pio.parallel import Shard


def cache_specs(config: LlamaConfig, dtype: torch.dtype, shard: Shard) -> tuple[PagedKV, ...]:
    """One spec per layer; a rank holds the KV heads of its own heads."""
    spec = PagedKV(shard.part(config.num_key_value_heads), config.head_dim, dtype)
    return (spec,) * config.num_hidden_layers
