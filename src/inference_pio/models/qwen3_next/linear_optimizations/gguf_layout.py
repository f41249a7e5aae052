"""GGUF files of a qwen3_next, as llama.cpp's converter writes them (convert_hf_to_gguf.py, Qwen3NextModel).

The rows of `in_proj_qkvz` are grouped by key head: query, key, values and z of each. The converter takes the groups
apart: all queries, all keys, all values are one tensor, all z another. Cut into pieces that divide every part of a
group, and put together in another order, they are the checkpoint's tensor again. Older files have that itself.
"""

from __future__ import annotations

from math import gcd

from inference_pio.models.qwen3_next.config import Qwen3NextConfig
from inference_pio.plugin import gguf_names
from inference_pio.plugin.facts import GGUFNames

_DELTA_NET = f"{gguf_names.LAYER}linear_attn."
_QKV, _Z = f"{_DELTA_NET}apart_qkv", f"{_DELTA_NET}apart_z"
_LAYER = {
    **gguf_names.ATTENTION,
    **gguf_names.HEAD_NORMS,
    **gguf_names.EXPERTS,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    **{f"ffn_{name}_shexp": f"mlp.shared_expert.{name}_proj" for name in ("gate", "up", "down")},
    "attn_qkv": "linear_attn.apart_qkv",
    "attn_gate": "linear_attn.apart_z",
    "ssm_in": "linear_attn.in_proj_qkvz",
    "ssm_ba": "linear_attn.in_proj_ba",
    "ssm_conv1d": "linear_attn.conv1d",
    "ssm_norm": "linear_attn.norm",
    "ssm_out": "linear_attn.out_proj",
}
_NAMES = {
    **gguf_names.weights(_LAYER),
    "blk.*.ssm_dt.bias": f"{_DELTA_NET}dt_bias",
    "blk.*.ssm_a": f"{_DELTA_NET}A_log",
}
# Our norms multiply by 1 + w, as checkpoints have it; in GGUF files the 1 is part of the weight. Of the gated norm it
# never was.
_ADDED = {
    name: 1.0
    for name in _NAMES.values()
    if name.endswith("norm.weight") and name != f"{_DELTA_NET}norm.weight"
}


def names() -> GGUFNames:
    return GGUFNames(
        rename=_NAMES,
        subtract=_ADDED,
        negated_exp=(f"{_DELTA_NET}A_log",),
        squeezed=(f"{_DELTA_NET}conv1d.weight",),
    )


def pieces(config: Qwen3NextConfig) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """(split, merge) of a weight map: both tensors into pieces of so many rows, and all of them into one parameter."""
    heads, key = config.linear_num_key_heads, config.linear_key_head_dim
    value = config.value_width // heads  # of one group
    rows = gcd(key, value)
    per_key, per_value = key // rows, value // rows
    qkv = _numbered(_QKV, (2 * config.key_width + config.value_width) // rows)
    z = _numbered(_Z, config.value_width // rows)
    values = 2 * heads * per_key  # where they begin
    grouped: list[str] = []
    for head in range(heads):
        for first in (head * per_key, (heads + head) * per_key):
            grouped += qkv[first : first + per_key]
        first = values + head * per_value
        grouped += qkv[first : first + per_value]
        grouped += z[head * per_value : (head + 1) * per_value]
    split = {f"{_QKV}.weight": tuple(qkv), f"{_Z}.weight": tuple(z)}
    return split, {f"{_DELTA_NET}in_proj_qkvz.weight": tuple(grouped)}


def _numbered(name: str, count: int) -> list[str]:
    return [f"{name}_{number}.weight" for number in range(count)]
