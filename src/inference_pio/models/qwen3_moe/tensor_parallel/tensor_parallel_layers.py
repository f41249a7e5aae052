"""Heads and features are divided, those of every expert too; norms and the router are replicated.

Each rank holds a slice of all experts rather than some experts whole (Megatron-LM, Shoeybi et al. 2019): ranks stay
equally busy whatever the router chooses. Qwen3-30B-A3B has 32 heads, 4 KV heads and experts of 768 features: 1, 2, 4,
8, 16 or 32 ranks; from 8 on, several hold each KV head. The dense width counts only where a layer is dense: of the
5,472 that Qwen3-Coder states no layer makes use.
"""

from __future__ import annotations

from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig
from inference_pio.plugin import sharding
from inference_pio.plugin.facts import ShardPlan


def shard_plan(config: Qwen3MoeConfig) -> ShardPlan:
    rules = {
        **sharding.dense_decoder(config),
        **sharding.gated("mlp.experts.*", config.moe_intermediate_size),
        **sharding.whole("input_layernorm", "post_attention_layernorm", "mlp.gate"),
        **sharding.whole("self_attn.q_norm", "self_attn.k_norm"),
    }
    return ShardPlan(rules, sharding.legal_sizes(_divided(config), config.num_key_value_heads))


def _divided(config: Qwen3MoeConfig) -> set[int]:
    """Features of blocks that no layer has need not come out even."""
    sparse = [config.has_experts(layer) for layer in range(config.num_hidden_layers)]
    widths = {config.moe_intermediate_size} if any(sparse) else set()
    widths |= {config.intermediate_size} if not all(sparse) else set()
    return {config.num_attention_heads, config.vocab_size, *widths}
