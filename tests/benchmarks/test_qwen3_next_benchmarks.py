"""Qwen3-Next's benchmarks: each is bound to its own plugin and runs on a model of it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.report import Report
from inference_pio.conformance.tiny_tokenizer import VOCAB_SIZE, write_tokenizer

_PACKAGE = "inference_pio.models.qwen3_next.benchmarks"
# Where the plugin is not there, neither are these tests.
SUITE = pytest.importorskip(f"{_PACKAGE}.workloads").SUITE
# The others are everybody's, and tested where they are.
_OWN = tuple(technique.name for technique in SUITE.techniques)


@pytest.fixture(scope="session")
def tiny_qwen3_next(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights and a config.json as Transformers writes it, a byte-level tokenizer, room for 2048 positions."""
    torch.manual_seed(7)
    config = Qwen3NextConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=64,
        head_dim=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        linear_key_head_dim=16,
        linear_value_head_dim=16,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
        max_position_embeddings=2048,
        initializer_range=0.3,
    )
    folder = tmp_path_factory.mktemp("tiny-qwen3-next")
    Qwen3NextForCausalLM(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def _measured(name: str, model: Path) -> Report:
    module = import_module(f"inference_pio.models.qwen3_next.benchmarks.benchmark_{name}")
    report: Report = module.measure(
        Settings(model=str(model), device="cpu", quick=True, rounds=1, techniques=_OWN)
    )
    return report


def test_decoding_is_measured(tiny_qwen3_next: Path) -> None:
    assert _measured("inference_speed", tiny_qwen3_next).metrics.throughput_tokens_per_sec > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accuracy", "memory_usage", "power_efficiency", "throughput"])
def test_the_others_measure_something(tiny_qwen3_next: Path, name: str) -> None:
    report = _measured(name, tiny_qwen3_next)
    assert report.rows
    assert "tiny-qwen3-next" in report.model


@pytest.mark.slow
def test_every_technique_can_be_switched_off(tiny_qwen3_next: Path) -> None:
    rows = _measured("optimization_impact", tiny_qwen3_next).rows
    assert [row.what for row in rows] == list(_OWN)
