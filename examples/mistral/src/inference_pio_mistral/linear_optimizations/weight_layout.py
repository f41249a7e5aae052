"""Checkpoint names to parameters: q, k, v and gate, up are merged, so that each is one matrix product."""

from __future__ import annotations

from inference_pio.plugin.facts import TechniqueFact, WeightMap
from inference_pio_mistral.config import MistralConfig

_LAYER = "model.layers.*."
_MERGED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}


def weight_map(config: MistralConfig) -> WeightMap:
    return WeightMap(
        merge={
            f"{_LAYER}{merged}.weight": tuple(f"{_LAYER}{part}.weight" for part in parts)
            for merged, parts in _MERGED.items()
        },
        tie={"lm_head.weight": "model.embed_tokens.weight"} if config.tie_word_embeddings else {},
        # Old checkpoints stored a buffer that follows from the configuration.
        drop=("model.layers.*.self_attn.rotary_emb.inv_freq",),
    )


def technique() -> TechniqueFact:
    return TechniqueFact(
        "weight quantisation",
        "hardware",
        "dormant",
        exact=False,
        reason="checkpoints come in floats; the engine's option quantize (int8, int4) packs them on a CPU",
    )
