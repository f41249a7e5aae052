"""What mistral brings to the contract tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from inference_pio.conformance.case import HeaderFacts, PluginCase, Raw, ReferenceModel
from inference_pio.conformance.tiny_tokenizer import CHAT_TEMPLATE, VOCAB_SIZE
from inference_pio_mistral.config import RopeConfig

_SMALL: Raw = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "vocab_size": VOCAB_SIZE,
}
# The suite's prompts have 87 tokens: every window here is shorter, and none ends where a block of the cache does.
TINY: Mapping[str, Raw] = {
    "window": {**_SMALL, "sliding_window": 24},
    "no-window": {**_SMALL, "tie_word_embeddings": True},
    "narrow": {**_SMALL, "num_hidden_layers": 3, "num_key_value_heads": 4, "sliding_window": 5},
    "itself-alone": {**_SMALL, "sliding_window": 1},
    # As in Mistral Nemo, a head is wider than its part of the hidden states.
    "wide-heads": {
        **{key: value for key, value in _SMALL.items() if key != "rope_theta"},
        "head_dim": 32,
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_theta": 1_000_000.0, "rope_type": "default"},
        "sliding_window": 70,
    },
    "thirds": {
        **_SMALL,
        "hidden_size": 96,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "sliding_window": 17,
        "vocab_size": 273,
    },
}

# As config.json of each says.
_MISTRAL_7B_V0_1: Raw = {
    **_SMALL,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "sliding_window": 4096,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.34.0.dev0",
    "use_cache": True,
    "vocab_size": 32000,
}
_MISTRAL_7B_V0_3: Raw = {
    **_MISTRAL_7B_V0_1,
    "attention_dropout": 0.0,
    "rope_theta": 1_000_000.0,
    "sliding_window": None,
    "transformers_version": "4.42.0.dev0",
    "vocab_size": 32768,
}
_NEMO_12B: Raw = {
    **_MISTRAL_7B_V0_3,
    "head_dim": 128,
    "hidden_size": 5120,
    "max_position_embeddings": 131072,
    "num_hidden_layers": 40,
    "vocab_size": 131072,
}
NEMO_CHAT = (Path(__file__).parent / "mistral-nemo-instruct-2407.jinja").read_text(encoding="utf-8")


def reference(raw: Raw) -> ReferenceModel:
    """Transformers' model; imported only when a check asks for it."""
    from inference_pio_mistral.tests.reference import TransformersMistral

    return TransformersMistral(raw)


def render_chat(template: str, messages: Sequence[Mapping[str, str]], variables: Mapping[str, Any]) -> str:
    """What Transformers makes of a template."""
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, _ = render_jinja_template([list(messages)], chat_template=template, **variables)
    text: str = rendered[0]
    return text


def _by_transformers(raw: Raw) -> Mapping[str, tuple[int, ...]]:
    """Names and shapes of a safetensors checkpoint of this configuration; a tied head is not stored."""
    import torch
    from transformers import MistralForCausalLM

    from inference_pio_mistral.tests.reference import reference_config

    with torch.device("meta"):
        model = MistralForCausalLM(reference_config(raw))
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _safetensors(raw: Raw) -> HeaderFacts:
    return HeaderFacts(raw, partial(_by_transformers, raw))


CASE = PluginCase(
    name="mistral",
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
            "model_type",
            "torch_dtype",
            "transformers_version",
            "use_cache",
        }
    ),
    checkpoints={
        "Mistral-7B-v0.1": _safetensors(_MISTRAL_7B_V0_1),
        "Mistral-7B-v0.3": _safetensors(_MISTRAL_7B_V0_3),
        "Mistral-Nemo-Base-2407": _safetensors(_NEMO_12B),
    },
    # With 4 ranks "window" has fewer KV heads than ranks.
    shards={"window": (2, 4), "thirds": (3,)},
    refused_ranks={"window": (3, 8), "thirds": (2, 4)},
    not_interchangeable=(
        ({"rope": RopeConfig()}, {"rope": RopeConfig(theta=10_000.0)}),
        ({"sliding_window": 4096}, {"sliding_window": None}),
        ({"sliding_window": 24}, {"sliding_window": 25}),
        ({"torch_dtype": "float32"}, {"torch_dtype": "bfloat16"}),
    ),
    render_chat=render_chat,
    rope_keys=("rope_parameters", "rope_scaling"),
    chat={"Mistral-Nemo-Instruct-2407": NEMO_CHAT, "ChatML": CHAT_TEMPLATE},
)
