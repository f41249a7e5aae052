"""What qwen2 brings to the contract tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from inference_pio.config.rope import RopeConfig
from inference_pio.conformance.case import HeaderFacts, PluginCase, Raw, ReferenceModel
from inference_pio.conformance.tiny_tokenizer import CHAT_TEMPLATE, VOCAB_SIZE

_SMALL: Raw = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
    "max_window_layers": 1,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "sliding_window": 8,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": VOCAB_SIZE,
}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
TINY: Mapping[str, Raw] = {
    "grouped": {**_SMALL, "rope_parameters": {"rope_theta": 1_000_000.0, "rope_type": "default"}},
    "multi-head": {**_SMALL, "num_key_value_heads": 4, "rope_theta": 10_000.0, "tie_word_embeddings": True},
    "multi-query": {
        **_SMALL,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "num_hidden_layers": 3,
        "layer_types": ["full_attention"] * 3,
    },
    # As many heads to a KV head as in Qwen2.5-1.5B.
    "six-to-one": {**_SMALL, "hidden_size": 96, "num_attention_heads": 12, "vocab_size": 276},
    "yarn": {**_SMALL, "rope_parameters": {**_YARN, "rope_theta": 10_000.0}},
    # The recipe of Qwen2.5's model cards: what else config.json says stays as it was in training.
    "yarn-by-recipe": {
        **_SMALL,
        "max_position_embeddings": 64,
        "rope_theta": 10_000.0,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    },
    "yarn-in-detail": {
        **_SMALL,
        "tie_word_embeddings": True,
        "rope_parameters": {
            **_YARN,
            "rope_theta": 10_000.0,
            "attention_factor": 1.3,
            "beta_fast": 16.0,
            "beta_slow": 0.5,
        },
    },
}

_QWEN2_5_7B: Raw = {
    **_SMALL,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_size": 3584,
    "initializer_range": 0.02,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rope_theta": 1_000_000.0,
    "sliding_window": 131072,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.43.1",
    "use_cache": True,
    "vocab_size": 152064,
}
_QWEN2_5_0_5B: Raw = {
    **_QWEN2_5_7B,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_window_layers": 21,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "use_mrope": False,
    "vocab_size": 151936,
}
CODER_GGUF = json.loads((Path(__file__).parent / "qwen2.5-coder-1.5b-instruct.header.json").read_text())
# The list of tokens stands for itself: only its length is a fact of the architecture.
CODER_METADATA: Raw = {**CODER_GGUF["metadata"], "tokenizer.ggml.tokens": range(CODER_GGUF["tokens"])}


def reference(raw: Raw) -> ReferenceModel:
    """Transformers' model; imported only when a check asks for it."""
    from inference_pio.models.qwen2.tests.reference import TransformersQwen2

    return TransformersQwen2(raw)


def render_chat(template: str, messages: Sequence[Mapping[str, str]], variables: Mapping[str, Any]) -> str:
    """What Transformers makes of a template."""
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, _ = render_jinja_template([list(messages)], chat_template=template, **variables)
    text: str = rendered[0]
    return text


def _by_transformers(raw: Raw) -> Mapping[str, tuple[int, ...]]:
    """Names and shapes of a safetensors checkpoint of this configuration; a tied head is not stored."""
    import torch
    from transformers import Qwen2ForCausalLM

    from inference_pio.models.qwen2.tests.reference import reference_config

    with torch.device("meta"):
        model = Qwen2ForCausalLM(reference_config(raw))
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _coder_gguf() -> Mapping[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in CODER_GGUF["tensors"].items()}


def _safetensors(raw: Raw) -> HeaderFacts:
    return HeaderFacts(raw, partial(_by_transformers, raw))


CASE = PluginCase(
    name="qwen2",
    tiny=TINY,
    reference=reference,
    claims=frozenset(),
    ignored=frozenset(
        {
            "architectures",
            "attention_dropout",
            "bos_token_id",
            "eos_token_id",
            "initializer_range",
            "max_window_layers",
            "model_type",
            "sliding_window",
            "torch_dtype",
            "transformers_version",
            "use_cache",
        }
    ),
    checkpoints={
        "Qwen2.5-Coder-1.5B-Instruct Q4_K_M": HeaderFacts(CODER_METADATA, _coder_gguf, "gguf"),
        "Qwen2.5-0.5B": _safetensors(_QWEN2_5_0_5B),
        "Qwen2.5-7B": _safetensors(_QWEN2_5_7B),
    },
    # With 4 ranks "grouped" has fewer KV heads than ranks, with 6 "six-to-one".
    shards={"grouped": (2, 4), "multi-head": (2,), "six-to-one": (2, 6)},
    refused_ranks={"grouped": (3, 8), "six-to-one": (3, 5)},
    not_interchangeable=(
        ({"rope": RopeConfig()}, {"rope": RopeConfig(theta=1_000_000.0)}),
        ({"rope": RopeConfig()}, {"rope": RopeConfig(rope_type="yarn", factor=4.0)}),
        (
            {"rope": RopeConfig(rope_type="yarn", factor=4.0)},
            {"rope": RopeConfig(rope_type="yarn", factor=2.0)},
        ),
        ({"torch_dtype": "float32"}, {"torch_dtype": "bfloat16"}),
    ),
    render_chat=render_chat,
    gguf=frozenset(TINY) - {"yarn-in-detail"},
    rope_keys=("rope_parameters", "rope_scaling"),
    chat={"Qwen2.5-Coder": CODER_GGUF["chat_template"], "ChatML": CHAT_TEMPLATE},
)
