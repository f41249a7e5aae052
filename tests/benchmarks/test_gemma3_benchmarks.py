"""Gemma 3's benchmarks: each is bound to its own plugin and runs on a model of it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.report import Report
from inference_pio.conformance.tiny_tokenizer import VOCAB_SIZE, write_tokenizer

_PACKAGE = "inference_pio.models.gemma3_text.benchmarks"
# Where the plugin is not there, neither are these tests.
SUITE = pytest.importorskip(f"{_PACKAGE}.workloads").SUITE
# The others are everybody's, and tested where they are.
_OWN = tuple(technique.name for technique in SUITE.techniques)


@pytest.fixture(scope="session")
def tiny_gemma3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in float32, a byte-level tokenizer, room for 2048 positions."""
    torch.manual_seed(7)
    config = Gemma3TextConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        layer_types=["sliding_attention", "full_attention"],
        sliding_window=32,
        head_dim=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.3,
    )
    folder = tmp_path_factory.mktemp("tiny-gemma3")
    Gemma3ForCausalLM(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def _measured(name: str, model: Path) -> Report:
    report: Report = import_module(f"{_PACKAGE}.benchmark_{name}").measure(
        Settings(model=str(model), device="cpu", quick=True, rounds=1, techniques=_OWN)
    )
    return report


def test_decoding_is_measured(tiny_gemma3: Path) -> None:
    assert _measured("inference_speed", tiny_gemma3).metrics.throughput_tokens_per_sec > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accuracy", "memory_usage", "power_efficiency", "throughput"])
def test_the_others_measure_something(tiny_gemma3: Path, name: str) -> None:
    report = _measured(name, tiny_gemma3)
    assert report.rows
    assert "tiny-gemma3" in report.model


@pytest.mark.slow
def test_every_technique_can_be_switched_off(tiny_gemma3: Path) -> None:
    rows = _measured("optimization_impact", tiny_gemma3).rows
    assert [row.what for row in rows] == list(_OWN)
