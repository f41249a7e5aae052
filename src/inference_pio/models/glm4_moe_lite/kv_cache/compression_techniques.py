"""One latent and one rotary key of every token in every layer, for all heads together.

GLM-4.7-Flash takes 47 layers · 576 values = 54,144 bytes a token in bfloat16; its keys and values, 20 heads of 256 and
256, would take 962,560.
"""

from __future__ import annotations

import torch

from inference_pio.cache.specs import PagedLatent
from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.parallel import Shard
from inference_pio.plugin.facts import TechniqueFact


def cache_specs(
    config: Glm4MoeLiteConfig,
    dtype: torch.dtype,
    shard: Shard,  # noqa: ARG001
) -> tuple[PagedLatent, ...]:
    """One spec per layer, that of a layer that drafts last; every rank holds all of it, since all heads read the same
    latents.
    """
    spec = PagedLatent(config.kv_lora_rank, config.qk_rope_head_dim, dtype)
    return (spec,) * (config.num_hidden_layers + config.use_mtp)


def technique(config: Glm4MoeLiteConfig) -> TechniqueFact:
    expanded = config.num_attention_heads * (config.qk_head_dim + config.v_head_dim)
    return TechniqueFact(
        "KV-cache compression",
        "memory",
        "active",
        exact=True,
        reason=f"the architecture's own: {config.latent_width} values a token and layer stand for the {expanded} of "
        f"keys and values; int8 on top is refused, a latent and a rotary key would share one scale",
    )
