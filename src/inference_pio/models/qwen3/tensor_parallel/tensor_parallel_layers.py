"""Heads and intermediate features are divided; norms are replicated (Megatron-LM, Shoeybi et al. 2019).

The norms of queries and keys act inside a head and have one weight for all of them: every rank holds it. Qwen3-0.6B has
16 heads and 8 KV heads: 1, 2, 4, 8 or 16 ranks; on 16, two ranks hold each KV head.
"""

from __future__ import annotations

from inference_pio.models.qwen3.config import Qwen3Config
from inference_pio.plugin.facts import ShardPlan, ShardRule

_MAX_RANKS = 64
_NORMS = ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm")


def shard_plan(config: Qwen3Config) -> ShardPlan:
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    vocabulary = ShardRule("vocab", config.vocab_size)
    rules = {
        "model.embed_tokens.weight": vocabulary,
        "lm_head.weight": vocabulary,
        "model.norm.weight": ShardRule("replicate"),
    }
    layer = "model.layers.*."
    for name, rule in (
        ("self_attn.q_proj", ShardRule("column", heads)),
        ("self_attn.k_proj", ShardRule("column", kv_heads)),
        ("self_attn.v_proj", ShardRule("column", kv_heads)),
        ("self_attn.o_proj", ShardRule("row", heads)),
    ):
        rules[f"{layer}{name}.weight"] = rules[f"{layer}{name}.bias"] = rule
    for name in ("gate_proj", "up_proj"):
        rules[f"{layer}mlp.{name}.weight"] = ShardRule("column", config.intermediate_size)
    rules[f"{layer}mlp.down_proj.weight"] = ShardRule("row", config.intermediate_size)
    rules |= {f"{layer}{norm}.weight": ShardRule("replicate") for norm in _NORMS}
    return ShardPlan(rules, tuple(size for size in range(1, _MAX_RANKS + 1) if _legal(config, size)))


def _legal(config: Qwen3Config, size: int) -> bool:
    """Heads, intermediate features and vocabulary divide evenly; KV heads divide, or are held by several ranks."""
    kv_heads = config.num_key_value_heads
    whole = (config.num_attention_heads, config.intermediate_size, config.vocab_size)
    return all(total % size == 0 for total in whole) and (kv_heads % size == 0 or size % kv_heads == 0)
