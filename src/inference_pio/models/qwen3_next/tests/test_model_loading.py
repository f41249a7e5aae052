"""Qwen3-Next's weights and configurations as they come out of files."""

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
from inference_pio.llm import LLM
from inference_pio.models.qwen3_next.config import Qwen3NextConfig
from inference_pio.models.qwen3_next.linear_optimizations.weight_layout import MTP, DenseMap
from inference_pio.models.qwen3_next.tests.case import CODER_NEXT, TINY


def _weight(linear: Any) -> Tensor:
    assert not linear.packed.blocked
    return linear.packed.tensor


@pytest.mark.parametrize("tiny", ["three-to-one", "mixed"])
@pytest.mark.parametrize("kind", ["safetensors", "sharded"])
def test_experts_are_stacked_and_projections_merged(subject: Subject, tiny: str, kind: Any) -> None:
    expected = dict(subject.reference(tiny).model.named_parameters())
    model = BareModel(subject.plugin(), subject.checkpoint(tiny, kind)).model
    stacked = 0
    for index, layer in enumerate(model.model.layers):
        prefix = f"model.layers.{index}."
        if hasattr(layer.mlp, "experts"):
            stacked += 1
            for name in ("gate_up_proj", "down_proj"):
                held = getattr(layer.mlp.experts, name)
                assert torch.equal(held, expected[f"{prefix}mlp.experts.{name}"])
            assert torch.equal(layer.mlp.gate.weight, expected[f"{prefix}mlp.gate.weight"])
        if hasattr(layer, "self_attn"):
            merged = torch.cat([expected[f"{prefix}self_attn.{x}_proj.weight"] for x in "qkv"])
            assert torch.equal(_weight(layer.self_attn.qkv_proj), merged)
        else:
            conv = expected[f"{prefix}linear_attn.conv1d.weight"]
            assert torch.equal(layer.linear_attn.conv1d.weight, conv)
    assert stacked == {"three-to-one": 4, "mixed": 2}[tiny]


def _with(source: Path, target: Path, tensors: dict[str, Tensor]) -> Path:
    shutil.copytree(source, target)
    held = safetensors.torch.load_file(source / "model.safetensors")
    safetensors.torch.save_file({**held, **tensors}, target / "model.safetensors")
    return target


def test_the_layer_for_guesses_is_left_out(subject: Subject, tmp_path: Path) -> None:
    """Whatever of it there is, and nothing that only looks like it."""
    mtp = {name.replace("*", "0"): torch.zeros(2) for name in MTP}
    assert {"mtp.fc.weight", "mtp.layers.0.mlp.experts.0.up_proj.weight"} <= mtp.keys()
    source = subject.checkpoint("three-to-one")
    ids = [5, 9, 13]
    plain = BareModel(subject.plugin(), source).prefill(ids)
    found = BareModel(subject.plugin(), _with(source, tmp_path / "mtp", mtp)).prefill(ids)
    assert torch.equal(found, plain)
    other = _with(source, tmp_path / "other", {"mtp.layers.0.linear_attn.A_log": torch.zeros(2)})
    with pytest.raises(CheckpointMismatch, match=r"mtp\.layers\.0\.linear_attn\.A_log"):
        BareModel(subject.plugin(), other)


def test_what_stays_float32_in_a_half_precision_model(tiny_path: Path) -> None:
    with LLM(str(tiny_path), dtype="bfloat16", skip_tokenizer_init=True, kv_cache_memory_gb=0.01) as llm:
        model = llm.plugin.load_model()
        exact = {name for name, value in model.named_parameters() if value.dtype == torch.float32}
        # What the plan counted is what there is, those of 4 bytes too.
        weights = llm.plugin.get_memory_stats()["weights_bytes"]
        assert weights == llm.plugin.runtime.plan.weights
    layers = [f"model.layers.{index}.linear_attn." for index in range(3)]
    names = ("A_log", "dt_bias", "conv1d.weight", "norm.weight")
    assert exact == {f"{layer}{name}" for layer in layers for name in names}


