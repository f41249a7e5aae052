"""Heads and intermediate features are divided; norms are replicated (Megatron-LM, Shoeybi et al. 2019).

Qwen2.5-Coder-1.5B has 12 heads and 2 KV heads: 1, 2 or 4 ranks; on 4, two ranks hold each KV head. Twelve heads would
divide by 6 and 12 as well, its 8,960 intermediate features do not.
"""

from __future__ import annotations

from inference_pio.models.qwen2.config import Qwen2Config
from inference_pio.plugin.facts import ShardPlan, ShardRule

_MAX_RANKS = 64


def shard_plan(config: Qwen2Config) -> ShardPlan:
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
    for name, count in (("q_proj", heads), ("k_proj", kv_heads), ("v_proj", kv_heads)):
        rules[f"{layer}self_attn.{name}.bias"] = ShardRule("column", count)
    rules[f"{layer}input_layernorm.weight"] = rules[f"{layer}post_attention_layernorm.weight"] = replicate
    return ShardPlan(rules, tuple(size for size in range(1, _MAX_RANKS + 1) if _legal(config, size)))


def _legal(config: Qwen2Config, size: int) -> bool:
    """Heads, intermediate features and vocabulary divide evenly; KV heads divide, or are held by several ranks."""
    kv_heads = config.num_key_value_heads
    whole = (config.num_attention_heads, config.intermediate_size, config.vocab_size)
    return all(total % size == 0 for total in whole) and (kv_heads % size == 0 or size % kv_heads == 0)
