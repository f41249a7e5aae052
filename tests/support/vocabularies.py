"""The vocabularies under tests/data/tokenizers."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from inference_pio.loader.gguf import GGUFFile

TOKENIZERS = Path(__file__).parent.parent / "data" / "tokenizers"
WEIGHTS = TOKENIZERS.parent / "weights"
TEMPLATES = TOKENIZERS.parent / "templates"


def gguf_file(name: str, folder: Path) -> Path:
    """`name`.gguf, unpacked into `folder`."""
    path = folder / f"{name}.gguf"
    if not path.exists():
        data = gzip.decompress((TOKENIZERS / f"{name}.gguf.gz").read_bytes())
        # These files hold no tensors and end with the header, before the padding that tensors would begin after.
        path.write_bytes(data + bytes(-len(data) % 32))
    return path


def tokenizer_metadata(path: Path) -> dict[str, Any]:
    """The `tokenizer.*` keys of a GGUF file."""
    with GGUFFile(path) as file:
        return {name: value for name, value in file.metadata.items() if name.startswith("tokenizer.")}


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
