"""Checkpoint names to parameters: q, k, v and gate, up of the text are merged, so that each is one matrix product.

The vision tower has its queries, keys and values merged in the checkpoint.
"""

from __future__ import annotations

from inference_pio.models.qwen3_vl.config import Qwen3VLConfig
from inference_pio.plugin.facts import WeightMap

_LAYER = "model.language_model.layers.*."
_ATTENTION = ("q_proj", "k_proj", "v_proj")
_FEED_FORWARD = ("gate_proj", "up_proj")


def weight_map(config: Qwen3VLConfig) -> WeightMap:
    merge = {
        f"{_LAYER}self_attn.qkv_proj.{kind}": tuple(f"{_LAYER}self_attn.{part}.{kind}" for part in _ATTENTION)
        for kind in (("weight", "bias") if config.attention_bias else ("weight",))
    }
    merge[f"{_LAYER}mlp.gate_up_proj.weight"] = tuple(f"{_LAYER}mlp.{part}.weight" for part in _FEED_FORWARD)
    head = {"lm_head.weight": "model.language_model.embed_tokens.weight"}
    return WeightMap(merge=merge, tie=head if config.tie_word_embeddings else {})
