"""One tokenizer of each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inference_pio.text.tokenizer import Tokenizer
from support.llama2c import gguf_metadata
from support.vocabularies import WEIGHTS, gguf_file, qwen3_directory, tokenizer_metadata

GGUF_NAMES = ("gpt-2", "qwen2", "llama-spm", "phi-3")


@pytest.fixture(scope="session")
def vocabularies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Name to GGUF metadata."""
    folder = tmp_path_factory.mktemp("vocabularies")
    found = {name: tokenizer_metadata(gguf_file(name, folder)) for name in GGUF_NAMES}
    return {**found, "stories": gguf_metadata(WEIGHTS / "tok512.bin")}


@pytest.fixture(scope="session")
def qwen3_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qwen3_directory(tmp_path_factory.mktemp("qwen3"))


@pytest.fixture(scope="session")
def tokenizers(vocabularies: dict[str, dict[str, Any]], qwen3_path: Path) -> dict[str, Tokenizer]:
    """Name to tokenizer: the GGUF ones, `stories`, and `qwen3` from its directory."""
    made = {name: Tokenizer.from_gguf(metadata, Path(name)) for name, metadata in vocabularies.items()}
    return {**made, "qwen3": Tokenizer.from_directory(qwen3_path)}


@pytest.fixture(scope="session")
def stories(tokenizers: dict[str, Tokenizer]) -> Tokenizer:
    return tokenizers["stories"]
