"""Checkpoint names to parameters: q, k, v and gate, up are one matrix each; experts are stacked.

A safetensors checkpoint has three tensors for each expert, a GGUF file three for all of a layer's: the latter are cut
into experts first, so that both go the same way from there.
"""

from __future__ import annotations

from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig
from inference_pio.plugin import gguf_names, techniques
from inference_pio.plugin.facts import GGUFNames, TechniqueFact, WeightMap

_LAYER = "model.layers.*."
_EXPERT = f"{_LAYER}mlp.experts.*."
_GGUF = {
    **gguf_names.ATTENTION,
    **gguf_names.HEAD_NORMS,
    **gguf_names.EXPERTS,
    "ffn_norm": "post_attention_layernorm",
}
_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def weight_map(config: Qwen3MoeConfig) -> WeightMap:
    return WeightMap(
        unstack={
            f"{_LAYER}mlp.experts.{projection}.weight": f"{_EXPERT}{projection}.weight"
            for projection in _PROJECTIONS
        },
        merge={
            f"{_LAYER}self_attn.qkv_proj.weight": tuple(f"{_LAYER}self_attn.{x}_proj.weight" for x in "qkv"),
            f"{_LAYER}mlp.gate_up_proj.weight": _gate_and_up(f"{_LAYER}mlp."),
            f"{_EXPERT}gate_up_proj.weight": _gate_and_up(_EXPERT),
        },
        stack={
            f"{_LAYER}mlp.experts.gate_up_proj": f"{_EXPERT}gate_up_proj.weight",
            f"{_LAYER}mlp.experts.down_proj": f"{_EXPERT}down_proj.weight",
        },
        tie={"lm_head.weight": "model.embed_tokens.weight"} if config.tie_word_embeddings else {},
        # llama.cpp turns halves for this architecture, as we do: no rows are out of order in its files.
        gguf=GGUFNames(rename=gguf_names.weights(_GGUF)),
    )


def _gate_and_up(block: str) -> tuple[str, str]:
    return f"{block}gate_proj.weight", f"{block}up_proj.weight"


def technique(config: Qwen3MoeConfig) -> TechniqueFact:
    return techniques.packed_weights(
        config,
        "on a CPU quantised weights, experts too, stay in their blocks and meet activations of 8 bits; the "
        "router stays as the file has it",
    )
