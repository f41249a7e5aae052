"""Glm4_moe_lite's benchmarks: each is bound to its own plugin and runs on a model of it."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest

from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.report import Report
from inference_pio.conformance.tiny_tokenizer import write_tokenizer

_PACKAGE = "inference_pio.models.glm4_moe_lite.benchmarks"
# Where the plugin is not there, neither are these tests.
SUITE = pytest.importorskip(f"{_PACKAGE}.workloads").SUITE
# The others are everybody's, and tested where they are.
_OWN = tuple(technique.name for technique in SUITE.techniques)
_CASE = pytest.importorskip("inference_pio.models.glm4_moe_lite.tests.case")


@pytest.fixture(scope="session")
def tiny_glm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in float32, a byte-level tokenizer, room for 2048 positions."""
    raw = {**_CASE.TINY["low-rank"], "max_position_embeddings": 2048}
    folder = tmp_path_factory.mktemp("tiny-glm")
    _CASE.reference(raw).save(folder, "safetensors")
    (folder / "config.json").write_text(json.dumps(raw))
    write_tokenizer(folder)
    return folder


def _measured(name: str, model: Path) -> Report:
    report: Report = import_module(f"{_PACKAGE}.benchmark_{name}").measure(
        Settings(model=str(model), device="cpu", quick=True, rounds=1, techniques=_OWN)
    )
    return report


def test_decoding_is_measured(tiny_glm: Path) -> None:
    assert _measured("inference_speed", tiny_glm).metrics.throughput_tokens_per_sec > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accuracy", "memory_usage", "power_efficiency", "throughput"])
def test_the_others_measure_something(tiny_glm: Path, name: str) -> None:
    report = _measured(name, tiny_glm)
    assert report.rows
    assert "tiny-glm" in report.model


@pytest.mark.slow
def test_every_technique_can_be_switched_off(tiny_glm: Path) -> None:
    rows = _measured("optimization_impact", tiny_glm).rows
    assert [row.what for row in rows] == list(_OWN)
