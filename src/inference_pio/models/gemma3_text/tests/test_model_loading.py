"""Gemma 3's weights, configurations and rotary tables as they come out of files."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.subject import Subject
from inference_pio.errors import CheckpointMismatch, ModelFileError
from inference_pio.models.gemma3_text.config import FULL, SLIDING, Gemma3TextConfig, RopeConfig
from inference_pio.models.gemma3_text.tests.case import GEMMA_GGUF, GEMMA_METADATA, TINY

_NORMS = (
    "self_attn.q_norm",
    "self_attn.k_norm",
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)


def _weight(linear: Any) -> Tensor:
    assert not linear.packed.blocked
    return linear.packed.tensor


@pytest.mark.parametrize(
    ("tiny", "kind"),
    [
        ("five-to-one", "safetensors"),
        ("five-to-one", "sharded"),
        ("five-to-one", "gguf"),
        ("in-eighths", "gguf"),
        ("untied-multi-head", "safetensors"),
    ],
)
def test_every_weight_is_where_it_belongs(subject: Subject, tiny: str, kind: Any) -> None:
    """Weights of norms are the same in both formats, up to the rounding of the 1 that GGUF files add to them."""
    expected = dict(subject.reference(tiny).model.named_parameters())
    model = BareModel(subject.plugin(), subject.checkpoint(tiny, kind)).model
    assert torch.equal(model.model.embed_tokens.weight, expected["model.embed_tokens.weight"])
    tied = TINY[tiny].get("tie_word_embeddings", True)
    assert torch.equal(
        _weight(model.lm_head), expected["model.embed_tokens.weight" if tied else "lm_head.weight"]
    )
    added = 2.0**-23 if kind == "gguf" else 0.0
    torch.testing.assert_close(model.model.norm.weight, expected["model.norm.weight"], rtol=0, atol=added)
    for index, layer in enumerate(model.model.layers):
        prefix = f"model.layers.{index}."
        for linear, parts in (
            (layer.self_attn.qkv_proj, [f"self_attn.{x}_proj" for x in "qkv"]),
            (layer.self_attn.o_proj, ["self_attn.o_proj"]),
            (layer.mlp.gate_up_proj, ["mlp.gate_proj", "mlp.up_proj"]),
            (layer.mlp.down_proj, ["mlp.down_proj"]),
        ):
            merged = torch.cat([expected[f"{prefix}{part}.weight"] for part in parts])
            assert torch.equal(_weight(linear), merged), f"{prefix}{parts}"
            assert linear.bias is None
        for name in _NORMS:
            norm = layer.get_submodule(name)
            assert norm.offset == 1
            torch.testing.assert_close(norm.weight, expected[f"{prefix}{name}.weight"], rtol=0, atol=added)


def _changed(source: Path, target: Path, tensors: Mapping[str, Tensor | None]) -> Path:
    """A copy of a checkpoint with tensors replaced, added, or (None) left out."""
    shutil.copytree(source, target)
    held = safetensors.torch.load_file(source / "model.safetensors")
    for name, tensor in tensors.items():
        held.pop(name, None)
        if tensor is not None:
            held[name] = tensor
    safetensors.torch.save_file(held, target / "model.safetensors")
    return target


def test_norms_are_neither_left_out_nor_added(subject: Subject, tmp_path: Path) -> None:
    layer = "model.layers.1."
    changes = {
        f"{layer}post_feedforward_layernorm.weight": None,
        f"{layer}self_attn.v_norm.weight": torch.ones(32),
    }
    wrong = _changed(subject.checkpoint("five-to-one"), tmp_path / "wrong", changes)
    with pytest.raises(CheckpointMismatch) as mismatch:
        BareModel(subject.plugin(), wrong)
    assert mismatch.value.missing == (f"{layer}post_feedforward_layernorm.weight",)
    assert mismatch.value.unused == (f"{layer}self_attn.v_norm.weight",)


def test_a_stored_tied_head_must_be_the_embedding(subject: Subject, tmp_path: Path) -> None:
    source = subject.checkpoint("five-to-one")
    table = safetensors.torch.load_file(source / "model.safetensors")["model.embed_tokens.weight"]
    same = _changed(source, tmp_path / "same", {"lm_head.weight": table.clone()})
    assert torch.equal(_weight(BareModel(subject.plugin(), same).model.lm_head), table)
    other = _changed(source, tmp_path / "other", {"lm_head.weight": table + 1})
    with pytest.raises(CheckpointMismatch, match="lm_head"):
        BareModel(subject.plugin(), other)


@pytest.mark.parametrize("tiny", sorted(TINY))
def test_rotary_tables(subject: Subject, tiny: str) -> None:
    """Cosines and sines of every position, for both kinds of layers, are Transformers', from each format."""
    theirs = subject.reference(tiny).model.model.rotary_emb
    for kind in ("safetensors", "gguf") if tiny in subject.case.gguf else ("safetensors",):
        model = BareModel(subject.plugin(), subject.checkpoint(tiny, kind)).model.model
        for name, rotary in ((FULL, model.rotary_full), (SLIDING, model.rotary_sliding)):
            cos, sin = theirs(torch.zeros(1), torch.arange(256)[None], name)
            half = TINY[tiny]["head_dim"] // 2
            expected = torch.cat((cos[0, :, :half], sin[0, :, :half]), dim=-1)
            torch.testing.assert_close(rotary.cos_sin, expected, rtol=0, atol=2e-5)
        assert not torch.equal(model.rotary_full.cos_sin, model.rotary_sliding.cos_sin)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_embeddings_are_scaled_as_transformers_rounds_them(subject: Subject, dtype: torch.dtype) -> None:
    """The root of 1152 is no power of two: in bfloat16 it is 34."""
    from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding

    from inference_pio.layers import VocabParallelEmbedding
    from inference_pio.parallel import Shard

    theirs = Gemma3TextScaledWordEmbedding(50, 24, 0, 1152**0.5).to(dtype)
    ours = VocabParallelEmbedding(50, 24, Shard(), scale=1152**0.5).to(dtype)
    ours.weight = theirs.weight
    assert torch.equal(ours(torch.arange(50)), theirs(torch.arange(50)))
    model = BareModel(subject.plugin(), subject.checkpoint("five-to-one")).model.model
    assert model.embed_tokens.scale == 8


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"layer_types": [FULL, SLIDING]},
            "layer_types.*must be 6 times full_attention or sliding_attention",
        ),
        ({"layer_types": ["chunked_attention"] * 6}, "layer_types.*must be 6 times"),
        ({"layer_types": [SLIDING] * 6, "sliding_window_pattern": 6}, "sliding_window_pattern.*contradicts"),
        ({"sliding_window": None}, "sliding_window.*is missing"),
        ({"sliding_window": 0}, "sliding_window.*0 is not between 1"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping.*30.0: capped logits are not supported"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping.*50.0: capped logits are not supported"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention.*embedding model"),
        ({"attention_bias": True}, "attention_bias.*biases of q, k, v and o are not supported"),
        ({"hidden_activation": "gelu"}, "hidden_activation.*'gelu' is not the gelu_pytorch_tanh"),
        ({"num_key_value_heads": 3}, "4 attention heads cannot share 3 KV heads"),
        ({"num_key_value_heads": None}, "num_key_value_heads.*is missing"),
        ({"head_dim": 15}, "15 is odd"),
        ({"quantization_config": {"bits": 4}}, "quantised safetensors.*use a GGUF file"),
        ({"num_hidden_layers": 0}, "num_hidden_layers.*0 is not between 1"),
        ({"hidden_act": "silu"}, "unknown keys hidden_act"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "'yarn' is not supported"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor.*is missing"),
        (
            {"rope_scaling": {"rope_type": "linear", "factor": 4.0, "low_freq_factor": 1.0}},
            "unknown keys low_freq",
        ),
        (
            {"rope_parameters": {"rope_type": "default"}},
            "rope_parameters.*'default' is stated for no kind of layer",
        ),
        ({"rope_parameters": {"chunked_attention": {}}}, "unknown keys chunked_attention"),
        ({"rope_parameters": {FULL: {}}, "rope_scaling": {"rope_type": "default"}}, "keep one of the two"),
    ],
)
def test_configurations_that_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        Gemma3TextConfig.read({**TINY["five-to-one"], **change}, "config.json")


