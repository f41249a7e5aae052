"""Mistral's weights, configurations and rotary tables as they come out of files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.subject import Subject
from inference_pio.errors import CheckpointMismatch, ModelFileError
from inference_pio.loader.checkpoint import open_checkpoint
from inference_pio.loader.weights import load_weights
from inference_pio.parallel import Shard
from inference_pio.plugin.registry import default_registry
from inference_pio_mistral.config import MistralConfig, RopeConfig
from inference_pio_mistral.tests.case import TINY
from inference_pio_mistral.tests.reference import reference_config


def _weight(linear: Any) -> Tensor:
    assert not linear.packed.blocked
    return linear.packed.tensor


@pytest.mark.parametrize("tiny", ["window", "no-window", "wide-heads"])
@pytest.mark.parametrize("kind", ["safetensors", "sharded"])
def test_every_weight_is_where_it_belongs(subject: Subject, tiny: str, kind: Any) -> None:
    expected = dict(subject.reference(tiny).model.named_parameters())
    model = BareModel(subject.plugin(), subject.checkpoint(tiny, kind)).model
    assert torch.equal(model.model.embed_tokens.weight, expected["model.embed_tokens.weight"])
    head = "model.embed_tokens.weight" if TINY[tiny]["tie_word_embeddings"] else "lm_head.weight"
    assert torch.equal(_weight(model.lm_head), expected[head])
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


def _load(subject: Subject, path: Path, dtype: torch.dtype = torch.float32) -> Any:
    plugin = subject.plugin()
    config = plugin.read_config(json.loads((path / "config.json").read_text()), str(path))
    with torch.device("meta"):
        model = plugin.build_model(config, Shard())
    with open_checkpoint(path) as checkpoint:
        load_weights(
            model,
            checkpoint,
            plugin.weight_map(config),
            shard_plan=plugin.shard_plan(config),
            shard=Shard(),
            dtype=dtype,
            device=torch.device("cpu"),
        )
    return model


def _changed(source: Path, target: Path, **tensors: Tensor | None) -> Path:
    """A copy of a checkpoint with tensors replaced, added, or (None) left out; `__` in a name stands for a dot."""
    shutil.copytree(source, target)
    held = safetensors.torch.load_file(source / "model.safetensors")
    for name, tensor in tensors.items():
        held.pop(name.replace("__", "."), None)
        if tensor is not None:
            held[name.replace("__", ".")] = tensor
    safetensors.torch.save_file(held, target / "model.safetensors")
    return target


def test_both_sides_of_a_mismatch_are_named(subject: Subject, tmp_path: Path) -> None:
    source = subject.checkpoint("window")
    wrong = _changed(source, tmp_path / "wrong", model__norm__weight=None, model__nose__weight=torch.ones(3))
    with pytest.raises(CheckpointMismatch) as mismatch:
        _load(subject, wrong)
    assert mismatch.value.missing == ("model.norm.weight",)
    assert mismatch.value.unused == ("model.nose.weight",)


def test_a_stored_tied_head_must_be_the_embedding(subject: Subject, tmp_path: Path) -> None:
    source = subject.checkpoint("no-window")
    table = safetensors.torch.load_file(source / "model.safetensors")["model.embed_tokens.weight"]
    same = _load(subject, _changed(source, tmp_path / "same", lm_head__weight=table.clone()))
    assert torch.equal(_weight(same.lm_head), table)
    with pytest.raises(CheckpointMismatch, match="lm_head"):
        _load(subject, _changed(source, tmp_path / "other", lm_head__weight=table + 1))


def test_old_rotary_buffers_are_ignored(subject: Subject, tmp_path: Path) -> None:
    buffers = {"model__layers__0__self_attn__rotary_emb__inv_freq": torch.ones(8)}
    _load(subject, _changed(subject.checkpoint("window"), tmp_path / "old", **buffers))


def test_weights_are_rounded_to_the_asked_type(subject: Subject) -> None:
    model = _load(subject, subject.checkpoint("window"), torch.bfloat16)
    expected = dict(subject.reference("window").model.named_parameters())["model.embed_tokens.weight"]
    assert torch.equal(model.model.embed_tokens.weight, expected.bfloat16())
    assert model.model.rotary_emb.cos_sin.dtype == torch.float32


@pytest.mark.parametrize("tiny", sorted(TINY))
def test_rotary_table(subject: Subject, tiny: str) -> None:
    """Cosines and sines of every position are Transformers'."""
    table = BareModel(subject.plugin(), subject.checkpoint(tiny)).model.model.rotary_emb.cos_sin
    positions = torch.arange(table.shape[0])[None]
    cos, sin = subject.reference(tiny).model.model.rotary_emb(torch.zeros(1), positions)
    half = table.shape[1] // 2
    expected = torch.cat((cos[0, :, :half], sin[0, :, :half]), dim=-1)
    assert table.shape == (256, TINY[tiny].get("head_dim", 16))
    torch.testing.assert_close(table, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_key_value_heads": 3}, "4 attention heads cannot share 3 KV heads"),
        ({"head_dim": 15}, "15 is odd"),
        ({"hidden_act": "gelu"}, "hidden_act.*'gelu' is not the silu"),
        ({"quantization_config": {"bits": 4}}, "quantised safetensors.*use a GGUF file"),
        ({"num_hidden_layers": 0}, "num_hidden_layers.*0 is not between 1"),
        ({"vocab_size": "272"}, "vocab_size.*must be int"),
        ({"rms_norm_eps": 0.0}, "rms_norm_eps.*must be above 0"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "'yarn' is not supported"),
        ({"rope_scaling": {"type": "llama3", "factor": 4.0}}, "'llama3' is not supported"),
        ({"sliding_window": 0}, "sliding_window.*0 is not between 1"),
        ({"sliding_window": 4096.5}, "sliding_window.*must be int"),
        ({"layer_types": ["full_attention"] * 2}, "unknown keys layer_types"),  # Ministral
        ({"attention_bias": True}, "unknown keys attention_bias"),
        ({"num_local_experts": 8}, "unknown keys num_local_experts"),  # Mixtral
    ],
)
def test_configurations_that_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        MistralConfig.read({**TINY["window"], **change}, "config.json")


def test_both_spellings_of_rotary_settings_mean_the_same() -> None:
    old = {**TINY["window"], "rope_theta": 7.0, "rope_scaling": None}
    new = {
        **TINY["window"],
        "rope_theta": None,
        "rope_parameters": {"rope_theta": 7.0, "rope_type": "default"},
    }
    assert MistralConfig.read(old, "").rope == MistralConfig.read(new, "").rope == RopeConfig(7.0)
    legacy = {**old, "rope_parameters": {"type": "default"}}
    assert MistralConfig.read(legacy, "").rope == RopeConfig(7.0)


@pytest.mark.parametrize(
    ("stated", "window"), [({"sliding_window": 24}, 24), ({"sliding_window": None}, None), ({}, 4096)]
)
def test_windows(stated: dict[str, Any], window: int | None) -> None:
    """null is no window, and silence is Mistral 7B v0.1's: both as Transformers reads them."""
    silent = {key: value for key, value in TINY["window"].items() if key != "sliding_window"}
    raw = {**silent, **stated}
    assert MistralConfig.read(raw, "").sliding_window == window
    assert reference_config(raw).sliding_window == window


def test_gguf_files_of_mistral_are_llamas() -> None:
    """They say so themselves, and the plugin that claims the name reads them; this one claims nothing of GGUF."""
    assert default_registry().get("mistral").manifest.gguf_architectures == ()
    assert default_registry().for_checkpoint({"general.architecture": "llama"}, "x").name != "mistral"
