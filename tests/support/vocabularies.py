"""The vocabularies under tests/data/tokenizers, read by the `gguf` package rather than by our own reader."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from gguf import GGUFReader

TOKENIZERS = Path(__file__).parent.parent / "data" / "tokenizers"
WEIGHTS = TOKENIZERS.parent / "weights"
TEMPLATES = TOKENIZERS.parent / "templates"


def gguf_file(name: str, folder: Path) -> Path:
    """`name`.gguf, unpacked into `folder`."""
    path = folder / f"{name}.gguf"
    if not path.exists():
        path.write_bytes(gzip.decompress((TOKENIZERS / f"{name}.gguf.gz").read_bytes()))
    return path


def tokenizer_metadata(path: Path) -> dict[str, Any]:
    """The `tokenizer.*` keys of a GGUF file."""
    fields = GGUFReader(path).fields
    return {name: field.contents() for name, field in fields.items() if name.startswith("tokenizer.")}


def cases(name: str) -> list[tuple[str, list[int]]]:
    """llama.cpp's test texts for a vocabulary, and the ids its makers' tokenizer gives."""
    texts = (TOKENIZERS / f"{name}.inp").read_bytes().decode("utf-8").split("\n__ggml_vocab_test__\n")
    lines = (TOKENIZERS / f"{name}.out").read_text("utf-8").split("\n")
    return [(text, [int(word) for word in line.split()]) for text, line in zip(texts, lines, strict=True)]


def qwen3_directory(folder: Path) -> Path:
    """A model directory that holds Qwen3's tokenizer."""
    (folder / "tokenizer.json").write_bytes(
        gzip.decompress((TOKENIZERS / "qwen3.tokenizer.json.gz").read_bytes())
    )
    (folder / "tokenizer_config.json").write_bytes((TOKENIZERS / "qwen3.tokenizer_config.json").read_bytes())
    return folder
