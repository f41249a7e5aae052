"""Attention by heads, DeltaNet by groups of one key head and the value heads it serves, experts by their features.

Both input projections of a DeltaNet layer have their rows grouped by key head already; the convolution's channels lie
as queries, keys, values, and each of the three is divided on its own. Qwen3-Coder-Next has 2 KV heads: beyond 2 ranks
several hold each of them. Routers and gates are replicated.
"""

from __future__ import annotations

from inference_pio.models.qwen3_next.config import ATTENTION, DELTA_NET, Qwen3NextConfig
from inference_pio.plugin import sharding
from inference_pio.plugin.facts import ShardPlan, ShardRule

_DRAFTING = "mtp.layers.*."  # the layer that drafts, cut like the model's
_AROUND_IT = ("fc", "norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden")


def shard_plan(config: Qwen3NextConfig) -> ShardPlan:
    rules = {
        **sharding.ends(config.vocab_size),
        **_attention(config),
        **_delta_net(config),
        **sharding.gated("mlp", config.intermediate_size),
        **sharding.gated("mlp.experts.*", config.moe_intermediate_size),
        **sharding.gated("mlp.shared_expert", config.shared_expert_intermediate_size),
        **sharding.whole("input_layernorm", "post_attention_layernorm", "mlp.gate", "mlp.shared_expert_gate"),
    }
    in_a_layer = {name: rule for name, rule in rules.items() if name.startswith(sharding.LAYER)}
    rules |= {name.replace(sharding.LAYER, _DRAFTING): rule for name, rule in in_a_layer.items()}
    rules |= {f"mtp.{name}.weight": sharding.WHOLE for name in _AROUND_IT}
    kv_heads = config.num_key_value_heads if _attends(config) else None
    return ShardPlan(rules, sharding.legal_sizes(_divided(config), kv_heads))


def _attention(config: Qwen3NextConfig) -> dict[str, ShardRule]:
    """A head's rows of q_proj are its query and its gate, so that whole heads are whole there too."""
    return {
        **sharding.attention(config.num_attention_heads, config.num_key_value_heads),
        **sharding.whole("self_attn.q_norm", "self_attn.k_norm"),
    }


def _delta_net(config: Qwen3NextConfig) -> dict[str, ShardRule]:
    groups = config.linear_num_key_heads
    by_group = ShardRule("column", groups)
    channels = (config.key_width, config.key_width, config.value_width)
    place = f"{sharding.LAYER}linear_attn."
    return {
        f"{place}in_proj_qkvz.weight": by_group,
        f"{place}in_proj_ba.weight": by_group,
        f"{place}conv1d.weight": ShardRule("column", groups, parts=channels),
        f"{place}A_log": by_group,
        f"{place}dt_bias": by_group,
        f"{place}norm.weight": sharding.WHOLE,
        f"{place}out_proj.weight": ShardRule("row", groups),
    }


def _attends(config: Qwen3NextConfig) -> bool:
    """Whether any layer does, that which drafts included."""
    return ATTENTION in config.layer_types or config.use_mtp


def _divided(config: Qwen3NextConfig) -> list[int]:
    """Totals of everything that the model has and that is divided, but KV heads."""
    whole = [config.vocab_size]
    if _attends(config):
        whole.append(config.num_attention_heads)
    if DELTA_NET in config.layer_types:
        whole.append(config.linear_num_key_heads)
    if config.dense_layers:
        whole.append(config.intermediate_size)
    if config.has_experts:
        whole += [config.moe_intermediate_size, config.shared_expert_intermediate_size]
    return whole
