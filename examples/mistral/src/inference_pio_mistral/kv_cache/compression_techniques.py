"""Keys and values of every token in every layer; Mistral 7B takes 131,072 bytes a token in bfloat16."""

from __future__ import annotations

import torch

from inference_pio.cache.specs import PagedKV
from inference_pio.parallel import Shard
from inference_pio.plugin.facts import TechniqueFact
from inference_pio_mistral.config import MistralConfig


def cache_specs(config: MistralConfig, dtype: torch.dtype, shard: Shard) -> tuple[PagedKV, ...]:
    """One spec per layer; a rank holds the KV heads of its own heads."""
    spec = PagedKV(shard.part(config.num_key_value_heads), config.head_dim, dtype)
    return (spec,) * config.num_hidden_layers


def technique() -> TechniqueFact:
    return TechniqueFact(
        "KV-cache compression",
        "memory",
        "dormant",
        exact=False,
        reason="the engine's option kv_cache_dtype int8 switches it on, on a CPU: half of bfloat16's bytes",
    )
