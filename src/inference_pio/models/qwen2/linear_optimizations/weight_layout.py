"""Checkpoint names to parameters: q, k, v and gate, up are merged, so that each is one matrix product."""

from __future__ import annotations

from inference_pio.models.qwen2.config import Qwen2Config
from inference_pio.plugin import gguf_names
from inference_pio.plugin.facts import GGUFNames, WeightMap

_LAYER = "model.layers.*."
_ATTENTION = ("q_proj", "k_proj", "v_proj")
_FEED_FORWARD = ("gate_proj", "up_proj")
_GGUF = {
    **gguf_names.weights({**gguf_names.ATTENTION, **gguf_names.FEED_FORWARD}),
    **gguf_names.in_layers({f"attn_{x}": f"self_attn.{x}_proj" for x in "qkv"}, ("bias",)),
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
