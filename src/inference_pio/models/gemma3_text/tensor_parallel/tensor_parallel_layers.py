"""Heads and intermediate features are divided; norms are replicated (Megatron-LM, Shoeybi et al. 2019).

Gemma-3-270M has 4 heads and 1 KV head: 1, 2 or 4 ranks, each of which holds that KV head. The norms of a head are those
of every head, so that each rank needs them whole; the norm behind a block reads the sum over the ranks.
"""

from __future__ import annotations

from inference_pio.models.gemma3_text.config import Gemma3TextConfig
from inference_pio.plugin import sharding
from inference_pio.plugin.facts import ShardPlan


def shard_plan(config: Gemma3TextConfig) -> ShardPlan:
    rules = {
        **sharding.dense_decoder(config),
        **sharding.whole("self_attn.q_norm", "self_attn.k_norm"),
        **sharding.whole("input_layernorm", "post_attention_layernorm"),
        **sharding.whole("pre_feedforward_layernorm", "post_feedforward_layernorm"),
    }
    divided = (config.num_attention_heads, config.intermediate_size, config.vocab_size)
    return ShardPlan(rules, sharding.legal_sizes(divided, config.num_key_value_heads))
