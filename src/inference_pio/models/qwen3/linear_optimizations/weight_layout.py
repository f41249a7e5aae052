"""Checkpoint names to parameters: q, k, v and gate, up are merged, so that each is one matrix product."""

from __future__ import annotations

from inference_pio.models.qwen3.config import Qwen3Config
from inference_pio.plugin import gguf_names
from inference_pio.plugin.facts import GGUFNames, WeightMap

_LAYER = "model.layers.*."
_ATTENTION = ("q_proj", "k_proj", "v_proj")
_FEED_FORWARD = ("gate_proj", "up_proj")
_GGUF_LAYER = {**gguf_names.ATTENTION, **gguf_names.HEAD_NORMS, **gguf_names.FEED_FORWARD}
_BIASED = ("attn_q", "attn_k", "attn_v", "attn_output")


def weight_map(config: Qwen3Config) -> WeightMap:
    merge = {
        f"{_LAYER}self_attn.qkv_proj.{kind}": tuple(f"{_LAYER}self_attn.{part}.{kind}" for part in _ATTENTION)
        for kind in (("weight", "bias") if config.attention_bias else ("weight",))
    }
    merge[f"{_LAYER}mlp.gate_up_proj.weight"] = tuple(f"{_LAYER}mlp.{part}.weight" for part in _FEED_FORWARD)
    return WeightMap(
        merge=merge,
        tie={"lm_head.weight": "model.embed_tokens.weight"} if config.tie_word_embeddings else {},
        # llama.cpp turns halves for this architecture, as we do: no rows are out of order in its files.
        gguf=GGUFNames(rename=_gguf_names()),
    )


def _gguf_names() -> dict[str, str]:
    biased = {gguf: _GGUF_LAYER[gguf] for gguf in _BIASED}
    return {**gguf_names.weights(_GGUF_LAYER), **gguf_names.in_layers(biased, ("bias",))}
