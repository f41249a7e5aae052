"""Heads and intermediate features are divided; norms are replicated (Megatron-LM, Shoeybi et al. 2019)."""

from __future__ import annotations

from inference_pio.models.llama.config import LlamaConfig
from inference_pio.plugin import sharding
from inference_pio.plugin.facts import ShardPlan


def shard_plan(config: LlamaConfig) -> ShardPlan:
    rules = {
        **sharding.dense_decoder(config),
        "model.rotary_emb.freq_factors": sharding.WHOLE,
        **sharding.whole("input_layernorm", "post_attention_layernorm"),
    }
    divided = (config.num_attention_heads, config.intermediate_size, config.vocab_size)
    return ShardPlan(rules, sharding.legal_sizes(divided, config.num_key_value_heads))
