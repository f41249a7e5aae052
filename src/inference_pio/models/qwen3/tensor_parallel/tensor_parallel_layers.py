"""Heads and intermediate features are divided; norms are replicated (Megatron-LM, Shoeybi et al. 2019).

The norms of queries and keys act inside a head and have one weight for all of them: every rank holds it. Qwen3-0.6B has
16 heads and 8 KV heads: 1, 2, 4, 8 or 16 ranks; on 16, two ranks hold each KV head.
"""

from __future__ import annotations

from inference_pio.models.qwen3.config import Qwen3Config
from inference_pio.plugin import sharding
from inference_pio.plugin.facts import ShardPlan


def shard_plan(config: Qwen3Config) -> ShardPlan:
    rules = {
        **sharding.dense_decoder(config),
        **sharding.whole(
            "input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"
        ),
    }
    divided = (config.num_attention_heads, config.intermediate_size, config.vocab_size)
    return ShardPlan(rules, sharding.legal_sizes(divided, config.num_key_value_heads))
