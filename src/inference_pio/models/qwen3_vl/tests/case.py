"""What qwen3_vl brings to the contract tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from inference_pio.config.rope import RopeConfig
from inference_pio.conformance.case import HeaderFacts, PluginCase, Raw, ReferenceModel
from inference_pio.conformance.tiny_tokenizer import CHAT_TEMPLATE, VOCAB_SIZE
from inference_pio.models.qwen3_vl.config import VisionConfig

# Configurations as they are published.
PUBLISHED = json.loads((Path(__file__).parent / "qwen3_vl.published.json").read_text())
IMAGE = 7  # the token that stands for each token of an image

_TEXT: Raw = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 64,
    "initializer_range": 0.02,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
    "model_type": "qwen3_vl_text",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_scaling": {"mrope_interleaved": True, "mrope_section": [6, 5, 5], "rope_type": "default"},
    "rope_theta": 10_000.0,
    "use_cache": True,
    "vocab_size": VOCAB_SIZE,
}
_VISION: Raw = {
    "deepstack_visual_indexes": [0, 2],
    "depth": 4,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 32,
    "in_channels": 3,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "model_type": "qwen3_vl",
    "num_heads": 4,
    "num_position_embeddings": 25,
    "out_hidden_size": 64,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
_TOP: Raw = {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "image_token_id": IMAGE,
    "model_type": "qwen3_vl",
    "tie_word_embeddings": False,
    "video_token_id": 8,
    "vision_end_token_id": 9,
    "vision_start_token_id": 10,
}


def tiny_config(text: Raw = {}, vision: Raw = {}, **top: Any) -> Raw:  # noqa: B006
    stated = {
        key: value for key, value in _TEXT.items() if "rope_parameters" not in text or "rope" not in key
    }
    return {**_TOP, **top, "text_config": {**stated, **text}, "vision_config": {**_VISION, **vision}}


def _rope(section: list[int], **more: Any) -> dict[str, Any]:
    return {"mrope_interleaved": True, "mrope_section": section, "rope_type": "default", **more}


_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
TINY: Mapping[str, Raw] = {
    # The heads together are twice as wide as the hidden states; features behind two of three layers.
    "grouped": tiny_config(),
    "multi-head": tiny_config(
        {
            "head_dim": 16,
            "num_key_value_heads": 4,
            "rope_scaling": _rope([4, 2, 2]),
            "tie_word_embeddings": True,
        },
        {"deepstack_visual_indexes": [1], "depth": 2, "num_heads": 2, "num_position_embeddings": 9},
        tie_word_embeddings=True,
    ),
    # As transformers 5 writes it.
    "multi-query": tiny_config(
        {
            "head_dim": 8,
            "num_key_value_heads": 1,
            "rope_parameters": _rope([2, 1, 1], rope_theta=1_000_000.0),
        },
        {
            "model_type": "qwen3_vl_vision",
            "rope_parameters": {"rope_theta": 10_000.0, "rope_type": "axial"},
            "patch_size": 2,
            "spatial_merge_size": 3,
            "temporal_patch_size": 1,
        },
    ),
    # No DeepStack, and each patch is a token.
    "biased": tiny_config(
        {"attention_bias": True, "num_hidden_layers": 2, "rope_scaling": _rope([8, 4, 4])},
        {"deepstack_visual_indexes": [], "depth": 1, "spatial_merge_size": 1, "num_position_embeddings": 1},
        tie_word_embeddings=True,
    ),
    "thirds": tiny_config(
        {"num_attention_heads": 6, "num_key_value_heads": 3, "vocab_size": 273},
        {"deepstack_visual_indexes": [3], "hidden_size": 48, "num_heads": 3},
    ),
    "yarn": tiny_config({"rope_scaling": _rope([6, 5, 5], **_YARN)}),
}


def reference(raw: Raw) -> ReferenceModel:
    """Transformers' model; imported only when a check asks for it."""
    from inference_pio.models.qwen3_vl.tests.reference import TransformersQwen3VL

    return TransformersQwen3VL(raw)


def render_chat(template: str, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
    """What Transformers makes of a template."""
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, _ = render_jinja_template([list(messages)], chat_template=template, **variables)
    text: str = rendered[0]
    return text


def _by_transformers(raw: Raw) -> Mapping[str, tuple[int, ...]]:
    from inference_pio.models.qwen3_vl.tests.reference import shapes

    return shapes(raw)


_CONFIGS: Mapping[str, Raw] = PUBLISHED["configs"]

CASE = PluginCase(
    name="qwen3_vl",
    tiny=TINY,
    reference=reference,
    claims=frozenset({"Qwen3-VL-2B-Instruct.config.json"}),
    ignored=frozenset(
        {
            "architectures",
            "model_type",
            "video_token_id",
            "vision_end_token_id",
            "vision_start_token_id",
            "text_config.attention_dropout",
            "text_config.bos_token_id",
            "text_config.dtype",
            "text_config.eos_token_id",
            "text_config.initializer_range",
            "text_config.use_cache",
            "vision_config.initializer_range",
        }
    ),
    checkpoints={name: HeaderFacts(raw, partial(_by_transformers, raw)) for name, raw in _CONFIGS.items()},
    # With 4 ranks "grouped" has fewer KV heads than ranks.
    shards={"grouped": (2, 4), "multi-query": (2,), "biased": (2,), "thirds": (3,)},
    refused_ranks={"grouped": (3, 8), "thirds": (2, 4)},
    not_interchangeable=(
        ({"rope": RopeConfig()}, {"rope": RopeConfig(theta=5_000_000.0)}),
        ({"rope": RopeConfig()}, {"rope": RopeConfig(rope_type="yarn", factor=4.0)}),
        ({"mrope_section": (6, 5, 5)}, {"mrope_section": (8, 4, 4)}),
        ({"vision": VisionConfig()}, {"vision": VisionConfig(deepstack_visual_indexes=(8, 16, 23))}),
        ({"torch_dtype": "float32"}, {"torch_dtype": "bfloat16"}),
    ),
    render_chat=render_chat,
    rope_keys=("text_config.rope_parameters", "text_config.rope_scaling", "vision_config.rope_parameters"),
    chat={"ChatML": CHAT_TEMPLATE},
)
