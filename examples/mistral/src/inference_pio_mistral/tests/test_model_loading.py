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
from inference_pio_mistral.config import MistralConfig, RopeConfig
from inference_pio_mistral.tests.case import SMOLLM2_GGUF, TINY
from inference_pio_mistral.tests.reference import interleaved


def _weight(linear: Any) -> Tensor:
    assert not linear.packed.blocked
    return linear.packed.tensor


@pytest.mark.parametrize("tiny", ["grouped", "multi-query", "biased"])
@pytest.mark.parametrize("kind", ["safetensors", "sharded", "gguf"])
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
            if linear.bias is not None:
                assert torch.equal(linear.bias, torch.cat([expected[f"{prefix}{x}.bias"] for x in parts]))
        assert (layer.self_attn.qkv_proj.bias is not None) == (tiny == "biased")


def test_interleaving_is_what_llama_cpp_writes() -> None:
    """Row order of convert_hf_to_gguf.py's LlamaModel.permute for one head of size 4: 0, 2, 1, 3."""
    rows = torch.arange(8.0)[:, None]
    assert interleaved(rows, 2).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


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
    source = subject.checkpoint("grouped")
    wrong = _changed(source, tmp_path / "wrong", model__norm__weight=None, model__nose__weight=torch.ones(3))
    with pytest.raises(CheckpointMismatch) as mismatch:
        _load(subject, wrong)
    assert mismatch.value.missing == ("model.norm.weight",)
    assert mismatch.value.unused == ("model.nose.weight",)


def test_a_stored_tied_head_must_be_the_embedding(subject: Subject, tmp_path: Path) -> None:
    source = subject.checkpoint("multi-head")
    table = safetensors.torch.load_file(source / "model.safetensors")["model.embed_tokens.weight"]
    same = _load(subject, _changed(source, tmp_path / "same", lm_head__weight=table.clone()))
    assert torch.equal(_weight(same.lm_head), table)
    with pytest.raises(CheckpointMismatch, match="lm_head"):
        _load(subject, _changed(source, tmp_path / "other", lm_head__weight=table + 1))


def test_old_rotary_buffers_are_ignored(subject: Subject, tmp_path: Path) -> None:
    buffers = {"model__layers__0__self_attn__rotary_emb__inv_freq": torch.ones(8)}
    _load(subject, _changed(subject.checkpoint("grouped"), tmp_path / "old", **buffers))


def test_weights_are_rounded_to_the_asked_type(subject: Subject) -> None:
    model = _load(subject, subject.checkpoint("grouped"), torch.bfloat16)
    expected = dict(subject.reference("grouped").model.named_parameters())["model.embed_tokens.weight"]
    assert torch.equal(model.model.embed_tokens.weight, expected.bfloat16())
    assert model.model.rotary_emb.cos_sin.dtype == torch.float32


@pytest.mark.parametrize("tiny", sorted(TINY))
@pytest.mark.parametrize("kind", ["safetensors", "gguf"])
def test_rotary_table(subject: Subject, tiny: str, kind: Any) -> None:
    """Cosines and sines of every position are Transformers'."""
    table = BareModel(subject.plugin(), subject.checkpoint(tiny, kind)).model.model.rotary_emb.cos_sin
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
        ({"rope_parameters": {"rope_type": "llama3"}}, "factor.*is missing"),
    ],
)
def test_configurations_that_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        MistralConfig.read({**TINY["grouped"], **change}, "config.json")


def test_both_spellings_of_rotary_settings_mean_the_same() -> None:
    new, old = (MistralConfig.read(TINY[name], "") for name in ("llama3", "llama3-as-before"))
    assert new == old
    assert new.rope == RopeConfig(10_000.0, "llama3", 8.0, 1.0, 4.0, 32)
    legacy = {**TINY["grouped"], "rope_parameters": {"type": "default"}, "rope_theta": 7.0}
    assert MistralConfig.read(legacy, "").rope == RopeConfig(7.0)


def test_gguf_metadata() -> None:
    names = frozenset(SMOLLM2_GGUF["tensors"])
    raw = {**SMOLLM2_GGUF["metadata"], "gguf.tensor_names": names}
    config = MistralConfig.read(raw, "smollm2")
    # The class's defaults are this model; the file writes 1e-5 as a float32.
    assert config.rms_norm_eps == pytest.approx(1e-5, rel=1e-6)
    assert vars(config) | {"rms_norm_eps": 1e-5, "model_path": ""} == vars(MistralConfig(model_path=""))
    for change, words in (
        ({"mistral.rope.scaling.type": "yarn"}, "'yarn' is not supported"),
        ({"mistral.rope.dimension_count": 32}, "32 is not the head size 64"),
        ({"mistral.expert_count": 8}, "unknown keys expert_count"),
    ):
        with pytest.raises(ModelFileError, match=words):
            MistralConfig.read({**raw, **change}, "smollm2")
