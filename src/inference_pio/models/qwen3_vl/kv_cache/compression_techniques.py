"""Keys and values of every token in every text layer; Qwen3-VL-2B takes 114,688 bytes a token in bfloat16.

A token of an image takes as much as one of a text. What the vision tower and DeepStack make of an image enters the
layers while the image's tokens are computed and is not read again: none of it is cached here. Keys are stored as
attention reads them, normalised and turned.
"""

from __future__ import annotations

import torch

from inference_pio.cache.specs import PagedKV
from inference_pio.models.qwen3_vl.config import Qwen3VLConfig
from inference_pio.parallel import Shard


def cache_specs(config: Qwen3VLConfig, dtype: torch.dtype, shard: Shard) -> tuple[PagedKV, ...]:
    """One spec per text layer; a rank holds the KV heads of its own heads."""
    spec = PagedKV(shard.part(config.num_key_value_heads), config.head_dim, dtype)
    return (spec,) * config.num_hidden_layers
