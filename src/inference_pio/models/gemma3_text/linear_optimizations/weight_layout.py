"""Checkpoint names to parameters: q, k, v and gate, up are merged, so that each is one matrix product."""

from __future__ import annotations

from inference_pio.models.gemma3_text.config import Gemma3TextConfig
from inference_pio.plugin import gguf_names
from inference_pio.plugin.facts import GGUFNames, WeightMap

_LAYER = "model.layers.*."
_ATTENTION = ("q_proj", "k_proj", "v_proj")
_FEED_FORWARD = ("gate_proj", "up_proj")
_GGUF = gguf_names.weights(
    {
        **gguf_names.ATTENTION,
        **gguf_names.HEAD_NORMS,
        **gguf_names.FEED_FORWARD,
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    }
)
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
