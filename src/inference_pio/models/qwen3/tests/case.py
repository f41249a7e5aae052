"""What qwen3 brings to the contract tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from inference_pio.config.rope import RopeConfig
from inference_pio.conformance.case import HeaderFacts, PluginCase, Raw, ReferenceModel
from inference_pio.conformance.tiny_tokenizer import CHAT_TEMPLATE, VOCAB_SIZE

# Configurations and chat templates as they are published, and the names in an index of safetensors.
PUBLISHED = json.loads((Path(__file__).parent / "qwen3.published.json").read_text())

_SMALL: Raw = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "attention_bias": False,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
    "max_window_layers": 1,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": VOCAB_SIZE,
}
_AS_SAVED_NOW: Raw = {key: value for key, value in _SMALL.items() if key != "rope_theta"}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
TINY: Mapping[str, Raw] = {
    # The heads together are twice as wide as the hidden states, as in Qwen3-0.6B.
    "grouped": {
        **_AS_SAVED_NOW,
        "dtype": "float32",
        "layer_types": ["full_attention"] * 2,
        "rope_parameters": {"rope_theta": 1_000_000.0, "rope_type": "default"},
    },
    "multi-head": {**_SMALL, "head_dim": 16, "num_key_value_heads": 4, "tie_word_embeddings": True},
    # … and here they are half as wide.
    "multi-query": {**_SMALL, "head_dim": 8, "num_key_value_heads": 1, "num_hidden_layers": 3},
    "biased": {**_SMALL, "attention_bias": True, "tie_word_embeddings": True},
    "thirds": {
        **_SMALL,
        "attention_bias": True,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "vocab_size": 273,
    },
    "yarn": {**_AS_SAVED_NOW, "rope_parameters": {**_YARN, "rope_theta": 10_000.0}},
    # The recipe of Qwen3's model cards: config.json states more positions than the training had, and keeps them.
    "yarn-by-recipe": {
        **_SMALL,
        "max_position_embeddings": 160,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    },
    "yarn-in-detail": {
        **_AS_SAVED_NOW,
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


def reference(raw: Raw) -> ReferenceModel:
    """Transformers' model; imported only when a check asks for it."""
    from inference_pio.models.qwen3.tests.reference import TransformersQwen3

    return TransformersQwen3(raw)


def render_chat(template: str, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
    """What Transformers makes of a template."""
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, _ = render_jinja_template([list(messages)], chat_template=template, **variables)
    text: str = rendered[0]
    return text


def _by_transformers(raw: Raw) -> Mapping[str, tuple[int, ...]]:
    from inference_pio.models.qwen3.tests.reference import shapes

    return shapes(raw)


def _by_index(raw: Raw) -> Mapping[str, tuple[int, ...]]:
    """The names of the published index with Transformers' shapes; a name that Transformers lacks is an error here."""
    found = _by_transformers(raw)
    return {name: found[name] for name in PUBLISHED["index of Qwen3-4B-Instruct-2507"]["tensors"]}


def _by_llama_cpp(raw: Raw) -> Mapping[str, tuple[int, ...]]:
    """Transformers' shapes under the names that llama.cpp's converter gives them."""
    from inference_pio.models.qwen3.tests.reference import gguf_names

    found = _by_transformers(raw)
    names = gguf_names(found, raw["num_hidden_layers"])
    return {names[name]: shape for name, shape in found.items()}


def _gguf_metadata(raw: Raw) -> Raw:
    """What a GGUF file of this configuration states; of its tokens only their number matters here."""
    return {
        "general.architecture": "qwen3",
        "qwen3.block_count": raw["num_hidden_layers"],
        "qwen3.context_length": raw["max_position_embeddings"],
        "qwen3.embedding_length": raw["hidden_size"],
        "qwen3.feed_forward_length": raw["intermediate_size"],
        "qwen3.attention.head_count": raw["num_attention_heads"],
        "qwen3.attention.head_count_kv": raw["num_key_value_heads"],
        "qwen3.attention.key_length": raw["head_dim"],
        "qwen3.attention.value_length": raw["head_dim"],
        "qwen3.attention.layer_norm_rms_epsilon": 9.999999974752427e-07,
        "qwen3.rope.freq_base": float(raw["rope_theta"]),
        "tokenizer.ggml.tokens": range(raw["vocab_size"]),
    }


def _gguf(raw: Raw) -> HeaderFacts:
    return HeaderFacts(_gguf_metadata(raw), partial(_by_llama_cpp, raw), "gguf")


_CONFIGS: Mapping[str, Raw] = PUBLISHED["configs"]
_4B = "Qwen3-4B-Instruct-2507"
SMALLEST_GGUF = _gguf(_CONFIGS["Qwen3-0.6B"])

CASE = PluginCase(
    name="qwen3",
    tiny=TINY,
    reference=reference,
    claims=frozenset(f"{name}.config.json" for name in _CONFIGS),
    ignored=frozenset(
        {
            "architectures",
            "attention_dropout",
            "bos_token_id",
            "dtype",
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
        **{name: HeaderFacts(raw, partial(_by_transformers, raw)) for name, raw in _CONFIGS.items()},
        _4B: HeaderFacts(_CONFIGS[_4B], partial(_by_index, _CONFIGS[_4B])),
        "Qwen3-0.6B as GGUF": SMALLEST_GGUF,
        "Qwen3-32B as GGUF": _gguf(_CONFIGS["Qwen3-32B"]),
    },
    # With 4 ranks "grouped" has fewer KV heads than ranks.
    shards={"grouped": (2, 4), "multi-query": (2,), "biased": (2,), "thirds": (3,)},
    refused_ranks={"grouped": (3, 8), "thirds": (2, 4)},
    not_interchangeable=(
        ({"rope": RopeConfig()}, {"rope": RopeConfig(theta=5_000_000.0)}),
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
    chat={**PUBLISHED["templates"], "ChatML": CHAT_TEMPLATE},
)
