"""Qwen2's weights, configurations and rotary tables as they come out of files."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from inference_pio.config.rope import RopeConfig
from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.subject import Subject
from inference_pio.errors import CheckpointMismatch, ModelFileError
from inference_pio.models.qwen2.config import Qwen2Config
from inference_pio.models.qwen2.tests.case import CODER_GGUF, CODER_METADATA, TINY


def _weight(linear: Any) -> Tensor:
    assert not linear.packed.blocked
    return linear.packed.tensor


@pytest.mark.parametrize("tiny", ["grouped", "multi-head", "multi-query"])
@pytest.mark.parametrize("kind", ["safetensors", "sharded", "gguf"])
def test_every_weight_is_where_it_belongs(subject: Subject, tiny: str, kind: Any) -> None:
    """Rows of q and k lie alike in both formats; q, k and v have a bias, nothing else has."""
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
            if len(parts) == 3:
                bias = torch.cat([expected[f"{prefix}{part}.bias"] for part in parts])
                assert bias.all()
                assert torch.equal(linear.bias, bias)
            else:
                assert linear.bias is None


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


def test_biases_are_neither_left_out_nor_added(subject: Subject, tmp_path: Path) -> None:
    attention = "model.layers.1.self_attn."
    changes = {f"{attention}k_proj.bias": None, f"{attention}o_proj.bias": torch.ones(64)}
    wrong = _changed(subject.checkpoint("grouped"), tmp_path / "wrong", changes)
    with pytest.raises(CheckpointMismatch) as mismatch:
        BareModel(subject.plugin(), wrong)
    assert mismatch.value.missing == (f"1 of 3 parts of {attention}qkv_proj.bias",)
    assert mismatch.value.unused == (f"{attention}o_proj.bias",)


def test_a_stored_tied_head_must_be_the_embedding(subject: Subject, tmp_path: Path) -> None:
    source = subject.checkpoint("multi-head")
    table = safetensors.torch.load_file(source / "model.safetensors")["model.embed_tokens.weight"]
    same = _changed(source, tmp_path / "same", {"lm_head.weight": table.clone()})
    assert torch.equal(_weight(BareModel(subject.plugin(), same).model.lm_head), table)
    other = _changed(source, tmp_path / "other", {"lm_head.weight": table + 1})
    with pytest.raises(CheckpointMismatch, match="lm_head"):
        BareModel(subject.plugin(), other)


@pytest.mark.parametrize("tiny", sorted(TINY))
def test_rotary_table(subject: Subject, tiny: str) -> None:
    """Cosines and sines of every position are Transformers', scaled as there, from each format."""
    rotary = subject.reference(tiny).model.model.rotary_emb
    for kind in ("safetensors", "gguf") if tiny in subject.case.gguf else ("safetensors",):
        table = BareModel(subject.plugin(), subject.checkpoint(tiny, kind)).model.model.rotary_emb.cos_sin
        cos, sin = rotary(torch.zeros(1), torch.arange(table.shape[0])[None])
        half = table.shape[1] // 2
        expected = torch.cat((cos[0, :, :half], sin[0, :, :half]), dim=-1)
        assert table.shape == (256, _head_dim(tiny))
        torch.testing.assert_close(table, expected, rtol=0, atol=2e-5)
    if tiny.startswith("yarn"):
        plain = subject.reference("multi-head").model.model.rotary_emb.inv_freq
        slowed = plain / rotary.inv_freq
        assert slowed.min() == 1, "no frequency of this reference stays as it is"
        assert slowed.max() == pytest.approx(4), (
            "no frequency of this reference is slowed by the whole factor"
        )


