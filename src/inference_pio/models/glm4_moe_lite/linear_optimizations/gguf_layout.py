"""GGUF files of a GLM-4.7-Flash, as llama.cpp's converter writes them (convert_hf_to_gguf.py, DeepseekV2Model).

Rows of a query and of the rotary key stay as they are: llama.cpp turns neighbours too. `kv_b_proj` is taken apart into
what makes keys, a matrix for each head and turned over, [heads, latent, key], and what makes values, [heads, value,
latent]. Turned back and put together head by head they are the checkpoint's tensor again. Older files have that itself.

The norms of latents keep the epsilon of Transformers' implementation, where llama.cpp takes the model's.
"""

from __future__ import annotations

from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.plugin import gguf_names
from inference_pio.plugin.facts import GGUFNames

_ATTENTION, _EXPERTS = f"{gguf_names.LAYER}self_attn.", f"{gguf_names.LAYER}mlp.experts."
_K, _V = f"{_ATTENTION}apart_k", f"{_ATTENTION}apart_v"
_PROJECTIONS = ("gate", "up", "down")
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_q_a": "self_attn.q_a_proj",
    "attn_q_a_norm": "self_attn.q_a_layernorm",
    "attn_q_b": "self_attn.q_b_proj",
    "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
    "attn_kv_a_norm": "self_attn.kv_a_layernorm",
    "attn_k_b": "self_attn.apart_k",
    "attn_v_b": "self_attn.apart_v",
    "attn_kv_b": "self_attn.kv_b_proj",
    "attn_output": "self_attn.o_proj",
    **gguf_names.FEED_FORWARD,
    **gguf_names.EXPERTS,
    **{f"ffn_{name}_shexp": f"mlp.shared_experts.{name}_proj" for name in _PROJECTIONS},
    # of the layer that drafts
    **{f"nextn.{name}": name for name in ("eh_proj", "embed_tokens", "enorm", "hnorm")},
    "nextn.shared_head_head": "shared_head.head",
    "nextn.shared_head_norm": "shared_head.norm",
}


def names() -> GGUFNames:
    bias = {"blk.*.exp_probs_b.bias": f"{gguf_names.LAYER}mlp.gate.e_score_correction_bias"}
    return GGUFNames(rename=gguf_names.weights(_LAYER) | bias, transposed=(f"{_K}.weight",))


def pieces(config: Glm4MoeLiteConfig) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """(unstack, merge) of a weight map: matrices of experts and heads, and all heads' in one parameter."""
    stacks = [f"{_EXPERTS}{{}}{name}_proj.weight" for name in _PROJECTIONS] + [
        f"{_K}.{{}}weight",
        f"{_V}.{{}}weight",
    ]
    by_head = tuple(
        f"{part}.{head}.weight" for head in range(config.num_attention_heads) for part in (_K, _V)
    )
    unstack = {stack.format(""): stack.format("*.") for stack in stacks}
    return unstack, {f"{_ATTENTION}kv_b_proj.weight": by_head}
