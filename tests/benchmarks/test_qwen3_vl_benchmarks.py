"""Qwen3-VL's benchmarks: each is bound to its own plugin and runs on a model of it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.report import Report
from inference_pio.conformance.tiny_tokenizer import VOCAB_SIZE, write_tokenizer

_PACKAGE = "inference_pio.models.qwen3_vl.benchmarks"
# Where the plugin is not there, neither are these tests.
SUITE = pytest.importorskip(f"{_PACKAGE}.workloads").SUITE
# The others are everybody's, and tested where they are.
_OWN = tuple(technique.name for technique in SUITE.techniques)


@pytest.fixture(scope="session")
def tiny_qwen3_vl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in float32, a byte-level tokenizer, room for 2048 positions."""
    torch.manual_seed(7)
    text = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 2048,
        "initializer_range": 0.3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [6, 5, 5]},
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 4,
        "patch_size": 4,
        "out_hidden_size": 64,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    config = Qwen3VLConfig(text_config=text, vision_config=vision, image_token_id=7)
    folder = tmp_path_factory.mktemp("tiny-qwen3-vl")
    Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def _measured(name: str, model: Path) -> Report:
    report: Report = import_module(f"{_PACKAGE}.benchmark_{name}").measure(
        Settings(model=str(model), device="cpu", quick=True, rounds=1, techniques=_OWN)
    )
    return report


def test_decoding_is_measured(tiny_qwen3_vl: Path) -> None:
    assert _measured("inference_speed", tiny_qwen3_vl).metrics.throughput_tokens_per_sec > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accuracy", "memory_usage", "power_efficiency", "throughput"])
def test_the_others_measure_something(tiny_qwen3_vl: Path, name: str) -> None:
    report = _measured(name, tiny_qwen3_vl)
    assert report.rows
    assert "tiny-qwen3-vl" in report.model


@pytest.mark.slow
def test_every_technique_can_be_switched_off(tiny_qwen3_vl: Path) -> None:
    rows = _measured("optimization_impact", tiny_qwen3_vl).rows
    assert [row.what for row in rows] == list(_OWN)
