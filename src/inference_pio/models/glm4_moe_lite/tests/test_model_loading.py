"""Weights, configurations and rotary tables of glm4_moe_lite as they come out of files."""

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
from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.models.glm4_moe_lite.tests.case import GLM_4_7_FLASH, TINY, by_transformers


def _weight(linear: Any) -> Tensor:
    assert not linear.packed.blocked
    tensor: Tensor = linear.packed.tensor
    return tensor


@pytest.mark.parametrize("tiny", sorted(TINY))
def test_every_weight_is_where_it_belongs(subject: Subject, tiny: str) -> None:
    """From the file itself: what is merged, what is taken apart, what is stacked."""
    held = safetensors.torch.load_file(subject.checkpoint(tiny) / "model.safetensors")
    model = BareModel(subject.plugin(), subject.checkpoint(tiny)).model
    for index, layer in enumerate(model.model.layers):
        name = f"model.layers.{index}."
        attention, experts = f"{name}self_attn.", f"{name}mlp.experts."
        down = f"{attention}kv_a_proj_with_mqa."
        if TINY[tiny]["q_lora_rank"] is None:
            assert torch.equal(_weight(layer.self_attn.q_proj), held[f"{attention}q_proj.weight"])
            assert layer.self_attn.q_proj.bias is None
            assert torch.equal(_weight(layer.self_attn.kv_a_proj_with_mqa), held[f"{down}weight"])
        else:
            merged = torch.cat((held[f"{attention}q_a_proj.weight"], held[f"{down}weight"]))
            assert torch.equal(_weight(layer.self_attn.qkv_a_proj), merged)
        _check_up_projection(layer.self_attn.kv_b_proj, held[f"{attention}kv_b_proj.weight"], TINY[tiny])
        if (stored := f"{experts}0.down_proj.weight") in held:
            assert torch.equal(layer.mlp.experts.down_proj[0], held[stored])
            both = [held[f"{experts}7.{part}_proj.weight"] for part in ("gate", "up")]
            assert torch.equal(layer.mlp.experts.gate_up_proj[7], torch.cat(both))


def _check_up_projection(module: Any, stored: Tensor, raw: Mapping[str, Any]) -> None:
    """Its two parts are the stored rows, head by head, and the only place where they are kept."""
    k_NPC, v_NVC = module.parts()
    heads = stored.view(raw["num_attention_heads"], -1, raw["kv_lora_rank"])
    assert torch.equal(k_NPC, heads[:, : raw["qk_nope_head_dim"]])
    assert torch.equal(v_NVC, heads[:, raw["qk_nope_head_dim"] :])
    assert sorted(name for name, _ in module.named_parameters()) == ["keys", "values"]
    kept = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in (k_NPC, v_NVC)}
    assert sum(kept.values()) == stored.nbytes


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


def test_no_expert_and_no_bias_is_left_out_or_added(subject: Subject, tmp_path: Path) -> None:
    layer = "model.layers.1."
    changes = {
        f"{layer}mlp.experts.3.up_proj.weight": None,
        f"{layer}mlp.experts.8.up_proj.weight": torch.ones(48, 64),
        f"{layer}self_attn.o_proj.bias": torch.ones(64),
        f"{layer}mlp.gate.e_score_correction_bias": None,
    }
    wrong = _changed(subject.checkpoint("low-rank"), tmp_path / "wrong", changes)
    with pytest.raises(CheckpointMismatch) as mismatch:
        BareModel(subject.plugin(), wrong)
    assert set(mismatch.value.missing) == {
        f"1 of 16 parts of {layer}mlp.experts.gate_up_proj",
        f"{layer}mlp.gate.e_score_correction_bias",
    }
    assert set(mismatch.value.unused) == {
        f"{layer}mlp.experts.8.up_proj.weight",
        f"{layer}self_attn.o_proj.bias",
    }


def test_layers_that_predict_further_tokens_are_left_out(subject: Subject, tmp_path: Path) -> None:
    """Where the configuration states one, with the tensors that such a layer has and no others."""
    source = subject.checkpoint("low-rank")
    raw = {**TINY["low-rank"], "num_nextn_predict_layers": 1}
    shapes = {name: shape for name, shape in by_transformers(raw).items() if ".layers.3." in name}
    assert len(shapes) > 30
    extra = {name: torch.full(shape, float("nan")) for name, shape in shapes.items()}
    with pytest.raises(CheckpointMismatch) as mismatch:
        BareModel(subject.plugin(), _changed(source, tmp_path / "unstated", extra))
    assert set(mismatch.value.unused) == set(shapes)
    stated = _changed(source, tmp_path / "stated", extra)
    _state(stated, raw)
    prompt = list(range(40))
    found = BareModel(subject.plugin(), stated).prefill(prompt)
    assert torch.equal(found, BareModel(subject.plugin(), source).prefill(prompt))
    odd = "model.layers.3.self_attn.indexer.weight"
    foreign = _changed(stated, tmp_path / "foreign", {odd: torch.ones(3)})
    with pytest.raises(CheckpointMismatch, match=odd):
        BareModel(subject.plugin(), foreign)