def test_routers_and_gates_stay_dense_in_a_quantised_model(tiny_path: Path) -> None:
    options = {"quantize": "int8", "skip_tokenizer_init": True, "kv_cache_memory_gb": 0.01}
    with LLM(str(tiny_path), **options) as llm:
        model = llm.plugin.load_model()
        maps = [module for module in model.modules() if isinstance(module, DenseMap)]
        assert len(maps) == 4 * 2 + 3
        assert all(one.weight.dtype == torch.float32 for one in maps)
        packed = llm.plugin.runtime.prepared.packing.kinds
        assert "model.layers.0.linear_attn.in_proj_qkvz.weight" in packed
        answer = llm.generate({"prompt_token_ids": [3, 4, 5]})[0].outputs[0]
        assert answer.token_ids


def test_rotary_table(subject: Subject) -> None:
    """Cosines and sines of every position are Transformers', as wide as the part of a head that turns."""
    for tiny, width in (("three-to-one", 8), ("mixed", 16), ("two-to-one", 32)):
        rotary = subject.reference(tiny).model.model.rotary_emb
        table = BareModel(subject.plugin(), subject.checkpoint(tiny)).model.model.rotary_emb.cos_sin
        cos, sin = rotary(torch.zeros(1), torch.arange(256)[None])
        expected = torch.cat((cos[0, :, : width // 2], sin[0, :, : width // 2]), dim=-1)
        assert table.shape == (256, width)
        torch.testing.assert_close(table, expected, rtol=0, atol=2e-5)


def test_the_defaults_are_coder_next() -> None:
    read = Qwen3NextConfig.read(CODER_NEXT, "")
    assert vars(read) == vars(Qwen3NextConfig(pad_token_id=None))
    assert (read.key_width, read.value_width, read.has_experts, read.keeps_state) == (2048, 4096, True, True)
    by_interval = {key: value for key, value in CODER_NEXT.items() if key != "layer_types"}
    assert Qwen3NextConfig.read(by_interval, "") == read


def test_which_layers_are_dense() -> None:
    def dense(**changes: Any) -> tuple[int, ...]:
        return Qwen3NextConfig.read({**TINY["three-to-one"], **changes}, "").dense_layers

    assert dense() == ()
    assert dense(mlp_only_layers=[2, 0]) == (0, 2)
    assert dense(decoder_sparse_step=2) == (0, 2)
    assert dense(decoder_sparse_step=3, mlp_only_layers=[2]) == (0, 1, 2, 3)
    assert dense(num_experts=0) == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_act": "gelu"}, "hidden_act.*'gelu' is not the silu"),
        ({"use_sliding_window": True}, "use_sliding_window.*see everything"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantised safetensors.*use the bfloat16"),
        ({"layer_types": ["full_attention"]}, "layer_types.*each of 4 layers"),
        (
            {"layer_types": ["sliding_attention"] * 4},
            "sliding_attention: there are linear_attention and full",
        ),
        (
            {"layer_types": ["linear_attention"] * 4, "full_attention_interval": 4},
            "full_attention_interval.*4 contradicts layer_types",
        ),
        ({"mlp_only_layers": [4]}, "mlp_only_layers.*layers from 0 to 3"),
        ({"mlp_only_layers": "none"}, "mlp_only_layers.*layers from 0 to 3"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok.*9 of 8 experts"),
        ({"linear_num_value_heads": 6}, "linear_num_value_heads.*6 value heads cannot share 4"),
        ({"linear_conv_kernel_dim": 1}, "linear_conv_kernel_dim.*1 is not between 2"),
        ({"num_key_value_heads": 3}, "4 attention heads cannot share 3 KV heads"),
        ({"partial_rotary_factor": 1.5}, "partial_rotary_factor.*more than a whole head"),
        ({"partial_rotary_factor": 0.1}, "partial_rotary_factor.*0.1 of 32 dimensions are 3"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type.*'yarn' is not supported"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "'linear' is not supported"),
        ({"rope_parameters": {"mrope_section": [1, 2, 3]}}, "unknown keys mrope_section"),
        (
            {"rope_parameters": {"rope_theta": 1e4}, "rope_scaling": {"type": "default"}},
            "keep one of the two",
        ),
        ({"attn_output_gate": True}, "unknown keys attn_output_gate"),
        ({"mamba_ssm_dtype": "float32"}, "unknown keys mamba_ssm_dtype"),
        ({"moe_intermediate_size": None}, "moe_intermediate_size.*is missing"),
    ],
)
def test_configurations_that_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        Qwen3NextConfig.read({**TINY["three-to-one"], **change}, "config.json")
