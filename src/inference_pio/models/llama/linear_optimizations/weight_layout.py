"""Checkpoint names to parameters: q, k, v and gate, up are merged, so that each is one matrix product."""

from __future__ import annotations

from inference_pio.models.llama.config import LlamaConfig
from inference_pio.plugin import gguf_names
from inference_pio.plugin.facts import GGUFNames, WeightMap

_LAYER = "model.layers.*."
_MERGED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}


def weight_map(config: LlamaConfig) -> WeightMap:
    kinds = ["weight"]
    merge: dict[str, tuple[str, ...]] = {}
    for merged, parts in _MERGED.items():
        biased = config.attention_bias if merged.startswith("self_attn") else config.mlp_bias
        for kind in [*kinds, "bias"] if biased else kinds:
            merge[f"{_LAYER}{merged}.{kind}"] = tuple(f"{_LAYER}{part}.{kind}" for part in parts)
    return WeightMap(
        merge=merge,
        tie={"lm_head.weight": "model.embed_tokens.weight"} if config.tie_word_embeddings else {},
        # Old checkpoints stored a buffer that follows from the configuration.
        drop=("model.layers.*.self_attn.rotary_emb.inv_freq",),
        gguf=_gguf_names(config),
    )


def _gguf_names(config: LlamaConfig) -> GGUFNames:
    layer = {**gguf_names.ATTENTION, **gguf_names.FEED_FORWARD}
    rename = {
        **gguf_names.weights(layer, ("weight", "bias")),
        "rope_freqs.weight": "model.rotary_emb.freq_factors",
    }
    heads = (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads))
    return GGUFNames(
        rename=rename,
        unpermute={
            f"{_LAYER}self_attn.{projection}.{kind}": count
            for projection, count in heads
            for kind in ("weight", "bias")
        },
        drop=("blk.*.attn_rot_embd.weight",),
    )
