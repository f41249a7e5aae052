"""Checkpoint names to parameters, and which maps are kept out of blocks.

Merged: q with its gates, k and v; gate and up of every SwiGLU. Stacked: the experts of a layer. Left out where it does
not draft: `mtp.*`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.models.qwen3_next.config import Qwen3NextConfig
from inference_pio.models.qwen3_next.linear_optimizations import gguf_layout
from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact, WeightMap

_LAYER = "model.layers.*."
_SWIGLU = ("gate_proj", "up_proj")
# The layer that predicts the token after the next one, and drafts (`specific_optimizations/mtp.py`).
_MTP_LAYER = (
    "input_layernorm",
    "post_attention_layernorm",
    *(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")),
    *(f"mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")),
    "mlp.gate",
    *(f"mlp.experts.*.{name}" for name in ("gate_proj", "up_proj", "down_proj")),
    *(f"mlp.shared_expert.{name}" for name in ("gate_proj", "up_proj", "down_proj")),
    "mlp.shared_expert_gate",
)
_MTP_TOP = ("fc", "norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden")
MTP = (
    *(f"mtp.{name}.weight" for name in _MTP_TOP),
    *(f"mtp.layers.*.{name}.weight" for name in _MTP_LAYER),
    *(f"mtp.layers.*.self_attn.{name}_proj.bias" for name in "qkvo"),
)


class DenseMap(nn.Module):
    """A linear map that stays dense whatever the rest is quantised to: small, and much depends on it.

    Routers, gates of shared experts, and what makes decay and rate of the delta rule.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features), requires_grad=False)

    def forward(self, x_TI: Tensor) -> Tensor:
        return ops.small_linear(x_TI, self.weight)


def weight_map(config: Qwen3NextConfig) -> WeightMap:
    merge: dict[str, tuple[str, ...]] = {}
    stack: dict[str, str] = {}
    for layer in (_LAYER, "mtp.layers.*."):
        attention, mlp = f"{layer}self_attn.", f"{layer}mlp."
        for kind in ("weight", "bias"):
            merge[f"{attention}qkv_proj.{kind}"] = tuple(f"{attention}{part}_proj.{kind}" for part in "qkv")
        for place in (mlp, f"{mlp}shared_expert.", f"{mlp}experts.*."):
            merge[f"{place}gate_up_proj.weight"] = tuple(f"{place}{part}.weight" for part in _SWIGLU)
        for name in ("gate_up_proj", "down_proj"):
            stack[f"{mlp}experts.{name}"] = f"{mlp}experts.*.{name}.weight"
    unstack = {
        f"{_LAYER}mlp.experts.{name}.weight": f"{_LAYER}mlp.experts.*.{name}.weight"
        for name in (*_SWIGLU, "down_proj")
    }
    split, grouped = gguf_layout.pieces(config)
    return WeightMap(
        unstack=unstack,
        split=split,
        merge=merge | grouped,
        stack=stack,
        tie={"lm_head.weight": "model.embed_tokens.weight"} if config.tie_word_embeddings else {},
        drop=() if config.use_mtp else MTP,
        gguf=gguf_layout.names(),
    )


def technique(config: Qwen3NextConfig) -> TechniqueFact:
    return techniques.packed_weights(
        config,
        "where asked for, and out of GGUF files, projections and experts are in blocks on a CPU; routers, gates, "
        "decays, the convolution and norms stay dense",
    )
