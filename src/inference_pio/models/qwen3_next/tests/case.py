"""What qwen3_next brings to the contract tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from inference_pio.conformance.case import DraftingReference, HeaderFacts, PluginCase, Raw, ReferenceModel
from inference_pio.conformance.tiny_tokenizer import CHAT_TEMPLATE, VOCAB_SIZE

_SMALL: Raw = {
    "architectures": ["Qwen3NextForCausalLM"],
    "model_type": "qwen3_next",
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 16,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "linear_value_head_dim": 12,
    "max_position_embeddings": 256,
    "moe_intermediate_size": 32,
    "num_attention_heads": 4,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "shared_expert_intermediate_size": 48,
    "tie_word_embeddings": False,
    "vocab_size": VOCAB_SIZE,
}
TINY: Mapping[str, Raw] = {
    "three-to-one": {**_SMALL, "norm_topk_prob": True, "partial_rotary_factor": 0.25},
    # Every other branch of the architecture: dense layers by step and by list, shares of experts as they are, biases,
    # a tied head, attention first and last, as many value heads as key heads, other sizes of everything.
    "mixed": {
        **_SMALL,
        "attention_bias": True,
        "decoder_sparse_step": 2,
        "layer_types": ["full_attention", *["linear_attention"] * 4, "full_attention"],
        "linear_conv_kernel_dim": 3,
        "linear_key_head_dim": 24,
        "linear_num_value_heads": 4,
        "mlp_only_layers": [3],
        "norm_topk_prob": False,
        "num_hidden_layers": 6,
        "partial_rotary_factor": 0.5,
        "tie_word_embeddings": True,
    },
    "two-to-one": {
        **{key: value for key, value in _SMALL.items() if key != "rope_theta"},
        "full_attention_interval": 2,
        "linear_num_key_heads": 2,
        "num_experts": 0,
        "num_hidden_layers": 2,
        "num_key_value_heads": 1,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1_000_000.0,
            "partial_rotary_factor": 1.0,
        },
    },
    # As many values as there are keys in a group, heads of other sizes.
    "three-to-two": {
        **_SMALL,
        "full_attention_interval": 2,
        "linear_key_head_dim": 32,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_value_head_dim": 16,
        "num_hidden_layers": 4,
        "tie_word_embeddings": True,
    },
    "states only": {**_SMALL, "layer_types": ["linear_attention"] * 2, "num_hidden_layers": 2},
    "attention only": {**_SMALL, "layer_types": ["full_attention"] * 2, "num_hidden_layers": 2},
}

# Qwen3-Coder-Next's config.json in what concerns the architecture; the collected file is the whole.
CODER_NEXT: Raw = {
    **_SMALL,
    "attention_bias": False,
    "decoder_sparse_step": 1,
    "full_attention_interval": 4,
    "head_dim": 256,
    "hidden_size": 2048,
    "intermediate_size": 5120,
    "layer_types": [*["linear_attention"] * 3, "full_attention"] * 12,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_value_head_dim": 128,
    "max_position_embeddings": 262144,
    "mlp_only_layers": [],
    "moe_intermediate_size": 512,
    "norm_topk_prob": True,
    "num_attention_heads": 16,
    "num_experts": 512,
    "num_experts_per_tok": 10,
    "num_hidden_layers": 48,
    "num_key_value_heads": 2,
    "partial_rotary_factor": 0.25,
    "rope_scaling": None,
    "rope_theta": 5_000_000,
    "shared_expert_intermediate_size": 512,
    "use_sliding_window": False,
    "vocab_size": 151936,
}

# Of the family's coder models: tools in the system turn, calls as <tool_call> with XML-like functions and parameters.
CODER_TEMPLATE: str = json.loads((Path(__file__).parent / "qwen3-coder.template.json").read_text())[
    "chat_template"
]


def reference(raw: Raw) -> ReferenceModel:
    """Transformers' model; imported only when a check asks for it."""
    from inference_pio.models.qwen3_next.tests.reference import TransformersQwen3Next

    return TransformersQwen3Next(raw)


def drafting(raw: Raw) -> DraftingReference:
    """The same with the layer that predicts further tokens."""
    from inference_pio.models.qwen3_next.tests.reference import TransformersQwen3NextWithMtp

    return TransformersQwen3NextWithMtp(raw)


def render_chat(template: str, messages: Sequence[Mapping[str, str]], variables: Mapping[str, Any]) -> str:
    """What Transformers makes of a template."""
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, _ = render_jinja_template([list(messages)], chat_template=template, **variables)
    return str(texts[0])


def _shapes(raw: Raw) -> Mapping[str, tuple[int, ...]]:
    from inference_pio.models.qwen3_next.tests.reference import checkpoint_shapes

    return checkpoint_shapes(raw)


CASE = PluginCase(
    name="qwen3_next",
    tiny=TINY,
    reference=reference,
    claims=frozenset({"Qwen3-Coder-Next.config.json"}),
    ignored=frozenset(
        {
            "architectures",
            "attention_dropout",
            "bos_token_id",
            "dtype",
            "eos_token_id",
            "initializer_range",
            "model_type",
            "output_router_logits",
            "router_aux_loss_coef",
            "use_cache",
        }
    ),
    # What llama.cpp's architecture covers: layers by an interval, experts in each of them, no biases.
    gguf=frozenset({"three-to-one", "three-to-two"}),
    checkpoints={"Qwen3-Coder-Next": HeaderFacts(CODER_NEXT, partial(_shapes, CODER_NEXT))},
    # With 4 ranks "three-to-one" has fewer KV heads than ranks.
    shards={"three-to-one": (2, 4), "mixed": (2,), "two-to-one": (2,)},
    refused_ranks={"three-to-one": (3, 8), "two-to-one": (4,)},
    not_interchangeable=(
        ({"rope_theta": 10_000.0}, {"rope_theta": 5_000_000.0}),
        ({"rotary_dim": 8}, {"rotary_dim": 16}),
        ({"torch_dtype": "float32"}, {"torch_dtype": "bfloat16"}),
    ),
    render_chat=render_chat,
    rope_keys=("rope_parameters", "rope_scaling"),
    chat={"Qwen3-Coder": CODER_TEMPLATE, "ChatML": CHAT_TEMPLATE},
    drafting=drafting,
)
