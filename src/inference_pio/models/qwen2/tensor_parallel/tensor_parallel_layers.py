"""Heads and intermediate features are divided; norms are replicated (Megatron-LM, Shoeybi et al. 2019).

Qwen2.5-Coder-1.5B has 12 heads and 2 KV heads: 1, 2 or 4 ranks; on 4, two ranks hold each KV head. Twelve heads would
divide by 6 and 12 as well, its 8,960 intermediate features do not.
"""

from __future__ import annotations

from inference_pio.models.qwen2.config import Qwen2Config
from inference_pio.plugin import sharding
from inference_pio.plugin.facts import ShardPlan


def shard_plan(config: Qwen2Config) -> ShardPlan:
    rules = {
        **sharding.dense_decoder(config),
        **sharding.whole("input_layernorm", "post_attention_layernorm"),
    }
    divided = (config.num_attention_heads, config.intermediate_size, config.vocab_size)
    return ShardPlan(rules, sharding.legal_sizes(divided, config.num_key_value_heads))
