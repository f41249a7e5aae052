"""Shard rules of the blocks that decoders have in common (Megatron-LM, Shoeybi et al. 2019), by checkpoint names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from inference_pio.plugin.facts import ShardRule

_MAX_RANKS = 64
LAYER = "model.layers.*."
WHOLE = ShardRule("replicate")

Rules = dict[str, ShardRule]


def ends(vocab_size: int) -> Rules:
    """Embedding and head by vocabulary; the last norm whole."""
    vocabulary = ShardRule("vocab", vocab_size)
    return {
        "model.embed_tokens.weight": vocabulary,
        "lm_head.weight": vocabulary,
        "model.norm.weight": WHOLE,
    }


def attention(heads: int, kv_heads: int) -> Rules:
    """Queries, keys and values by heads, the output by its inputs; biases with them."""
    rules: Rules = {}
    for name, rule in (
        ("q_proj", ShardRule("column", heads)),
        ("k_proj", ShardRule("column", kv_heads)),
        ("v_proj", ShardRule("column", kv_heads)),
        ("o_proj", ShardRule("row", heads)),
    ):
        rules |= dict.fromkeys((f"{LAYER}self_attn.{name}.{kind}" for kind in ("weight", "bias")), rule)
    return rules


def gated(block: str, width: int) -> Rules:
    """gate and up by their `width` outputs, down by its inputs; biases with them. `block` lies in a layer: "mlp"."""
    column, row = ShardRule("column", width), ShardRule("row", width)
    return {
        f"{LAYER}{block}.{name}.{kind}": row if name == "down_proj" else column
        for name in ("gate_proj", "up_proj", "down_proj")
        for kind in ("weight", "bias")
    }


class _Decoder(Protocol):
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    vocab_size: int


def dense_decoder(config: _Decoder) -> Rules:
    """All of a decoder whose layers are attention and one gated block, but for its norms."""
    heads = attention(config.num_attention_heads, config.num_key_value_heads)
    return {**ends(config.vocab_size), **heads, **gated("mlp", config.intermediate_size)}


def whole(*names: str) -> Rules:
    """Weights in a layer that every rank holds: norms, routers."""
    return {f"{LAYER}{name}.weight": WHOLE for name in names}


def legal_sizes(divided: Iterable[int], kv_heads: int | None = None) -> tuple[int, ...]:
    """Numbers of ranks over which all of `divided` come out even; KV heads too, or several ranks hold each."""
    totals = tuple(divided)
    return tuple(
        size
        for size in range(1, _MAX_RANKS + 1)
        if not any(total % size for total in totals)
        and (kv_heads is None or not kv_heads % size or not size % kv_heads)
    )
