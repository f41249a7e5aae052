"""Checkpoint names to parameters.

Merged, so that each is one matrix product: the projections of a token down to its query's and its cached latent, gate
and up of dense layers and of experts. Experts are stacked. Of the layers that predict further tokens the first is
loaded where it drafts, and the others are left out.
"""

from __future__ import annotations

from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.models.glm4_moe_lite.linear_optimizations import gguf_layout
from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact, WeightMap

_LAYER = "model.layers.*."
_ATTENTION = f"{_LAYER}self_attn."
_EXPERT = f"{_LAYER}mlp.experts.*."
# A layer of multi-token prediction (DeepSeek-V3, section 2.2): a sparse layer, what joins its two inputs, and copies of
# the embedding and the head.
_COPIES = ("embed_tokens.weight", "shared_head.head.weight")
_PREDICTOR = (
    *_COPIES,
    *("eh_proj.weight", "enorm.weight", "hnorm.weight", "shared_head.norm.weight"),
    *("input_layernorm.weight", "post_attention_layernorm.weight"),
    *("self_attn.q_proj.weight", "self_attn.q_b_proj.weight", "self_attn.kv_b_proj.weight"),
    *("self_attn.q_a_layernorm.weight", "self_attn.kv_a_layernorm.weight"),
    *("self_attn.apart_k.weight", "self_attn.apart_v.weight"),
    *(
        f"self_attn.{name}.{kind}"
        for name in ("q_a_proj", "kv_a_proj_with_mqa", "o_proj")
        for kind in ("weight", "bias")
    ),
    *("mlp.gate.weight", "mlp.gate.e_score_correction_bias"),
    *(
        f"mlp.{block}.{name}_proj.weight"
        for block in ("experts.*", "experts", "shared_experts")
        for name in ("gate", "up", "down")
    ),
)


def weight_map(config: Glm4MoeLiteConfig) -> WeightMap:
    merge = {
        f"{block}gate_up_proj.weight": (f"{block}gate_proj.weight", f"{block}up_proj.weight")
        for block in (f"{_LAYER}mlp.", f"{_LAYER}mlp.shared_experts.")
    }
    merge[f"{_EXPERT}gate_up_proj"] = (f"{_EXPERT}gate_proj.weight", f"{_EXPERT}up_proj.weight")
    if config.q_lora_rank is not None:
        for kind in ("weight", "bias"):
            parts = (f"{_ATTENTION}q_a_proj.{kind}", f"{_ATTENTION}kv_a_proj_with_mqa.{kind}")
            merge[f"{_ATTENTION}qkv_a_proj.{kind}"] = parts
    unstack, by_head = gguf_layout.pieces(config)
    return WeightMap(
        unstack=unstack,
        merge=merge | by_head,
        stack={
            f"{_LAYER}mlp.experts.gate_up_proj": f"{_EXPERT}gate_up_proj",
            f"{_LAYER}mlp.experts.down_proj": f"{_EXPERT}down_proj.weight",
        },
        tie={"lm_head.weight": "model.embed_tokens.weight"} if config.tie_word_embeddings else {},
        drop=_predictors(config),
        gguf=gguf_layout.names(),
    )


def _predictors(config: Glm4MoeLiteConfig) -> tuple[str, ...]:
    """Tensors of the layers behind the last, which the model's own answers do not need: all but what drafts.

    Every name is stated, so that anything else in such a layer is still found out.
    """
    first = config.num_hidden_layers
    return tuple(
        f"model.layers.{layer}.{name}"
        for layer in range(first, first + config.num_nextn_predict_layers)
        for name in (_COPIES if config.use_mtp and layer == first else _PREDICTOR)
    )


def technique(config: Glm4MoeLiteConfig) -> TechniqueFact:
    return techniques.packed_weights(
        config,
        "on a CPU quantised projections stay in blocks and meet activations of 8 bits; routers and what makes "
        "keys and values from latents are dense",
    )
