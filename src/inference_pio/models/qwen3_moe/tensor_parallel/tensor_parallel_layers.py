"""Heads and features are divided, those of every expert too; norms and the router are replicated.

Each rank holds a slice of all experts rather than some experts whole (Megatron-LM, Shoeybi et al. 2019): ranks stay
equally busy whatever the router chooses. Qwen3-30B-A3B has 32 heads, 4 KV heads and experts of 768 features: 1, 2, 4,
8, 16 or 32 ranks; from 8 on, several hold each KV head. The dense width counts only where a layer is dense: of the
5,472 that Qwen3-Coder states no layer makes use.
"""

from __future__ import annotations

from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig
from inference_pio.plugin.facts import ShardPlan, ShardRule, TechniqueFact

_MAX_RANKS = 64
_LAYER = "model.layers.*."


def shard_plan(config: Qwen3MoeConfig) -> ShardPlan:
    everywhere, vocabulary = ShardRule("replicate"), ShardRule("vocab", config.vocab_size)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    rules = {
        "model.embed_tokens.weight": vocabulary,
        "lm_head.weight": vocabulary,
        "model.norm.weight": everywhere,
        f"{_LAYER}self_attn.q_proj.weight": ShardRule("column", heads),
        f"{_LAYER}self_attn.k_proj.weight": ShardRule("column", kv_heads),
        f"{_LAYER}self_attn.v_proj.weight": ShardRule("column", kv_heads),
        f"{_LAYER}self_attn.o_proj.weight": ShardRule("row", heads),
    }
    for norm in ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"):
        rules[f"{_LAYER}{norm}.weight"] = everywhere
    rules[f"{_LAYER}mlp.gate.weight"] = everywhere
    for block, features in (
        ("mlp", config.intermediate_size),
        ("mlp.experts.*", config.moe_intermediate_size),
    ):
        rules[f"{_LAYER}{block}.gate_proj.weight"] = ShardRule("column", features)
        rules[f"{_LAYER}{block}.up_proj.weight"] = ShardRule("column", features)
        rules[f"{_LAYER}{block}.down_proj.weight"] = ShardRule("row", features)
    return ShardPlan(rules, tuple(size for size in range(1, _MAX_RANKS + 1) if _divides(config, size)))


def _divides(config: Qwen3MoeConfig, size: int) -> bool:
    """Everything that is cut is cut evenly; KV heads may be held by several ranks instead."""
    sparse = [config.has_experts(layer) for layer in range(config.num_hidden_layers)]
    whole = {config.num_attention_heads, config.vocab_size}
    whole |= {config.moe_intermediate_size} if any(sparse) else set()
    whole |= {config.intermediate_size} if not all(sparse) else set()
    kv_heads = config.num_key_value_heads
    return not any(total % size for total in whole) and (kv_heads % size == 0 or size % kv_heads == 0)


def technique(config: Qwen3MoeConfig) -> TechniqueFact:
    sizes = ", ".join(str(size) for size in shard_plan(config).legal_sizes)
    return TechniqueFact(
        "tensor parallelism",
        "hardware",
        "dormant",
        exact=True,
        reason=f"one rank runs; this model can be divided over {sizes}",
    )
