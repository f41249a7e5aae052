"""Heads and intermediate features are divided; norms are replicated (Megatron-LM, Shoeybi et al. 2019)."""

from __future__ import annotations

from inference_pio.plugin.facts import ShardPlan, ShardRule, TechniqueFact
from inference_pio_mistral.config import MistralConfig

_MAX_RANKS = 64


def shard_plan(config: MistralConfig) -> ShardPlan:
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    replicate = ShardRule("replicate")
    vocabulary = ShardRule("vocab", config.vocab_size)
    rules = {
        "model.embed_tokens.weight": vocabulary,
        "lm_head.weight": vocabulary,
        "model.norm.weight": replicate,
    }
    layer = "model.layers.*."
    for name, rule in (
        ("self_attn.q_proj", ShardRule("column", heads)),
        ("self_attn.k_proj", ShardRule("column", kv_heads)),
        ("self_attn.v_proj", ShardRule("column", kv_heads)),
        ("self_attn.o_proj", ShardRule("row", heads)),
        ("mlp.gate_proj", ShardRule("column", config.intermediate_size)),
        ("mlp.up_proj", ShardRule("column", config.intermediate_size)),
        ("mlp.down_proj", ShardRule("row", config.intermediate_size)),
    ):
        rules[f"{layer}{name}.weight"] = rule
    rules[f"{layer}input_layernorm.weight"] = rules[f"{layer}post_attention_layernorm.weight"] = replicate
    return ShardPlan(rules, tuple(size for size in range(1, _MAX_RANKS + 1) if _legal(config, size)))


def _legal(config: MistralConfig, size: int) -> bool:
    """Heads, intermediate features and vocabulary divide evenly; KV heads divide, or are held by several ranks."""
    kv_heads = config.num_key_value_heads
    whole = (config.num_attention_heads, config.intermediate_size, config.vocab_size)
    return all(total % size == 0 for total in whole) and (kv_heads % size == 0 or size % kv_heads == 0)


def technique(config: MistralConfig) -> TechniqueFact:
    sizes = ", ".join(map(str, shard_plan(config).legal_sizes))
    return TechniqueFact(
        "tensor parallelism",
        "hardware",
        "dormant",
        exact=True,
        reason=f"one rank runs; this model can be divided over {sizes}",
    )
