"""Attention by heads, DeltaNet by groups of one key head and the value heads it serves, experts by their features.

Both input projections of a DeltaNet layer have their rows grouped by key head already; the convolution's channels lie
as queries, keys, values, and each of the three is divided on its own. Qwen3-Coder-Next has 2 KV heads: beyond 2 ranks
several hold each of them. Routers and gates are replicated.
"""

from __future__ import annotations

from inference_pio.models.qwen3_next.config import ATTENTION, DELTA_NET, Qwen3NextConfig
from inference_pio.plugin.facts import ShardPlan, ShardRule, TechniqueFact

_MAX_RANKS = 64
_WHOLE = ShardRule("replicate")
_LAYERS = ("model.layers.*.", "mtp.layers.*.")  # of the model, and what drafts for it
_MTP = ("fc", "norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden")


def shard_plan(config: Qwen3NextConfig) -> ShardPlan:
    vocabulary = ShardRule("vocab", config.vocab_size)
    rules = {
        "model.embed_tokens.weight": vocabulary,
        "lm_head.weight": vocabulary,
        "model.norm.weight": _WHOLE,
        **{f"mtp.{name}.weight": _WHOLE for name in _MTP},
    }
    in_a_layer = {
        "input_layernorm.weight": _WHOLE,
        "post_attention_layernorm.weight": _WHOLE,
        **_attention(config),
        **_delta_net(config),
        **_swiglu("mlp.", config.intermediate_size),
        **_swiglu("mlp.experts.*.", config.moe_intermediate_size),
        **_swiglu("mlp.shared_expert.", config.shared_expert_intermediate_size),
        "mlp.gate.weight": _WHOLE,
        "mlp.shared_expert_gate.weight": _WHOLE,
    }
    for layer in _LAYERS:
        rules |= {f"{layer}{name}": rule for name, rule in in_a_layer.items()}
    return ShardPlan(rules, tuple(size for size in range(1, _MAX_RANKS + 1) if _legal(config, size)))


def _attention(config: Qwen3NextConfig) -> dict[str, ShardRule]:
    """A head's rows of q_proj are its query and its gate, so that whole heads are whole there too."""
    heads, kv_heads = (
        ShardRule("column", n) for n in (config.num_attention_heads, config.num_key_value_heads)
    )
    place = "self_attn."
    rules = {f"{place}q_norm.weight": _WHOLE, f"{place}k_norm.weight": _WHOLE}
    for kind in ("weight", "bias"):
        rules |= {f"{place}q_proj.{kind}": heads, f"{place}k_proj.{kind}": kv_heads}
        rules |= {f"{place}v_proj.{kind}": kv_heads}
        rules |= {f"{place}o_proj.{kind}": ShardRule("row", config.num_attention_heads)}
    return rules


def _delta_net(config: Qwen3NextConfig) -> dict[str, ShardRule]:
    groups = config.linear_num_key_heads
    by_group = ShardRule("column", groups)
    channels = (config.key_width, config.key_width, config.value_width)
    place = "linear_attn."
    return {
        f"{place}in_proj_qkvz.weight": by_group,
        f"{place}in_proj_ba.weight": by_group,
        f"{place}conv1d.weight": ShardRule("column", groups, channels),
        f"{place}A_log": by_group,
        f"{place}dt_bias": by_group,
        f"{place}norm.weight": _WHOLE,
        f"{place}out_proj.weight": ShardRule("row", groups),
    }


def _swiglu(place: str, width: int) -> dict[str, ShardRule]:
    return {
        f"{place}gate_proj.weight": ShardRule("column", width),
        f"{place}up_proj.weight": ShardRule("column", width),
        f"{place}down_proj.weight": ShardRule("row", width),
    }


def _legal(config: Qwen3NextConfig, size: int) -> bool:
    """Everything that the model has divides evenly; KV heads divide, or are held by several ranks."""
    whole = [config.vocab_size]
    if ATTENTION in config.layer_types or config.use_mtp:
        kv_heads = config.num_key_value_heads
        if kv_heads % size and size % kv_heads:
            return False
        whole.append(config.num_attention_heads)
    if DELTA_NET in config.layer_types:
        whole.append(config.linear_num_key_heads)
    if config.dense_layers:
        whole.append(config.intermediate_size)
    if config.has_experts:
        whole += [config.moe_intermediate_size, config.shared_expert_intermediate_size]
    return all(total % size == 0 for total in whole)


def technique(config: Qwen3NextConfig) -> TechniqueFact:
    sizes = ", ".join(str(size) for size in shard_plan(config).legal_sizes)
    return TechniqueFact(
        "tensor parallelism",
        "hardware",
        "dormant",
        exact=True,
        reason=f"one rank runs; heads and groups of this model can be divided over {sizes}",
    )