def test_both_spellings_of_rotary_settings_mean_the_same() -> None:
    old = TINY["in-eighths"]
    new = {key: value for key, value in old.items() if not key.startswith("rope_")}
    new["rope_parameters"] = {
        FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 500_000.0},
        SLIDING: {"rope_type": "default", "rope_theta": 20_000.0},
    }
    assert Gemma3TextConfig.read(new, "") == Gemma3TextConfig.read(old, "")
    config = Gemma3TextConfig.read(old, "")
    assert (config.rope_full, config.rope_sliding) == (RopeConfig(500_000.0, 8.0), RopeConfig(20_000.0))


def test_what_is_said_of_layers_in_each_spelling() -> None:
    kinds = [SLIDING, SLIDING, FULL, SLIDING, SLIDING, FULL]
    for stated in (
        {"layer_types": kinds},
        {"sliding_window_pattern": 3},
        {"layer_types": kinds, "sliding_window_pattern": 3},
        {"layer_types": kinds, "_sliding_window_pattern": 6},  # as Transformers writes it
    ):
        config = Gemma3TextConfig.read({**TINY["five-to-one"], **stated}, "")
        assert list(config.layer_types) == kinds
        assert [config.window(layer) for layer in range(3)] == [24, 24, None]
    assert Gemma3TextConfig.read(TINY["five-to-one"], "").layer_types == (SLIDING,) * 5 + (FULL,)


