"""Qwen3-VL's weights, configurations and rotary tables as they come out of files."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
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
from inference_pio.models.qwen3_vl.config import Qwen3VLConfig, VisionConfig
from inference_pio.models.qwen3_vl.tests.case import PUBLISHED, TINY, tiny_config

_TEXT = "model.language_model."


def _weight(linear: Any) -> Tensor:
    assert not linear.packed.blocked
    return linear.packed.tensor


@pytest.mark.parametrize("tiny", ["grouped", "multi-head", "biased"])
@pytest.mark.parametrize("kind", ["safetensors", "sharded"])
def test_every_weight_is_where_it_belongs(subject: Subject, tiny: str, kind: Any) -> None:
    expected = dict(subject.reference(tiny).model.named_parameters())
    model = BareModel(subject.plugin(), subject.checkpoint(tiny, kind)).model
    text = model.model.language_model
    assert torch.equal(text.embed_tokens.weight, expected[f"{_TEXT}embed_tokens.weight"])
    head = f"{_TEXT}embed_tokens.weight" if TINY[tiny]["tie_word_embeddings"] else "lm_head.weight"
    assert torch.equal(_weight(model.lm_head), expected[head])
    for index, layer in enumerate(text.layers):
        prefix = f"{_TEXT}layers.{index}."
        for linear, parts in (
            (layer.self_attn.qkv_proj, [f"self_attn.{x}_proj" for x in "qkv"]),
            (layer.self_attn.o_proj, ["self_attn.o_proj"]),
            (layer.mlp.gate_up_proj, ["mlp.gate_proj", "mlp.up_proj"]),
            (layer.mlp.down_proj, ["mlp.down_proj"]),
        ):
            merged = torch.cat([expected[f"{prefix}{part}.weight"] for part in parts])
            assert torch.equal(_weight(linear), merged), f"{prefix}{parts}"
        for norm in ("self_attn.q_norm", "self_attn.k_norm", "input_layernorm", "post_attention_layernorm"):
            assert torch.equal(layer.get_submodule(norm).weight, expected[f"{prefix}{norm}.weight"])
    tower = dict(model.model.visual.named_parameters())
    theirs = {name: value for name, value in expected.items() if name.startswith("model.visual.")}
    assert {f"model.visual.{name}" for name in tower} == set(theirs)
    assert all(torch.equal(value, theirs[f"model.visual.{name}"]) for name, value in tower.items())


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


def test_a_merger_too_few_and_a_kernel_of_another_shape_are_named(subject: Subject, tmp_path: Path) -> None:
    merger, kernel = (
        "model.visual.deepstack_merger_list.1.linear_fc1.bias",
        "model.visual.patch_embed.proj.weight",
    )
    changes = {
        merger: None,
        kernel: torch.ones(32, 3, 2, 4, 5),
        f"{_TEXT}layers.0.mlp.up_proj.bias": torch.ones(96),
    }
    with pytest.raises(CheckpointMismatch) as mismatch:
        BareModel(subject.plugin(), _changed(subject.checkpoint("grouped"), tmp_path / "wrong", changes))
    assert mismatch.value.missing == (merger,)
    assert mismatch.value.unused == (f"{_TEXT}layers.0.mlp.up_proj.bias",)
    assert [name.partition(" ")[0] for name in mismatch.value.wrong_shape] == [kernel]


def test_a_stored_tied_head_must_be_the_embedding(subject: Subject, tmp_path: Path) -> None:
    source = subject.checkpoint("multi-head")
    table = safetensors.torch.load_file(source / "model.safetensors")[f"{_TEXT}embed_tokens.weight"]
    same = _changed(source, tmp_path / "same", {"lm_head.weight": table.clone()})
    assert torch.equal(_weight(BareModel(subject.plugin(), same).model.lm_head), table)
    with pytest.raises(CheckpointMismatch, match="lm_head"):
        BareModel(subject.plugin(), _changed(source, tmp_path / "other", {"lm_head.weight": table + 1}))


@pytest.mark.parametrize("tiny", sorted(TINY))
def test_rotary_table(subject: Subject, tiny: str) -> None:
    """Cosines and sines of every position are Transformers', in one axis and in three, scaled as there."""
    rotary = subject.reference(tiny).model.model.language_model.rotary_emb
    bare = BareModel(subject.plugin(), subject.checkpoint(tiny))
    ours = bare.model.model.language_model.rotary_emb
    drawn = torch.randint(256, (3, 40), generator=torch.Generator().manual_seed(2))
    batch = replace(bare.batch([(0, [0] * 40)]), rope_positions=drawn)
    for positions, (rows, table) in (
        (torch.arange(40).expand(3, -1), ours(replace(batch, rope_positions=None))),
        (drawn, ours(batch)),
    ):
        cos, sin = rotary(torch.zeros(1), positions[:, None])
        half = table.shape[1] // 2
        expected = torch.cat((cos[0, :, :half], sin[0, :, :half]), dim=-1)
        torch.testing.assert_close(table[rows], expected, rtol=0, atol=2e-5)
    assert ours.cos_sin.shape == (256, TINY[tiny]["text_config"]["head_dim"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"tie_word_embeddings": True},
            "text_config: tie_word_embeddings.*is True, and False beside text_config",
        ),
        ({"num_key_value_heads": 3}, "text_config: num_key_value_heads: 4 attention heads cannot share 3"),
        ({"head_dim": None}, "text_config: head_dim: is missing"),
        ({"head_dim": 15}, "15 is odd"),
        ({"hidden_act": "gelu"}, "text_config: hidden_act: 'gelu' is not supported, only silu"),
        ({"model_type": "qwen3_vl_moe_text"}, "model_type: 'qwen3_vl_moe_text' is not supported"),
        ({"num_experts": 128}, "text_config: unknown keys num_experts"),
        (
            {"use_sliding_window": True, "sliding_window": 4096},
            "unknown keys sliding_window, use_sliding_window",
        ),
        ({"rope_theta": None}, "text_config: rope_theta: is missing"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "rope_type: 'linear' is not supported"),
        ({"rope_scaling": {"rope_type": "mrope"}}, "rope_type: 'mrope' is not supported"),
        ({"rope_scaling": {"mrope_interleaved": False}}, "mrope_interleaved: must be true"),
        (
            {"rope_scaling": {"rope_type": "default"}},
            r"mrope_section: \[24, 20, 20\] does not share 16 pairs",
        ),
        ({"rope_scaling": {"mrope_section": [4, 6, 6]}}, r"\[4, 6, 6\] does not share 16 pairs"),
        ({"rope_scaling": {"mrope_section": [8, 8]}}, "must be three numbers of pairs"),
        ({"rope_scaling": {"mrope_section": [6, 5, 5], "mrope_axes": 3}}, "unknown keys mrope_axes"),
        ({"rope_parameters": {"rope_theta": 1.0}}, "keep one of the two"),
    ],
)
def test_text_configurations_that_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        Qwen3VLConfig.read(
            _without_empty(tiny_config({**TINY["grouped"]["text_config"], **change})), "config.json"
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"hidden_act": "gelu"},
            "vision_config: hidden_act: 'gelu' is not supported, only gelu_pytorch_tanh",
        ),
        ({"model_type": "qwen2_5_vl"}, "model_type: 'qwen2_5_vl' is not a qwen3_vl's"),
        ({"window_size": 112}, "vision_config: unknown keys window_size"),
        ({"fullatt_block_indexes": [7]}, "unknown keys fullatt_block_indexes"),
        (
            {"rope_parameters": {"rope_type": "axial", "rope_theta": 1e6}},
            "rope_parameters: .*not the axial kind",
        ),
        ({"in_channels": 4}, "in_channels: 4 is not between 3 and 3"),
        ({"patch_size": [4, 4]}, "patch_size: must be int"),
        ({"hidden_size": 40}, "hidden_size: 40 / 4 heads must be a multiple of 4"),
        ({"num_position_embeddings": 24}, "24 is no square"),
        ({"out_hidden_size": 32}, "out_hidden_size: 32 is not the 64 of the text's hidden_size"),
        ({"deepstack_visual_indexes": [2, 0]}, r"\[2, 0\] are not layers below 4, ascending"),
        ({"deepstack_visual_indexes": [0, 4]}, r"\[0, 4\] are not layers below 4"),
        ({"deepstack_visual_indexes": [0, True]}, "must be a list of layers"),
        ({"deepstack_visual_indexes": [0, 1, 2]}, "3 sets of features .* the text has 3: one more"),
        ({"depth": None}, "vision_config: depth: is missing"),
    ],
)
def test_vision_configurations_that_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        Qwen3VLConfig.read(tiny_config({}, change), "config.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_token_id": None}, "image_token_id: is missing"),
        ({"image_token_id": 5000}, "image_token_id: 5000 is not in the vocabulary of"),
        ({"audio_config": {}}, "unknown keys audio_config"),
        ({"text_config": "qwen3"}, "text_config: must be an object"),
        ({"quantization_config": {"bits": 4}}, "quantised safetensors are not supported.*option quantize"),
    ],
)
def test_configurations_that_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        Qwen3VLConfig.read({**TINY["grouped"], **change}, "config.json")


def _without_empty(raw: Mapping[str, Any]) -> dict[str, Any]:
    text = {key: value for key, value in raw["text_config"].items() if value is not None}
    return {**raw, "text_config": text}


def test_both_spellings_of_rotary_settings_mean_the_same() -> None:
    old = Qwen3VLConfig.read(TINY["yarn"], "")
    rope = {**TINY["yarn"]["text_config"]["rope_scaling"], "rope_theta": 10_000.0}
    assert Qwen3VLConfig.read(tiny_config({"rope_parameters": rope}), "") == old
    assert old.rope == RopeConfig(10_000.0, "yarn", 4.0, 64)
    assert old.max_position_embeddings == 256
    more = tiny_config({"rope_scaling": {**rope, "factor": 6.0}})
    assert Qwen3VLConfig.read(more, "").max_position_embeddings == 384


def test_the_defaults_are_the_default_models() -> None:
    config = Qwen3VLConfig.read(PUBLISHED["configs"]["Qwen3-VL-2B-Instruct"], "")
    assert vars(config) == vars(Qwen3VLConfig())
    larger = Qwen3VLConfig.read(PUBLISHED["configs"]["Qwen3-VL-4B-Instruct"], "")
    assert larger.vision == VisionConfig(out_hidden_size=2560)
