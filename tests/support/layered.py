"""A tiny llama with layers enough to put some of them on the disk."""

from __future__ import annotations

from pathlib import Path

from inference_pio.conformance.subject import Subject


def layered(workdir: Path, layers: int) -> Path:
    """A safetensors checkpoint of random weights, without a tokenizer."""
    case = Subject.of("llama", workdir, collected={}).case
    folder = workdir / f"layers-{layers}"
    folder.mkdir()
    return case.reference({**case.tiny["grouped"], "num_hidden_layers": layers}).save(folder, "safetensors")
