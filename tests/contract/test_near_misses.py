"""A configuration of a relative is refused by naming the key that makes it one, whichever plugin is asked.

Each change below is what a model of another architecture says, written into a configuration that the plugin does run:
its own smallest case. What an architecture knows and computes is no near miss; `KNOWN` lists it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from inference_pio import create_plugin
from inference_pio.conformance.subject import load_case
from inference_pio.errors import ModelFileError, UnsupportedArchitecture
from inference_pio.plugin.registry import BUILT_IN, Registry, default_registry

CONFIGS = Path(__file__).parents[1] / "data" / "configs"

# Key -> a value of it that a relative has, and what it would mean.
CHANGES: dict[str, tuple[str, Any]] = {
    # other activations
    "gelu": ("hidden_act", "gelu"),
    "gemma's activation": ("hidden_activation", "gelu_new"),
    # other norms, and norms elsewhere
    "layer norm": ("norm_type", "layernorm"),
    "layer norm's epsilon": ("layer_norm_eps", 1e-5),
    "no norm of heads": ("use_qk_norm", False),
    "norm of all heads": ("qk_norm", True),
    "norms behind blocks": ("post_norm", True),
    # other attention
    "a window": ("sliding_window", 4096),
    "windows switched on": ("use_sliding_window", True),
    "windows in some layers": ("layer_types", "sliding_attention"),
    "chunks": ("attention_chunk_size", 8192),
    "capped scores": ("attn_logit_softcapping", 50.0),
    "capped logits": ("final_logit_softcapping", 30.0),
    "clipped projections": ("clip_qkv", 8.0),
    "gated attention": ("attn_output_gate", True),
    "selected tokens": ("index_topk", 2048),
    "sinks": ("attention_sinks", 4),
    "linear biases": ("alibi", True),
    "biases of q, k and v": ("qkv_bias", True),
    "biases of attention": ("attention_bias", True),
    "biases of feed-forward blocks": ("mlp_bias", True),
    "parallel blocks": ("use_parallel_residual", True),
    # other routers and experts
    "softmax scores": ("scoring_func", "softmax"),
    "square roots of softplus": ("scoring_func", "sqrtsoftplus"),
    "the best of groups": ("topk_method", "group_limited_greedy"),
    "groups of experts": ("n_group", 8),
    "experts in every second layer": ("moe_layer_freq", 2),
    "experts of a mixtral": ("num_local_experts", 8),
    "a shared expert": ("shared_expert_intermediate_size", 512),
    "hashed routing": ("num_hash_layers", 3),
    # scales
    "scaled embeddings": ("embedding_multiplier", 12.0),
    "scaled logits": ("logits_scaling", 16.0),
    "a scaled residual stream": ("residual_multiplier", 0.22),
    # positions
    "positions of a vision model": ("use_mrope", True),
    "part of a head turns": ("partial_rotary_factor", 0.5),
    "neighbours turn": ("rope_interleaved", True),
    "layers without positions": ("no_rope_layers", [1, 0]),
    # other storage
    "fp8": ("quantization_config", {"quant_method": "fp8"}),
}
ROPES: dict[str, dict[str, Any]] = {
    "longrope": {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0], "factor": 2.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "proportional": {"rope_type": "proportional", "partial_rotary_factor": 0.25},
    "mrope": {"rope_type": "default", "mrope_section": [24, 20, 20]},
    "mrope, old": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "unheard of": {"rope_type": "spiral", "factor": 2.0},
}
# Plugin -> keys that its architecture has, and computes as they say or states to be without effect.
KNOWN: dict[str, set[str]] = {
    "llama": {"attention_bias", "mlp_bias"},
    "qwen2": {"sliding_window"},
    "qwen3": {"attention_bias", "sliding_window"},
    "qwen3_moe": {"num_local_experts", "sliding_window"},
    "gemma3_text": {"sliding_window"},
    "glm4_moe_lite": {"attention_bias", "n_group"},
    "qwen3_next": {"attention_bias", "partial_rotary_factor", "shared_expert_intermediate_size"},
    "qwen3_vl": {"attention_bias"},
}


def _typical(plugin: str) -> dict[str, Any]:
    case = load_case(default_registry().get(plugin).manifest)
    return dict(case.tiny[case.typical])


def _refuses(plugin: str, raw: Mapping[str, Any], *words: str) -> None:
    with pytest.raises(ModelFileError) as refused:
        create_plugin(plugin).read_config(raw, "near.json")
    named = any(word in str(refused.value) for word in words)
    assert named, f"{plugin} refuses without naming {' or '.join(words)}: {refused.value}"


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("plugin", BUILT_IN)
def test_what_a_relative_says_is_refused_by_name(plugin: str, change: str) -> None:
    key, value = CHANGES[change]
    raw = _typical(plugin)
    if key in KNOWN.get(plugin, set()):
        pytest.skip(f"{plugin} knows {key}")
    if key == "layer_types":
        value = [value] * raw.get("num_hidden_layers", 1)
        if plugin == "gemma3_text":
            value[0] = "chunked_attention"
    _refuses(plugin, {**raw, key: value}, key)


@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("spelling", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("plugin", BUILT_IN)
def test_other_rotary_positions_are_refused_by_name(plugin: str, spelling: str, rope: str) -> None:
    raw = {
        key: value
        for key, value in _typical(plugin).items()
        if key not in ("rope_scaling", "rope_parameters")
    }
    stated = ROPES[rope]
    # Of several things that are wrong, any may be named; where settings lie deeper, there is no such key at all.
    named = ("rope_type", f"unknown keys {spelling}", *(key for key in stated if key != "type"))
    _refuses(plugin, {**raw, spelling: stated}, *named)


def _collected(name: str, architecture: str) -> dict[str, Any]:
    return {**json.loads((CONFIGS / name).read_text()), "architectures": [architecture]}


# What real relatives say, claimed for one of ours: the file, the plugin, and the key that gives it away.
RELATIVES = [
    ("GLM-5.config.json", "glm4_moe_lite", "index_head_dim"),
    ("Qwen3-VL-2B-Instruct.config.json", "qwen3", "text_config"),
    ("Qwen3-VL-30B-A3B-Instruct.config.json", "qwen3_moe", "text_config"),
    ("Qwen3-Coder-Next.config.json", "qwen3_moe", "shared_expert_intermediate_size"),
    ("GLM-4.7-Flash.config.json", "llama", "first_k_dense_replace"),
    ("Qwen3-30B-A3B.config.json", "qwen3", "decoder_sparse_step"),
]


@pytest.mark.parametrize(("file", "plugin", "key"), RELATIVES)
def test_a_real_relative_is_refused_by_name(file: str, plugin: str, key: str) -> None:
    if plugin not in BUILT_IN:
        pytest.skip(f"{plugin} is not here")
    architecture = default_registry().get(plugin).manifest.architectures[0]
    _refuses(plugin, _collected(file, architecture), key)


def test_a_hybrid_of_the_next_generation_is_refused_by_name() -> None:
    """Qwen3.5's text models: DeltaNet with projections apart, gates of attention as an option, interleaved mRoPE."""
    pytest.importorskip("inference_pio.models.qwen3_next")
    raw = _collected("Qwen3-Coder-Next.config.json", "Qwen3NextForCausalLM")
    for key, value in (
        ("attn_output_gate", True),
        ("mamba_ssm_dtype", "float32"),
        ("mtp_num_hidden_layers", 1),
    ):
        _refuses("qwen3_next", {**raw, key: value}, key)
    raw.pop("rope_scaling")
    positions = {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [11, 11, 10]}
    _refuses("qwen3_next", {**raw, "rope_parameters": positions}, "mrope_interleaved")


@pytest.mark.parametrize("file", ["GLM-5.config.json", "Qwen3-VL-30B-A3B-Instruct.config.json"])
def test_an_architecture_without_a_plugin_is_named(file: str) -> None:
    raw = json.loads((CONFIGS / file).read_text())
    with pytest.raises(UnsupportedArchitecture, match=raw["architectures"][0]):
        Registry().for_checkpoint(raw, file)  # without the bridge
