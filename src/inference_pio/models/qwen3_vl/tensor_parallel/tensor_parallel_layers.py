"""The text's heads and intermediate features are divided, norms replicated (Megatron-LM, Shoeybi et al. 2019).

The vision tower is replicated: every rank holds all of it (0.4 billion weights) and computes the same features, of
which each adds the whole hidden width to its own whole hidden states. Qwen3-VL-2B has 16 heads and 8 KV heads: 1, 2, 4,
8 or 16 ranks; on 16, two ranks hold each KV head.
"""

from __future__ import annotations

from inference_pio.models.qwen3_vl.config import Qwen3VLConfig
from inference_pio.plugin.facts import ShardPlan, ShardRule

_MAX_RANKS = 64
_NORMS = ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm")
_BLOCK = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2")
_MERGER = ("norm", "linear_fc1", "linear_fc2")


def shard_plan(config: Qwen3VLConfig) -> ShardPlan:
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    vocabulary = ShardRule("vocab", config.vocab_size)
    text = "model.language_model."
    rules = {
        f"{text}embed_tokens.weight": vocabulary,
        "lm_head.weight": vocabulary,
        f"{text}norm.weight": ShardRule("replicate"),
    }
    layer = f"{text}layers.*."
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
    rules |= {name: ShardRule("replicate") for name in _vision_names()}
    return ShardPlan(rules, tuple(size for size in range(1, _MAX_RANKS + 1) if _legal(config, size)))


def _vision_names() -> list[str]:
    tower = "model.visual."
    modules = [
        f"{tower}patch_embed.proj",
        *(f"{tower}blocks.*.{name}" for name in _BLOCK),
        *(f"{tower}merger.{name}" for name in _MERGER),
        *(f"{tower}deepstack_merger_list.*.{name}" for name in _MERGER),
    ]
    return [
        f"{tower}pos_embed.weight",
        *(f"{name}.{kind}" for name in modules for kind in ("weight", "bias")),
    ]


def _legal(config: Qwen3VLConfig, size: int) -> bool:
    """Heads, intermediate features and vocabulary divide evenly; KV heads divide, or are held by several ranks."""
    kv_heads = config.num_key_value_heads
    whole = (config.num_attention_heads, config.intermediate_size, config.vocab_size)
    return all(total % size == 0 for total in whole) and (kv_heads % size == 0 or size % kv_heads == 0)
