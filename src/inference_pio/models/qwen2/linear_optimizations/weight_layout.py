"""Checkpoint names to parameters: q, k, v and gate, up are merged, so that each is one matrix product."""

from __future__ import annotations

from inference_pio.models.qwen2.config import Qwen2Config
from inference_pio.plugin.facts import GGUFNames, WeightMap

_LAYER = "model.layers.*."
_ATTENTION = ("q_proj", "k_proj", "v_proj")
_FEED_FORWARD = ("gate_proj", "up_proj")
_GGUF = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "blk.*.attn_norm.weight": f"{_LAYER}input_layernorm.weight",
    "blk.*.attn_q.weight": f"{_LAYER}self_attn.q_proj.weight",
    "blk.*.attn_q.bias": f"{_LAYER}self_attn.q_proj.bias",
    "blk.*.attn_k.weight": f"{_LAYER}self_attn.k_proj.weight",
    "blk.*.attn_k.bias": f"{_LAYER}self_attn.k_proj.bias",
    "blk.*.attn_v.weight": f"{_LAYER}self_attn.v_proj.weight",
    "blk.*.attn_v.bias": f"{_LAYER}self_attn.v_proj.bias",
    "blk.*.attn_output.weight": f"{_LAYER}self_attn.o_proj.weight",
    "blk.*.ffn_norm.weight": f"{_LAYER}post_attention_layernorm.weight",
    "blk.*.ffn_gate.weight": f"{_LAYER}mlp.gate_proj.weight",
    "blk.*.ffn_up.weight": f"{_LAYER}mlp.up_proj.weight",
    "blk.*.ffn_down.weight": f"{_LAYER}mlp.down_proj.weight",
}


def weight_map(config: Qwen2Config) -> WeightMap:
    merge = {
        f"{_LAYER}self_attn.qkv_proj.{kind}": tuple(f"{_LAYER}self_attn.{part}.{kind}" for part in _ATTENTION)
        for kind in ("weight", "bias")
    }
    merge[f"{_LAYER}mlp.gate_up_proj.weight"] = tuple(f"{_LAYER}mlp.{part}.weight" for part in _FEED_FORWARD)
    return WeightMap(
        merge=merge,
        tie={"lm_head.weight": "model.embed_tokens.weight"} if config.tie_word_embeddings else {},
        # llama.cpp turns halves for this architecture, as we do: no rows are out of order in its files.
        gguf=GGUFNames(rename=_GGUF),
    )
