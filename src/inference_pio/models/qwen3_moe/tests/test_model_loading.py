"""Qwen3-MoE's weights, configurations and rotary tables as they come out of files."""

from __future__ import annotations

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
from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig, RopeConfig
from inference_pio.models.qwen3_moe.tests.case import CODER, TINY


def _weight(linear: Any) -> Tensor:
    assert not linear.packed.blocked
    return linear.packed.tensor


@pytest.mark.parametrize(
    ("tiny", "kind"),
    [
        *((tiny, kind) for tiny in ("experts", "tied") for kind in ("safetensors", "sharded", "gguf")),
        ("dense-between", "safetensors"),
    ],
)
def test_every_weight_is_where_it_belongs(subject: Subject, tiny: str, kind: Any) -> None:
    expected = dict(subject.reference(tiny).model.named_parameters())
    model = BareModel(subject.plugin(), subject.checkpoint(tiny, kind)).model
    head = "model.embed_tokens.weight" if TINY[tiny]["tie_word_embeddings"] else "lm_head.weight"
    assert torch.equal(_weight(model.lm_head), expected[head])
    assert torch.equal(model.model.embed_tokens.weight, expected["model.embed_tokens.weight"])
    sparse = 0
    for index, layer in enumerate(model.model.layers):
        prefix = f"model.layers.{index}."
        merged = torch.cat([expected[f"{prefix}self_attn.{x}_proj.weight"] for x in "qkv"])
        assert torch.equal(_weight(layer.self_attn.qkv_proj), merged)
        for norm in ("q_norm", "k_norm"):
            assert torch.equal(
                getattr(layer.self_attn, norm).weight, expected[f"{prefix}self_attn.{norm}.weight"]
            )
        if f"{prefix}mlp.gate.weight" not in expected:
            assert torch.equal(_weight(layer.mlp.down_proj), expected[f"{prefix}mlp.down_proj.weight"])
            continue
        sparse += 1
        assert torch.equal(layer.mlp.gate.weight, expected[f"{prefix}mlp.gate.weight"])
        for name in ("gate_up_proj", "down_proj"):
            assert torch.equal(getattr(layer.mlp.experts, name), expected[f"{prefix}mlp.experts.{name}"]), (
                f"{prefix}{name}"
            )
    assert sparse == 2, "two layers of each of these have experts"


def test_experts_are_neither_left_out_nor_added(subject: Subject, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(subject.checkpoint("experts"), wrong)
    tensors = safetensors.torch.load_file(wrong / "model.safetensors")
    experts = "model.layers.1.mlp.experts"
    tensors[f"{experts}.8.up_proj.weight"] = tensors.pop(f"{experts}.5.up_proj.weight")
    tensors["model.layers.0.mlp.shared_expert.up_proj.weight"] = torch.ones(48, 64)
    safetensors.torch.save_file(tensors, wrong / "model.safetensors")
    with pytest.raises(CheckpointMismatch) as mismatch:
        BareModel(subject.plugin(), wrong)
    assert mismatch.value.missing == (f"1 of 16 parts of {experts}.gate_up_proj",)
    assert set(mismatch.value.unused) == {
        f"{experts}.8.up_proj.weight",
        "model.layers.0.mlp.shared_expert.up_proj.weight",
    }


@pytest.mark.parametrize("tiny", sorted(TINY))
def test_rotary_table(subject: Subject, tiny: str) -> None:
    """Cosines and sines of every position are Transformers', scaled as there, from each format."""
    rotary = subject.reference(tiny).model.model.rotary_emb
    for kind in ("safetensors", "gguf") if tiny in subject.case.gguf else ("safetensors",):
        table = BareModel(subject.plugin(), subject.checkpoint(tiny, kind)).model.model.rotary_emb.cos_sin
        assert table.shape == (256, TINY[tiny].get("head_dim", 16))
        cos, sin = rotary(torch.zeros(1), torch.arange(256)[None])
        half = table.shape[1] // 2
        expected = torch.cat((cos[0, :, :half], sin[0, :, :half]), dim=-1)
        torch.testing.assert_close(table, expected, rtol=0, atol=2e-5)
    if tiny.startswith("yarn"):
        slowed = subject.reference("tied").model.model.rotary_emb.inv_freq / rotary.inv_freq
        assert slowed.min() == 1, "no frequency of this reference stays as it is"
        assert slowed.max() == pytest.approx(4), "no frequency of it is slowed by the whole factor"


def test_the_published_recipe_for_long_texts() -> None:
    """Qwen3-30B-A3B with the rope_scaling of its model card reaches 4 · 32,768 positions, at Transformers' angles."""
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeRotaryEmbedding

    from inference_pio.models.qwen3_moe.rotary_embeddings.rotary_embedding import RotaryEmbedding
    from inference_pio.models.qwen3_moe.tests.reference import reference_config

    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    raw = {**CODER, "max_position_embeddings": 40960, "rope_theta": 1_000_000.0, "rope_scaling": scaling}
    config = Qwen3MoeConfig.read(raw, "")
    assert config.max_position_embeddings == 131072
    theirs = Qwen3MoeRotaryEmbedding(reference_config(raw))
    config.max_position_embeddings = 64
    ours = RotaryEmbedding(config)
    ours.finish_loading(torch.device("cpu"), torch.float32)
    cos, _ = theirs(torch.zeros(1), torch.arange(64)[None])
    torch.testing.assert_close(ours.cos_sin[:, :64], cos[0, :, :64], rtol=0, atol=2e-5)


def test_the_defaults_are_the_published_coder() -> None:
    config = Qwen3MoeConfig.read(CODER, "coder")
    assert vars(config) | {"model_path": ""} == vars(Qwen3MoeConfig(model_path=""))
    assert all(config.has_experts(layer) for layer in range(48))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attention_bias": True}, "attention_bias.*with a bias are not supported"),
        ({"qkv_bias": True}, "qkv_bias.*qwen2_moe"),
        ({"use_qk_norm": False}, "use_qk_norm.*qwen2_moe"),
        ({"use_sliding_window": True}, "use_sliding_window.*window is not supported"),
        ({"shared_expert_intermediate_size": 96}, "shared_expert_intermediate_size.*every token"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok.*9 of 8 experts"),
        ({"num_experts": None}, "num_experts.*is missing"),
        ({"num_local_experts": 4}, "num_local_experts.*num_experts is not 4"),
        ({"mlp_only_layers": [2]}, "mlp_only_layers.*from 0 to 1, is .2."),
        ({"mlp_only_layers": [True]}, "mlp_only_layers"),
        ({"decoder_sparse_step": 0}, "decoder_sparse_step.*0 is not between 1"),
        ({"norm_topk_prob": 1}, "norm_topk_prob.*must be bool"),
        ({"num_key_value_heads": 3}, "4 attention heads cannot share 3 KV heads"),
        ({"head_dim": 15}, "15 is odd"),
        ({"hidden_act": "gelu"}, "hidden_act.*'gelu' is not the silu"),
        ({"n_group": 8}, "unknown keys n_group"),
        ({"routed_scaling_factor": 2.5}, "unknown keys routed_scaling_factor"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 4.0}}, "'linear' is not supported"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "mscale": 1.0}}, "unknown keys mscale"),
        ({"rope_scaling": {"rope_type": "default"}}, "keep one of the two"),
    ],
)
def test_configurations_that_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        Qwen3MoeConfig.read({**TINY["experts"], **change}, "config.json")


