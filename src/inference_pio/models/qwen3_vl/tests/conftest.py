"""Tiny qwen3_vl models, written once a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from inference_pio.conformance.subject import Subject
from inference_pio.llm import LLM


@pytest.fixture(scope="session")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject.of("qwen3_vl", tmp_path_factory.mktemp("qwen3_vl"), collected={})


@pytest.fixture(scope="session")
def tiny_path(subject: Subject) -> Path:
    """A directory with config.json, safetensors and a tokenizer."""
    return subject.checkpoint("grouped")


@pytest.fixture(scope="session")
def tiny_llm(tiny_path: Path) -> Iterator[LLM]:
    with LLM(str(tiny_path), dtype="float32", kv_cache_memory_gb=0.01) as llm:
        yield llm
