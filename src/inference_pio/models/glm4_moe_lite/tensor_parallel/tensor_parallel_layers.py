"""Heads and intermediate features are divided; what leads to latents, routers and norms are replicated.

Every head reads the same latents, so each rank computes and caches all of them, and divides what comes behind. Experts
are divided by their intermediate features: every rank has a part of each. GLM-4.7-Flash has 20 heads and experts of
1,536 features: 1, 2 or 4 ranks. The heads alone would divide by 5, 10 and 20 as well.
"""

from __future__ import annotations

from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.plugin import sharding
from inference_pio.plugin.facts import ShardPlan, ShardRule


def shard_plan(config: Glm4MoeLiteConfig) -> ShardPlan:
    heads, features = config.num_attention_heads, config.moe_intermediate_size
    rules = {
        **sharding.ends(config.vocab_size),
        **_attention(heads),
        **sharding.gated("mlp", config.intermediate_size),
        **sharding.gated("mlp.experts.*", features),
        **sharding.gated("mlp.shared_experts", config.n_shared_experts * features),
    }
    divided = (heads, config.intermediate_size, features, config.vocab_size)
    return ShardPlan(rules, sharding.legal_sizes(divided))


def _attention(heads: int) -> dict[str, ShardRule]:
    """Rules of everything in a layer that is not one of its three feed-forward blocks."""
    column, row, replicate = ShardRule("column", heads), ShardRule("row", heads), ShardRule("replicate")
    rules = {
        "self_attn.q_proj.weight": column,
        "self_attn.q_b_proj.weight": column,
        "self_attn.kv_b_proj.weight": column,
        "self_attn.o_proj.weight": row,
        "self_attn.o_proj.bias": row,
        # of GGUF files: a matrix for each head
        **{
            f"self_attn.apart_{part}.{head}.weight": ShardRule("unit", heads, unit=head)
            for part in "kv"
            for head in range(heads)
        },
    }
    replicated = (
        *("self_attn.q_a_proj.weight", "self_attn.q_a_proj.bias", "self_attn.q_a_layernorm.weight"),
        *("self_attn.kv_a_proj_with_mqa.weight", "self_attn.kv_a_proj_with_mqa.bias"),
        *("self_attn.kv_a_layernorm.weight", "mlp.gate.weight", "mlp.gate.e_score_correction_bias"),
        *("input_layernorm.weight", "post_attention_layernorm.weight"),
        # of the layer that drafts
        *("eh_proj.weight", "enorm.weight", "hnorm.weight", "shared_head.norm.weight"),
    )
    rules.update(dict.fromkeys(replicated, replicate))
    return {f"{sharding.LAYER}{name}": rule for name, rule in rules.items()}