def test_the_published_8_bit_floats_are_refused_by_their_key() -> None:
    """Of Qwen3-30B-A3B-FP8's config.json, which lists its unquantised modules besides."""
    stated = {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [128, 128],
    }
    with pytest.raises(ModelFileError, match="quantization_config.*int8 or int4.*GGUF"):
        Qwen3MoeConfig.read({**CODER, "quantization_config": stated}, "config.json")


def test_both_spellings_of_rotary_settings_and_of_experts_mean_the_same() -> None:
    new, old = (Qwen3MoeConfig.read(TINY[name], "") for name in ("yarn", "yarn-by-recipe"))
    assert new == old
    assert new.rope == RopeConfig(10_000.0, "yarn", 4.0, 64)
    by_5 = {key: value for key, value in TINY["experts"].items() if key != "num_experts"}
    by_5["num_local_experts"] = 8
    assert Qwen3MoeConfig.read(by_5, "") == Qwen3MoeConfig.read(TINY["experts"], "")


def test_gguf_metadata() -> None:
    """What llama.cpp's converter writes for Qwen3-Coder-30B-A3B."""
    facts = {
        "block_count": 48,
        "context_length": 262144,
        "embedding_length": 2048,
        "feed_forward_length": 5472,
        "attention.head_count": 32,
        "attention.head_count_kv": 4,
        "rope.freq_base": 10_000_000.0,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "expert_used_count": 8,
        "attention.key_length": 128,
        "attention.value_length": 128,
        "expert_count": 128,
        "expert_feed_forward_length": 768,
        "expert_shared_feed_forward_length": 0,
    }
    raw = {f"qwen3moe.{key}": value for key, value in facts.items()}
    raw |= {"general.architecture": "qwen3moe", "tokenizer.ggml.tokens": range(151936)}
    raw["gguf.tensor_names"] = frozenset({"output.weight"})
    config = Qwen3MoeConfig.read(raw, "coder")
    assert vars(config) | {"model_path": ""} == vars(Qwen3MoeConfig(model_path=""))
    for change, words in (
        ({"rope.scaling.type": "linear"}, "'linear' is not supported"),
        ({"rope.scaling.type": "yarn"}, "factor.*is missing"),
        ({"rope.dimension_count": 64}, "64 is not the head size 128"),
        ({"expert_shared_count": 1}, "expert_shared_count.*every token"),
        ({"expert_gating_func": 2}, "expert_gating_func.*softmax"),
        ({"expert_weights_scale": 2.5}, "expert_weights_scale.*not scaled"),
        ({"expert_used_count": 200}, "200 of 128"),
        ({"expert_group_count": 4}, "unknown keys expert_group_count"),
    ):
        with pytest.raises(ModelFileError, match=words):
            Qwen3MoeConfig.read({**raw, **{f"qwen3moe.{key}": value for key, value in change.items()}}, "x")
