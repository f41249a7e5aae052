"""Qwen3-MoE's benchmarks, and the file of random weights that the experts are measured on."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from transformers import Qwen3MoeConfig as TheirConfig
from transformers import Qwen3MoeForCausalLM

import experts
from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.report import Report
from inference_pio.conformance.checkpoint import HeaderOnly
from inference_pio.conformance.tiny_tokenizer import VOCAB_SIZE, write_tokenizer
from inference_pio.loader.checkpoint import open_checkpoint
from inference_pio.loader.raw_config import raw_config
from inference_pio.loader.weights import audit
from inference_pio.parallel import Shard
from inference_pio.plugin.registry import create_plugin

_PLUGIN = "inference_pio.models.qwen3_moe"
# Where the plugin is not there, neither are these tests.
SUITE = pytest.importorskip(f"{_PLUGIN}.benchmarks.workloads").SUITE
# The others are everybody's, and tested where they are.
_OWN = tuple(technique.name for technique in SUITE.techniques)
Qwen3MoeConfig = pytest.importorskip(f"{_PLUGIN}.config").Qwen3MoeConfig


@pytest.fixture(scope="session")
def tiny_qwen3_moe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in float32, a byte-level tokenizer, room for 2048 positions."""
    torch.manual_seed(7)
    config = TheirConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        max_position_embeddings=2048,
        initializer_range=0.3,
    )
    folder = tmp_path_factory.mktemp("tiny-qwen3-moe")
    Qwen3MoeForCausalLM(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def _measured(name: str, model: Path) -> Report:
    module = import_module(f"inference_pio.models.qwen3_moe.benchmarks.benchmark_{name}")
    report: Report = module.measure(
        Settings(model=str(model), device="cpu", quick=True, rounds=1, techniques=_OWN)
    )
    return report


def test_decoding_is_measured(tiny_qwen3_moe: Path) -> None:
    assert _measured("inference_speed", tiny_qwen3_moe).metrics.throughput_tokens_per_sec > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accuracy", "memory_usage", "power_efficiency", "throughput"])
def test_the_others_measure_something(tiny_qwen3_moe: Path, name: str) -> None:
    assert _measured(name, tiny_qwen3_moe).rows


@pytest.mark.slow
def test_every_technique_can_be_switched_off(tiny_qwen3_moe: Path) -> None:
    rows = _measured("optimization_impact", tiny_qwen3_moe).rows
    assert [row.what for row in rows] == list(_OWN)


def test_the_mixture_that_is_measured_is_qwen3_coder() -> None:
    """Names and shapes of the random file are those of the published model in a GGUF file, all 48 layers of it."""
    plugin = create_plugin("qwen3_moe")
    config = Qwen3MoeConfig()
    with torch.device("meta"):
        model = plugin.build_model(config, Shard())
    parameters = {name: tuple(value.shape) for name, value in model.named_parameters()}
    shapes = {tensor.name: tensor.shape for tensor in experts.tensors(config.num_hidden_layers)}
    audit(parameters, HeaderOnly.of("random", "gguf", shapes), plugin.weight_map(config))


def test_the_random_file_says_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HIDDEN", 256), ("VOCABULARY", 300), ("INNER", 256), ("EXPERTS", 9)):
        monkeypatch.setattr(experts, name, value)
    path = tmp_path / "x.gguf"
    experts.write_model(path, 1)
    with open_checkpoint(path) as checkpoint:
        config = create_plugin("qwen3_moe").read_config(raw_config(checkpoint, path), str(path))
        assert (config.num_experts, config.num_experts_per_tok, config.moe_intermediate_size) == (9, 8, 256)
        for name in ("blk.0.ffn_up_exps.weight", "output.weight"):
            values = checkpoint.read(name, torch.float32)
            assert values.isfinite().all()
            assert 0.5 < values.std() * 256**0.5 < 2, "as large as trained weights are"
