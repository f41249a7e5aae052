"""What llama brings to the contract tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from inference_pio.conformance.case import HeaderFacts, PluginCase, Raw, ReferenceModel
from inference_pio.conformance.tiny_tokenizer import CHAT_TEMPLATE, VOCAB_SIZE
from inference_pio.models.llama.config import RopeConfig

_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_SMALL: Raw = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "vocab_size": VOCAB_SIZE,
}
TINY: Mapping[str, Raw] = {
    "grouped": {**_SMALL, "rope_parameters": {"rope_theta": 10_000.0, "rope_type": "default"}},
    "multi-head": {**_SMALL, "num_key_value_heads": 4, "rope_theta": 500_000.0, "tie_word_embeddings": True},
    "multi-query": {**_SMALL, "num_key_value_heads": 1, "head_dim": 32, "num_hidden_layers": 3},
    "llama3": {**_SMALL, "rope_parameters": {**_LLAMA3, "rope_theta": 10_000.0}},
    "llama3-as-before": {**_SMALL, "rope_theta": 10_000.0, "rope_scaling": _LLAMA3},
    "biased": {**_SMALL, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "thirds": {
        **_SMALL,
        "hidden_size": 96,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "vocab_size": 273,
        "attention_bias": True,
        "mlp_bias": True,
    },
}

_LLAMA_3_2_1B: Raw = {
    **_SMALL,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "head_dim": 64,
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rope_scaling": {**_LLAMA3, "factor": 32.0, "original_max_position_embeddings": 8192},
    "rope_theta": 500_000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0",
    "use_cache": True,
    "vocab_size": 128256,
}
_LLAMA_3_1_8B: Raw = {
    **_LLAMA_3_2_1B,
    "head_dim": None,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "rope_scaling": {**_LLAMA3, "original_max_position_embeddings": 8192},
    "tie_word_embeddings": False,
}
_LLAMA_2_7B: Raw = {
    **_SMALL,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "pretraining_tp": 1,
    "rope_scaling": None,
    "vocab_size": 32000,
}
_SMOLLM2_135M: Raw = {
    **_SMALL,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "pad_token_id": 2,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": 100_000,
    "tie_word_embeddings": True,
    "vocab_size": 49152,
}
SMOLLM2_CHAT = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SMOLLM2_GGUF = json.loads((Path(__file__).parent / "smollm2-135m-instruct.header.json").read_text())


def reference(raw: Raw) -> ReferenceModel:
    """Transformers' model; imported only when a check asks for it."""
    from inference_pio.models.llama.tests.reference import TransformersLlama

    return TransformersLlama(raw)


def render_chat(template: str, messages: Sequence[Mapping[str, str]], variables: Mapping[str, Any]) -> str:
    """What Transformers makes of a template."""
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, _ = render_jinja_template([list(messages)], chat_template=template, **variables)
    text: str = rendered[0]
    return text


def _by_transformers(raw: Raw) -> Mapping[str, tuple[int, ...]]:
    """Names and shapes of a safetensors checkpoint of this configuration; a tied head is not stored."""
    import torch
    from transformers import LlamaForCausalLM

    from inference_pio.models.llama.tests.reference import reference_config

    with torch.device("meta"):
        model = LlamaForCausalLM(reference_config(raw))
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _smollm2_gguf() -> Mapping[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in SMOLLM2_GGUF["tensors"].items()}


def _safetensors(raw: Raw) -> HeaderFacts:
    return HeaderFacts(raw, partial(_by_transformers, raw))


CASE = PluginCase(
    name="llama",
    tiny=TINY,
    reference=reference,
    claims=frozenset({"SmolLM2-135M.config.json"}),
    ignored=frozenset(
        {
            "architectures",
            "attention_dropout",
            "bos_token_id",
            "dtype",
            "eos_token_id",
            "initializer_range",
            "is_llama_config",
            "model_type",
            "pretraining_tp",
            "torch_dtype",
            "transformers.js_config",
            "transformers_version",
            "use_cache",
        }
    ),
    checkpoints={
        "SmolLM2-135M-Instruct Q4_1": HeaderFacts(SMOLLM2_GGUF["metadata"], _smollm2_gguf, "gguf"),
        "SmolLM2-135M": _safetensors(_SMOLLM2_135M),
        "Llama-2-7b": _safetensors(_LLAMA_2_7B),
        "Llama-3.1-8B": _safetensors(_LLAMA_3_1_8B),
        "Llama-3.2-1B": _safetensors(_LLAMA_3_2_1B),
    },
    # With 4 ranks "grouped" has fewer KV heads than ranks.
    shards={"grouped": (2, 4), "biased": (2,), "thirds": (3,)},
    refused_ranks={"grouped": (3, 8), "thirds": (2, 4)},
    not_interchangeable=(
        ({"rope": RopeConfig()}, {"rope": RopeConfig(theta=500_000.0)}),
        ({"rope": RopeConfig()}, {"rope": RopeConfig(rope_type="llama3", factor=8.0)}),
        (
            {"rope": RopeConfig(rope_type="llama3", factor=8.0)},
            {"rope": RopeConfig(rope_type="llama3", factor=32.0)},
        ),
        ({"torch_dtype": "float32"}, {"torch_dtype": "bfloat16"}),
    ),
    render_chat=render_chat,
    gguf=frozenset(TINY),
    rope_keys=("rope_parameters", "rope_scaling"),
    chat={"SmolLM2": SMOLLM2_CHAT, "ChatML": CHAT_TEMPLATE},
)
