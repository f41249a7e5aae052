"""Checkpoint names to parameters: q, k, v and gate, up are merged, so that each is one matrix product."""

from __future__ import annotations

from inference_pio.plugin.facts import GGUFNames, TechniqueFact, WeightMap
from inference_pio_mistral.config import MistralConfig

_LAYER = "model.layers.*."
_MERGED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}
_GGUF_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GGUF_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "rope_freqs.weight": "model.rotary_emb.freq_factors",
}


def weight_map(config: MistralConfig) -> WeightMap:
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


def technique(config: MistralConfig) -> TechniqueFact:
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


def _gguf_names(config: MistralConfig) -> GGUFNames:
    rename = dict(_GGUF_TOP)
    for gguf, name in _GGUF_LAYER.items():
        for kind in ("weight", "bias"):
            rename[f"blk.*.{gguf}.{kind}"] = f"{_LAYER}{name}.{kind}"
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
