"""What qwen3_moe brings to the contract tests."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inference_pio.conformance.case import HeaderFacts, PluginCase, Raw, ReferenceModel
from inference_pio.conformance.tiny_tokenizer import VOCAB_SIZE
from inference_pio.models.qwen3_moe.config import RopeConfig

_HERE = Path(__file__).parent
_SMALL: Raw = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "attention_bias": False,
    "decoder_sparse_step": 1,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 48,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": VOCAB_SIZE,
}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
_NO_HEAD_DIM = {key: value for key, value in _SMALL.items() if key != "head_dim"}
TINY: Mapping[str, Raw] = {
    "experts": {**_SMALL, "rope_parameters": {"rope_theta": 1_000_000.0, "rope_type": "default"}},
    # Spelled as Qwen3-Coder is, with what it says of its relatives.
    "coder": {
        **{key: value for key, value in _SMALL.items() if key != "attention_bias"},
        "num_key_value_heads": 1,
        "qkv_bias": False,
        "rope_scaling": None,
        "rope_theta": 10_000_000,
        "shared_expert_intermediate_size": 0,
        "use_qk_norm": True,
    },
    # Experts in the second and the last layer alone.
    "dense-between": {**_SMALL, "decoder_sparse_step": 2, "mlp_only_layers": [3], "num_hidden_layers": 6},
    "every-expert": {
        **_NO_HEAD_DIM,
        "norm_topk_prob": False,
        "num_experts": 5,
        "num_experts_per_tok": 5,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
    },
    "unnormalized": {**_SMALL, "norm_topk_prob": False, "num_experts_per_tok": 1, "vocab_size": 276},
    "tied": {**_SMALL, "tie_word_embeddings": True, "rope_theta": 10_000.0},
    "yarn": {**_SMALL, "rope_parameters": {**_YARN, "rope_theta": 10_000.0}},
    # The recipe of the model cards: what else config.json says stays as it was.
    "yarn-by-recipe": {
        **_SMALL,
        "max_position_embeddings": 128,
        "rope_theta": 10_000.0,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    },
    "yarn-in-detail": {
        **_SMALL,
        "rope_parameters": {
            **_YARN,
            "rope_theta": 10_000.0,
            "attention_factor": 1.3,
            "beta_fast": 16.0,
            "beta_slow": 0.5,
        },
    },
}
CODER: Raw = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "attention_dropout": 0.0,
    "decoder_sparse_step": 1,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 5472,
    "max_position_embeddings": 262144,
    "max_window_layers": 28,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "output_router_logits": False,
    "qkv_bias": False,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 10000000,
    "router_aux_loss_coef": 0.0,
    "shared_expert_intermediate_size": 0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.52.3",
    "use_cache": True,
    "use_qk_norm": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


def reference(raw: Raw) -> ReferenceModel:
    """Transformers' model; imported only when a check asks for it."""
    from inference_pio.models.qwen3_moe.tests.reference import TransformersQwen3Moe

    return TransformersQwen3Moe(raw)


def render_chat(template: str, messages: Sequence[Mapping[str, str]], variables: Mapping[str, Any]) -> str:
    """What Transformers makes of a template."""
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, _ = render_jinja_template([list(messages)], chat_template=template, **variables)
    return str(texts[0])


def _published_coder() -> Mapping[str, tuple[int, ...]]:
    """The names of the published index, with the shapes that Transformers' classes give such a model's parameters."""
    from inference_pio.models.qwen3_moe.tests.reference import shape_of, shapes_by_transformers

    packed = (_HERE / "qwen3-coder-30b-a3b-instruct.index.json.gz").read_bytes()
    names = json.loads(gzip.decompress(packed))["weight_map"]
    shapes = shapes_by_transformers(CODER)
    return {name: shape_of(name, shapes) for name in names}


CASE = PluginCase(
    name="qwen3_moe",
    tiny=TINY,
    reference=reference,
    claims=frozenset({"Qwen3-30B-A3B.config.json", "Qwen3-Coder-30B-A3B-Instruct.config.json"}),
    ignored=frozenset(
        {
            "architectures",
            "attention_dropout",
            "bos_token_id",
            "eos_token_id",
            "initializer_range",
            "max_window_layers",
            "model_type",
            "output_router_logits",
            "router_aux_loss_coef",
            "sliding_window",
            "torch_dtype",
            "transformers_version",
            "use_cache",
        }
    ),
    checkpoints={"Qwen3-Coder-30B-A3B-Instruct": HeaderFacts(CODER, _published_coder)},
    # With 4 ranks "experts" has fewer KV heads than ranks; "dense-between" has blocks of both kinds to divide.
    shards={"experts": (2, 4), "dense-between": (2,), "every-expert": (2,)},
    refused_ranks={"experts": (3, 8), "dense-between": (3,)},
    not_interchangeable=(
        ({"rope": RopeConfig()}, {"rope": RopeConfig(theta=1_000_000.0)}),
        ({"rope": RopeConfig()}, {"rope": RopeConfig(rope_type="yarn", factor=4.0)}),
        ({"torch_dtype": "float32"}, {"torch_dtype": "bfloat16"}),
    ),
    render_chat=render_chat,
    # GGUF has no dense layers for this architecture, and its experts' weights are always normalised.
    gguf=frozenset({"experts", "coder", "tied", "yarn", "yarn-by-recipe"}),
    rope_keys=("rope_parameters", "rope_scaling"),
    chat={
        "Qwen3-Coder": (_HERE / "qwen3-coder.jinja").read_text(),
        "Qwen3": (_HERE / "qwen3.jinja").read_text(),
    },
)