def _state(directory: Path, raw: Mapping[str, Any]) -> None:
    import json

    (directory / "config.json").write_text(json.dumps(raw))


@pytest.mark.parametrize("tiny", sorted(TINY))
def test_rotary_table(subject: Subject, tiny: str) -> None:
    rotary = subject.reference(tiny).model.model.rotary_emb
    table = BareModel(subject.plugin(), subject.checkpoint(tiny)).model.model.rotary_emb.cos_sin
    cos, sin = rotary(torch.zeros(1), torch.arange(len(table))[None])
    half = TINY[tiny]["qk_rope_head_dim"] // 2
    assert table.shape == (256, 2 * half)
    torch.testing.assert_close(table, torch.cat((cos[0, :, :half], sin[0, :, :half]), dim=-1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope_type.*'yarn' is not supported"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear"}}, "rope_type.*'linear'"),
        ({"rope_parameters": {"mscale": 1.0}}, "unknown keys mscale"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor.*0.5 is not supported"),
        ({"rope_scaling": {"rope_type": "default"}}, "keep one of the two"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor.*0.5 is not supported"),
        ({"topk_method": "greedy"}, "topk_method.*'greedy' is not supported"),
        ({"scoring_func": "softmax"}, "scoring_func.*'softmax' is not supported"),
        ({"moe_layer_freq": 2}, "moe_layer_freq.*2 is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act.*'gelu' is not supported"),
        ({"quantization_config": {"bits": 4}}, "quantization_config.*quantised safetensors"),
        ({"num_key_value_heads": 2}, "num_key_value_heads.*2 contradicts.*4"),
        ({"head_dim": 16}, "head_dim.*16 contradicts.*4"),
        ({"qk_head_dim": 12}, "qk_head_dim.*12 contradicts.*16"),
        ({"index_topk": 2048}, "unknown keys index_topk"),
        ({"use_qk_norm": True}, "unknown keys use_qk_norm"),
        ({"kv_lora_rank": 31}, "kv_lora_rank.*31 is odd"),
        ({"kv_lora_rank": None}, "kv_lora_rank.*is missing"),
        ({"n_group": 3}, "n_group.*8 experts cannot lie in 3"),
        ({"n_group": 8}, "n_group.*8 experts cannot lie in 8"),
        ({"topk_group": 2}, "topk_group.*2 of 1 groups"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok.*9 experts cannot be chosen from the 8"),
        ({"n_group": 4, "topk_group": 1}, "num_experts_per_tok.*3 experts cannot be chosen from the 2"),
        ({"n_shared_experts": 0}, "n_shared_experts.*0 is not between"),
        ({"mlp_layer_types": ["dense", "sparse"]}, "mlp_layer_types.*3 times dense or sparse"),
        ({"mlp_layer_types": ["dense", "sparse", "linear"]}, "mlp_layer_types.*3 times dense or sparse"),
        ({"mlp_layer_types": ["dense", "dense", "sparse"]}, "first_k_dense_replace.*1 contradicts"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_configurations_that_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        Glm4MoeLiteConfig.read({**TINY["low-rank"], **change}, "config.json")


def test_the_defaults_are_the_published_model() -> None:
    config = Glm4MoeLiteConfig.read(GLM_4_7_FLASH, "")
    assert config.pad_token_id == 154820
    assert vars(config) | {"pad_token_id": None} == vars(Glm4MoeLiteConfig())


def test_which_layers_are_dense() -> None:
    raw = {key: value for key, value in TINY["low-rank"].items() if key != "first_k_dense_replace"}
    dense, sparse = "dense", "sparse"
    for change, expected in (
        ({}, (dense, sparse, sparse)),
        ({"first_k_dense_replace": 0}, (sparse,) * 3),
        ({"first_k_dense_replace": 9}, (dense,) * 3),
        ({"mlp_layer_types": [sparse, dense, sparse]}, (sparse, dense, sparse)),
        ({"mlp_layer_types": [dense, dense, sparse], "first_k_dense_replace": 2}, (dense, dense, sparse)),
    ):
        assert Glm4MoeLiteConfig.read({**raw, **change}, "").mlp_layer_types == expected


def test_both_spellings_of_rotary_settings_mean_the_same() -> None:
    raw = {key: value for key, value in TINY["low-rank"].items() if key != "rope_parameters"}
    old = Glm4MoeLiteConfig.read({**raw, "rope_theta": 1_000_000}, "")
    assert old == Glm4MoeLiteConfig.read(TINY["low-rank"], "")
