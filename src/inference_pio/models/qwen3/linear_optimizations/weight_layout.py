"""Checkpoint names to parameters: q, k, v and gate, up are merged, so that each is one matrix product."""

from __future__ import annotations

from inference_pio.models.qwen3.config import Qwen3Config
from inference_pio.plugin.facts import GGUFNames, WeightMap

_LAYER = "model.layers.*."
_ATTENTION = ("q_proj", "k_proj", "v_proj")
_FEED_FORWARD = ("gate_proj", "up_proj")
_GGUF_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_GGUF_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k": "self_attn.k_proj",
    "attn_k_norm": "self_attn.k_norm",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
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
    layer = {f"blk.*.{gguf}.weight": f"{_LAYER}{name}.weight" for gguf, name in _GGUF_LAYER.items()}
    biases = {f"blk.*.{gguf}.bias": f"{_LAYER}{_GGUF_LAYER[gguf]}.bias" for gguf in _BIASED}
    return {**_GGUF_TOP, **layer, **biases}
