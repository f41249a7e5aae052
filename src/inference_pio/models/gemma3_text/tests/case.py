"""What gemma3_text brings to the contract tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from inference_pio.conformance.case import HeaderFacts, PluginCase, Raw, ReferenceModel
from inference_pio.conformance.tiny_tokenizer import CHAT_TEMPLATE, VOCAB_SIZE
from inference_pio.models.gemma3_text.config import FULL, SLIDING, RopeConfig

# Prompts of the contract tests have 87 tokens: more than any of these windows.
_SMALL: Raw = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "head_dim": 32,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 64,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 6,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 32,
    "rms_norm_eps": 1e-6,
    "sliding_window": 24,
    "vocab_size": VOCAB_SIZE,
}
_OLD_ROPE: Raw = {"rope_theta": 1_000_000.0, "rope_local_base_freq": 10_000.0, "rope_scaling": None}
TINY: Mapping[str, Raw] = {
    # Every sixth layer is a full one, as nothing says otherwise.
    "five-to-one": {**_SMALL, **_OLD_ROPE},
    # As the larger models: positions of full layers count in eighths.
    "in-eighths": {
        **_SMALL,
        "num_attention_heads": 2,
        "rope_theta": 500_000.0,
        "rope_local_base_freq": 20_000.0,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 64,
    },
    "layer-by-layer": {
        **_SMALL,
        "head_dim": 16,
        "layer_types": [FULL, SLIDING, SLIDING],
        "num_hidden_layers": 3,
        "num_key_value_heads": 2,
        "query_pre_attn_scalar": 50,
        "rope_parameters": {
            FULL: {"rope_type": "linear", "rope_theta": 1_000_000.0, "factor": 2.0},
            SLIDING: {"rope_type": "default", "rope_theta": 5_000.0},
        },
        "sliding_window": 7,
    },
    "untied-multi-head": {
        **_SMALL,
        "num_hidden_layers": 2,
        "num_key_value_heads": 4,
        "sliding_window": 1,
        "sliding_window_pattern": 2,
        "tie_word_embeddings": False,
    },
}

_GEMMA_3_270M: Raw = {
    **_SMALL,
    **_OLD_ROPE,
    "_sliding_window_pattern": 6,
    "attention_dropout": 0.0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "head_dim": 256,
    "hidden_size": 640,
    "initializer_range": 0.02,
    "intermediate_size": 2048,
    "layer_types": [*[SLIDING] * 5, FULL] * 3,
    "max_position_embeddings": 32768,
    "num_hidden_layers": 18,
    "query_pre_attn_scalar": 256,
    "sliding_window": 512,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.55.0.dev0",
    "use_bidirectional_attention": False,
    "use_cache": True,
    "vocab_size": 262144,
}
_GEMMA_3_1B: Raw = {
    **{
        key: value
        for key, value in _GEMMA_3_270M.items()
        if key not in ("_sliding_window_pattern", "layer_types")
    },
    "cache_implementation": "hybrid",
    "eos_token_id": [1, 106],
    "hidden_size": 1152,
    "intermediate_size": 6912,
    "num_hidden_layers": 26,
    "sliding_window_pattern": 6,
    "transformers_version": "4.50.0.dev0",
}
GEMMA_GGUF = json.loads((Path(__file__).parent / "gemma-3-270m.header.json").read_text())
# The list of tokens stands for itself: only its length is a fact of the architecture.
GEMMA_METADATA: Raw = {**GEMMA_GGUF["metadata"], "tokenizer.ggml.tokens": range(GEMMA_GGUF["tokens"])}
# How Gemma's chat models mark turns; a system message has no turn of its own.
TURNS = (
    "{{ bos_token }}{% set front = namespace(text='') %}{% for message in messages %}"
    "{% if message.role == 'system' %}{% set front.text = message.content + '\n\n' %}{% else %}"
    "<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}\n"
    "{{ front.text }}{{ message.content | trim }}<end_of_turn>\n{% set front.text = '' %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def reference(raw: Raw) -> ReferenceModel:
    """Transformers' model; imported only when a check asks for it."""
    from inference_pio.models.gemma3_text.tests.reference import TransformersGemma3

    return TransformersGemma3(raw)


def render_chat(template: str, messages: Sequence[Mapping[str, str]], variables: Mapping[str, Any]) -> str:
    """What Transformers makes of a template."""
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, _ = render_jinja_template([list(messages)], chat_template=template, **variables)
    text: str = rendered[0]
    return text


def _by_transformers(raw: Raw) -> Mapping[str, tuple[int, ...]]:
    """Names and shapes of a safetensors checkpoint of this configuration; a tied head is not stored."""
    import torch
    from transformers import Gemma3ForCausalLM

    from inference_pio.models.gemma3_text.tests.reference import reference_config

    with torch.device("meta"):
        model = Gemma3ForCausalLM(reference_config(raw))
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _gemma_gguf() -> Mapping[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in GEMMA_GGUF["tensors"].items()}


def _safetensors(raw: Raw) -> HeaderFacts:
    return HeaderFacts(raw, partial(_by_transformers, raw))


CASE = PluginCase(
    name="gemma3_text",
    tiny=TINY,
    reference=reference,
    claims=frozenset(),
    ignored=frozenset(
        {
            "_sliding_window_pattern",
            "architectures",
            "attention_dropout",
            "bos_token_id",
            "cache_implementation",
            "eos_token_id",
            "initializer_range",
            "model_type",
            "torch_dtype",
            "transformers_version",
            "use_cache",
        }
    ),
    checkpoints={
        "gemma-3-270m Q4_K_M": HeaderFacts(GEMMA_METADATA, _gemma_gguf, "gguf"),
        "gemma-3-270m": _safetensors(_GEMMA_3_270M),
        "gemma-3-1b": _safetensors(_GEMMA_3_1B),
    },
    # "five-to-one" has one KV head: every rank holds it.
    shards={"five-to-one": (2, 4), "layer-by-layer": (2,), "untied-multi-head": (4,)},
    refused_ranks={"five-to-one": (3, 8), "in-eighths": (4,)},
    not_interchangeable=(
        ({"rope_full": RopeConfig(1e6)}, {"rope_full": RopeConfig(1e6, 8.0)}),
        ({"rope_sliding": RopeConfig(1e4)}, {"rope_sliding": RopeConfig(2e4)}),
        ({"sliding_window": 512}, {"sliding_window": 1024}),
        ({"layer_types": (SLIDING,) * 6}, {"layer_types": (FULL,) * 6}),
        ({"query_pre_attn_scalar": 256.0}, {"query_pre_attn_scalar": 168.0}),
        ({"torch_dtype": "float32"}, {"torch_dtype": "bfloat16"}),
    ),
    render_chat=render_chat,
    gguf=frozenset({"five-to-one", "in-eighths"}),
    rope_keys=("rope_parameters", "rope_scaling"),
    chat={"Gemma": TURNS, "ChatML": CHAT_TEMPLATE},
)