def _head_dim(tiny: str) -> int:
    raw = TINY[tiny]
    head_dim: int = raw.get("head_dim", raw["hidden_size"] // raw["num_attention_heads"])
    return head_dim


def test_the_published_recipe_for_long_texts() -> None:
    """Qwen2.5-7B with the rope_scaling of its model card, at its real size, against Transformers' frequencies."""
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

    from inference_pio.models.qwen2.rotary_embeddings.rotary_embedding import RotaryEmbedding
    from inference_pio.models.qwen2.tests.reference import reference_config

    scaling = {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}
    raw = {
        **TINY["multi-head"],
        "hidden_size": 3584,
        "num_attention_heads": 28,
        "max_position_embeddings": 32768,
        "rope_theta": 1_000_000.0,
        "rope_scaling": scaling,
    }
    config = Qwen2Config.read(raw, "")
    assert config.max_position_embeddings == 131072
    theirs = Qwen2RotaryEmbedding(reference_config(raw))
    config.max_position_embeddings = 64
    ours = RotaryEmbedding(config)
    ours.finish_loading(torch.device("cpu"), torch.float32)
    cos, _ = theirs(torch.zeros(1), torch.arange(64)[None])
    torch.testing.assert_close(ours.cos_sin[:, :64], cos[0, :, :64], rtol=0, atol=2e-5)
    assert ours.cos_sin[0, 0].item() == pytest.approx(1.1386294)  # 0.1 · ln 4 + 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"use_sliding_window": True}, "use_sliding_window.*within a window is not supported.*false"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "must be 2 times full_attention"),
        ({"layer_types": ["full_attention"]}, "must be 2 times full_attention"),
        ({"use_mrope": True}, "use_mrope.*vision model"),
        ({"num_key_value_heads": 3}, "4 attention heads cannot share 3 KV heads"),
        ({"num_key_value_heads": None}, "num_key_value_heads.*is missing"),
        ({"head_dim": 15}, "15 is odd"),
        ({"hidden_act": "gelu"}, "hidden_act.*'gelu' is not the silu"),
        ({"quantization_config": {"bits": 4}}, "quantised safetensors.*use a GGUF file"),
        ({"num_hidden_layers": 0}, "num_hidden_layers.*0 is not between 1"),
        ({"attention_bias": False}, "unknown keys attention_bias"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 4.0}}, "'linear' is not supported"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "factor.*is missing"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "mscale": 1.0}}, "unknown keys mscale"),
        ({"rope_scaling": {"rope_type": "default"}}, "keep one of the two"),
    ],
)
def test_configurations_that_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        Qwen2Config.read({**TINY["grouped"], **change}, "config.json")


def test_both_spellings_of_rotary_settings_mean_the_same() -> None:
    new, old = (Qwen2Config.read(TINY[name], "") for name in ("yarn", "yarn-by-recipe"))
    assert new == old
    assert new.rope == RopeConfig(10_000.0, "yarn", 4.0, 64)
    assert new.max_position_embeddings == 256
    stated = {**TINY["yarn-by-recipe"], "max_position_embeddings": 128}
    assert Qwen2Config.read(stated, "").max_position_embeddings == 128


def test_gguf_metadata() -> None:
    raw = {**CODER_METADATA, "gguf.tensor_names": frozenset(CODER_GGUF["tensors"])}
    config = Qwen2Config.read(raw, "coder")
    # The class's defaults are this model; the file writes 1e-6 as a float32.
    assert config.rms_norm_eps == pytest.approx(1e-6, rel=1e-6)
    assert vars(config) | {"rms_norm_eps": 1e-6, "model_path": ""} == vars(Qwen2Config(model_path=""))
    yarn = {"qwen2.rope.scaling.type": "yarn", "qwen2.rope.scaling.factor": 4.0}
    assert Qwen2Config.read({**raw, **yarn}, "coder").max_position_embeddings == 131072
    for change, words in (
        ({"qwen2.rope.scaling.type": "linear"}, "'linear' is not supported"),
        ({"qwen2.rope.scaling.type": "yarn"}, "factor.*is missing"),
        ({"qwen2.rope.scaling.factor": 4.0}, "unknown keys rope.scaling.factor"),
        ({"qwen2.rope.dimension_count": 64}, "64 is not the head size 128"),
        ({"qwen2.attention.sliding_window": 4096}, "unknown keys attention.sliding_window"),
        ({"qwen2.pooling_type": 1}, "unknown keys pooling_type"),
    ):
        with pytest.raises(ModelFileError, match=words):
            Qwen2Config.read({**raw, **change}, "coder")