def test_gguf_metadata() -> None:
    raw = {**GEMMA_METADATA, "gguf.tensor_names": frozenset(GEMMA_GGUF["tensors"])}
    config = Gemma3TextConfig.read(raw, "gemma")
    # The class's defaults are this model; the file writes 1e-6 as a float32.
    assert config.rms_norm_eps == pytest.approx(1e-6, rel=1e-6)
    written = {"rms_norm_eps": 1e-6, "model_path": "", "pad_token_id": None}
    assert vars(config) | written == vars(Gemma3TextConfig(model_path=""))
    eighths = {"gemma3.rope.scaling.type": "linear", "gemma3.rope.scaling.factor": 8.0}
    assert Gemma3TextConfig.read({**raw, **eighths}, "gemma").rope_full == RopeConfig(1e6, 8.0)
    largest = {
        "gemma3.block_count": 62,
        "gemma3.embedding_length": 5376,
        "gemma3.attention.head_count": 32,
        "gemma3.attention.head_count_kv": 16,
        "gemma3.attention.key_length": 128,
        "gemma3.attention.value_length": 128,
    }
    assert Gemma3TextConfig.read({**raw, **largest}, "gemma").query_pre_attn_scalar == 168
    for change, words in (
        ({"gemma3.rope.scaling.type": "yarn"}, "'yarn' is not supported"),
        ({"gemma3.rope.scaling.type": "linear"}, "factor.*is missing"),
        ({"gemma3.rope.scaling.factor": 4.0}, "unknown keys rope.scaling.factor"),
        ({"gemma3.attention.value_length": 64}, "64 is not the head size 256"),
        ({"gemma3.final_logit_softcapping": 30.0}, "final_logit_softcapping.*30.0: capped logits"),
        ({"gemma3.pooling_type": 1}, "unknown keys pooling_type"),
    ):
        with pytest.raises(ModelFileError, match=words):
            Gemma3TextConfig.read({**raw, **change}, "gemma")
