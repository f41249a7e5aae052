"""Heads and intermediate features are divided; norms are replicated (Megatron-LM, Shoeybi et al. 2019).

Gemma-3-270M has 4 heads and 1 KV head: 1, 2 or 4 ranks, each of which holds that KV head. The norms of a head are those
of every head, so that each rank needs them whole; the norm behind a block reads the sum over the ranks.
"""

from __future__ import annotations

from inference_pio.models.gemma3_text.config import Gemma3TextConfig
from inference_pio.plugin.facts import ShardPlan, ShardRule, TechniqueFact

_MAX_RANKS = 64
_NORMS = (
    "self_attn.q_norm", "self_attn.k_norm", "input_layernorm", "post_attention_layernorm",
    "pre_feedforward_layernorm", "post_feedforward_layernorm",
)  # fmt: skip


def shard_plan(config: Gemma3TextConfig) -> ShardPlan:
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
        ("mlp.gate_proj", ShardRule("column", config.intermediate_size)),
        ("mlp.up_proj", ShardRule("column", config.intermediate_size)),
        ("mlp.down_proj", ShardRule("row", config.intermediate_size)),
        *((norm, ShardRule("replicate")) for norm in _NORMS),
    ):
        rules[f"{layer}{name}.weight"] = rule
    return ShardPlan(rules, tuple(size for size in range(1, _MAX_RANKS + 1) if _legal(config, size)))


def _legal(config: Gemma3TextConfig, size: int) -> bool:
    """Heads, intermediate features and vocabulary divide evenly; KV heads divide, or are held by several ranks."""
    kv_heads = config.num_key_value_heads
    whole = (config.num_attention_heads, config.intermediate_size, config.vocab_size)
    return all(total % size == 0 for total in whole) and (kv_heads % size == 0 or size % kv_heads == 0)


def technique(config: Gemma3TextConfig) -> TechniqueFact:
    sizes = ", ".join(map(str, shard_plan(config).legal_sizes))
    return TechniqueFact(
        "tensor parallelism",
        "hardware",
        "dormant",
        exact=True,
        reason=f"one rank runs; this model can be divided over {sizes}",
    )
