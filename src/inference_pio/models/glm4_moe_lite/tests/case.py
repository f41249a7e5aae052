"""What glm4_moe_lite brings to the contract tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from inference_pio.conformance.case import DraftingReference, HeaderFacts, PluginCase, Raw, ReferenceModel
from inference_pio.conformance.tiny_tokenizer import CHAT_TEMPLATE, VOCAB_SIZE

# Between their two parts a head's keys are as wide as its values, as in GLM-4.7-Flash.
_SMALL: Raw = {
    "architectures": ["Glm4MoeLiteForCausalLM"],
    "model_type": "glm4_moe_lite",
    "attention_bias": False,
    "first_k_dense_replace": 1,
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "kv_lora_rank": 32,
    "max_position_embeddings": 256,
    "moe_intermediate_size": 48,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts_per_tok": 3,
    "num_hidden_layers": 3,
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 4,
    "rms_norm_eps": 1e-5,
    "routed_scaling_factor": 1.8,
    "tie_word_embeddings": False,
    "topk_method": "noaux_tc",
    "v_head_dim": 16,
    "vocab_size": VOCAB_SIZE,
}
TINY: Mapping[str, Raw] = {
    "low-rank": {**_SMALL, "rope_parameters": {"rope_theta": 1_000_000.0, "rope_type": "default"}},
    # Values are wider than keys; the second of four layers is dense as well; weights do not sum to one.
    "direct": {
        **_SMALL,
        "attention_bias": True,
        "first_k_dense_replace": 2,
        "head_dim": 8,
        "n_shared_experts": 2,
        "norm_topk_prob": False,
        "num_hidden_layers": 4,
        "partial_rotary_factor": 1.0,
        "q_lora_rank": None,
        "qk_head_dim": 20,
        "qk_rope_head_dim": 8,
        "rope_interleave": True,
        "rope_theta": 10_000.0,
        "v_head_dim": 24,
    },
    # Every layer has experts, in groups; keys are wider than values.
    "groups": {
        **_SMALL,
        "attention_bias": True,
        "first_k_dense_replace": 0,
        "n_group": 4,
        "n_routed_experts": 12,
        "num_attention_heads": 6,
        "num_hidden_layers": 2,
        "num_key_value_heads": 6,
        "scoring_func": "sigmoid",
        "tie_word_embeddings": True,
        "topk_group": 2,
        "v_head_dim": 8,
        "vocab_size": 276,
    },
    # Rows are so narrow beside a key and a value that making these never pays; the dense layer is in the middle.
    "halves": {
        **{key: value for key, value in _SMALL.items() if key != "first_k_dense_replace"},
        "kv_lora_rank": 16,
        "mlp_layer_types": ["sparse", "dense", "sparse"],
        "qk_nope_head_dim": 24,
        "rope_interleave": False,
        "rope_scaling": None,
        "v_head_dim": 28,
    },
    # All that GGUF files can carry of the others: they have no biases, and layers are dense at the front.
    "no biases": {
        **_SMALL,
        "first_k_dense_replace": 2,
        "n_group": 4,
        "n_shared_experts": 2,
        "norm_topk_prob": False,
        "num_hidden_layers": 4,
        "q_lora_rank": None,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": True,
        "topk_group": 2,
        "v_head_dim": 20,
    },
}
_FACTS = json.loads((Path(__file__).parent / "glm-4.7-flash.facts.json").read_text())
GLM_4_7_FLASH: Raw = _FACTS["config"]
# What its GGUF files say; they leave out what the router's scores are.
GLM_4_7_FLASH_GGUF: Raw = {
    "general.architecture": "deepseek2",
    **{
        f"deepseek2.{key}": value
        for key, value in {
            "block_count": 47,
            "context_length": 202752,
            "embedding_length": 2048,
            "feed_forward_length": 10240,
            "attention.head_count": 20,
            "attention.head_count_kv": 1,
            "attention.layer_norm_rms_epsilon": 1e-5,
            "attention.q_lora_rank": 768,
            "attention.kv_lora_rank": 512,
            "attention.key_length": 576,
            "attention.value_length": 512,
            "attention.key_length_mla": 256,
            "attention.value_length_mla": 256,
            "rope.freq_base": 1_000_000.0,
            "rope.dimension_count": 64,
            "leading_dense_block_count": 1,
            "expert_count": 64,
            "expert_used_count": 4,
            "expert_group_count": 1,
            "expert_group_used_count": 1,
            "expert_feed_forward_length": 1536,
            "expert_shared_count": 1,
            "expert_weights_norm": True,
            "expert_weights_scale": 1.8,
            "vocab_size": 154880,
        }.items()
    },
}
TEMPLATE: str = _FACTS["chat_template"]


def reference(raw: Raw) -> ReferenceModel:
    """Transformers' model; imported only when a check asks for it."""
    from inference_pio.models.glm4_moe_lite.tests.reference import TransformersGlm

    return TransformersGlm(raw)


