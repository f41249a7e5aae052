"""Checkpoint names to parameters: q, k, v and gate, up are merged, so that each is one matrix product."""

from __future__ import annotations

from inference_pio.models.gemma3_text.config import Gemma3TextConfig
from inference_pio.plugin.facts import GGUFNames, TechniqueFact, WeightMap

_LAYER = "model.layers.*."
_ATTENTION = ("q_proj", "k_proj", "v_proj")
_FEED_FORWARD = ("gate_proj", "up_proj")
_GGUF = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "blk.*.attn_norm.weight": f"{_LAYER}input_layernorm.weight",
    "blk.*.attn_q.weight": f"{_LAYER}self_attn.q_proj.weight",
    "blk.*.attn_k.weight": f"{_LAYER}self_attn.k_proj.weight",
    "blk.*.attn_v.weight": f"{_LAYER}self_attn.v_proj.weight",
    "blk.*.attn_q_norm.weight": f"{_LAYER}self_attn.q_norm.weight",
    "blk.*.attn_k_norm.weight": f"{_LAYER}self_attn.k_norm.weight",
    "blk.*.attn_output.weight": f"{_LAYER}self_attn.o_proj.weight",
    "blk.*.post_attention_norm.weight": f"{_LAYER}post_attention_layernorm.weight",
    "blk.*.ffn_norm.weight": f"{_LAYER}pre_feedforward_layernorm.weight",
    "blk.*.ffn_gate.weight": f"{_LAYER}mlp.gate_proj.weight",
    "blk.*.ffn_up.weight": f"{_LAYER}mlp.up_proj.weight",
    "blk.*.ffn_down.weight": f"{_LAYER}mlp.down_proj.weight",
    "blk.*.post_ffw_norm.weight": f"{_LAYER}post_feedforward_layernorm.weight",
}
# Our norms multiply by 1 + w, as checkpoints have it; in GGUF files the 1 is part of the weight.
_ADDED = {name: 1.0 for name in _GGUF.values() if name.endswith("norm.weight")}


def weight_map(config: Gemma3TextConfig) -> WeightMap:
    return WeightMap(
        merge={
            f"{_LAYER}self_attn.qkv_proj.weight": tuple(
                f"{_LAYER}self_attn.{part}.weight" for part in _ATTENTION
            ),
            f"{_LAYER}mlp.gate_up_proj.weight": tuple(f"{_LAYER}mlp.{part}.weight" for part in _FEED_FORWARD),
        },
        tie={"lm_head.weight": "model.embed_tokens.weight"} if config.tie_word_embeddings else {},
        # llama.cpp turns halves for this architecture, as we do: no rows are out of order in its files.
        gguf=GGUFNames(rename=_GGUF, subtract=_ADDED),
    )


def technique(config: Gemma3TextConfig) -> TechniqueFact:
    kept = config.torch_dtype == "auto"
    return TechniqueFact(
        "weight quantisation",
        "hardware",
        "active" if kept else "dormant",
        exact=False,
        reason="on a CPU quantised weights stay in their blocks and meet activations of 8 bits"
        if kept
        else "a dtype was named: weights are dense",
    )