def drafting(raw: Raw) -> DraftingReference:
    """The same with the layer that predicts further tokens."""
    from inference_pio.models.glm4_moe_lite.tests.reference import TransformersGlmWithMtp

    return TransformersGlmWithMtp({**raw, "num_nextn_predict_layers": 1})


def render_chat(template: str, messages: Sequence[Mapping[str, str]], variables: Mapping[str, Any]) -> str:
    """What Transformers makes of a template."""
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, _ = render_jinja_template([list(messages)], chat_template=template, **variables)
    text: str = rendered[0]
    return text


def by_transformers(raw: Raw) -> Mapping[str, tuple[int, ...]]:
    """Names and shapes of a safetensors checkpoint of this configuration, as its class writes it.

    The class holds experts stacked and merged, a checkpoint one by one. It has no multi-token prediction layer: that of
    a checkpoint is a sparse layer and what DeepSeek-V3's has (`eh_proj`, `enorm`, `hnorm`, `shared_head`).
    """
    import torch
    from transformers import Glm4MoeLiteForCausalLM

    from inference_pio.models.glm4_moe_lite.tests.reference import reference_config

    with torch.device("meta"):
        model = Glm4MoeLiteForCausalLM(reference_config(raw))
    shapes: dict[str, tuple[int, ...]] = {}
    for name, tensor in model.state_dict().items():
        shapes.update(_one_by_one(name, tuple(tensor.shape)))
    last = raw["num_hidden_layers"] - 1
    for layer in range(last + 1, last + 1 + raw.get("num_nextn_predict_layers", 0)):
        like = {name: shape for name, shape in shapes.items() if name.startswith(f"model.layers.{last}.")}
        shapes.update(
            {name.replace(f".{last}.", f".{layer}.", 1): shape for name, shape in like.items()},
            **_prediction(f"model.layers.{layer}.", raw["hidden_size"], raw["vocab_size"]),
        )
    return shapes


def by_llama_cpp() -> Mapping[str, tuple[int, ...]]:
    """Names and shapes of GLM-4.7-Flash as GGUF: 844 tensors, none of them of the layer that drafts."""
    import torch
    from transformers import Glm4MoeLiteForCausalLM

    from inference_pio.models.glm4_moe_lite.tests.reference import gguf_tensors, reference_config

    with torch.device("meta"):
        model = Glm4MoeLiteForCausalLM(reference_config(GLM_4_7_FLASH))
    return {name: tuple(value.shape) for name, value in gguf_tensors(model)}


def _one_by_one(name: str, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
    if ".mlp.experts." not in name:
        return {name: shape}
    block, _, kind = name.rpartition(".")
    parts = ("gate_proj", "up_proj") if kind == "gate_up_proj" else ("down_proj",)
    return {
        f"{block}.{expert}.{part}.weight": (shape[1] // len(parts), shape[2])
        for expert in range(shape[0])
        for part in parts
    }


def _prediction(layer: str, hidden: int, vocab: int) -> Mapping[str, tuple[int, ...]]:
    return {
        f"{layer}eh_proj.weight": (hidden, 2 * hidden),
        f"{layer}enorm.weight": (hidden,),
        f"{layer}hnorm.weight": (hidden,),
        f"{layer}embed_tokens.weight": (vocab, hidden),
        f"{layer}shared_head.norm.weight": (hidden,),
        f"{layer}shared_head.head.weight": (vocab, hidden),
    }


CASE = PluginCase(
    name="glm4_moe_lite",
    tiny=TINY,
    reference=reference,
    claims=frozenset({"GLM-4.7-Flash.config.json"}),
    ignored=frozenset({"architectures", "attention_dropout", "dtype", "eos_token_id", "model_type"}),
    gguf=frozenset({"low-rank", "no biases"}),
    checkpoints={
        "GLM-4.7-Flash": HeaderFacts(GLM_4_7_FLASH, partial(by_transformers, GLM_4_7_FLASH)),
        "GLM-4.7-Flash as GGUF": HeaderFacts(GLM_4_7_FLASH_GGUF, by_llama_cpp, "gguf"),
    },
    shards={"low-rank": (2, 4), "direct": (2,), "groups": (2, 6)},
    refused_ranks={"low-rank": (3, 8), "groups": (4, 5)},
    not_interchangeable=(
        ({"rope_theta": 1_000_000.0}, {"rope_theta": 10_000.0}),
        ({"rope_interleave": True}, {"rope_interleave": False}),
        ({"torch_dtype": "float32"}, {"torch_dtype": "bfloat16"}),
    ),
    render_chat=render_chat,
    rope_keys=("rope_parameters",),
    chat={"GLM-4.7-Flash": TEMPLATE, "ChatML": CHAT_TEMPLATE},
    drafting=drafting,
)
