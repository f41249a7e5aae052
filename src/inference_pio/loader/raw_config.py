"""What a checkpoint says about its architecture, before anyone interprets it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference_pio.given import is_there
from inference_pio.loader.checkpoint import Checkpoint
from inference_pio.loader.gguf import GGUFFile
from inference_pio.loader.strict_json import read_json_object


def raw_config(checkpoint: Checkpoint, path: Path) -> Mapping[str, Any]:
    """config.json of a directory; a GGUF file's metadata with "gguf.tensor_names" added.

    Raises:
        ModelFileError: config.json is missing, too large, or not one JSON object with distinct keys and finite numbers.
    """
    if isinstance(checkpoint, GGUFFile):
        return {**checkpoint.metadata, "gguf.tensor_names": frozenset(checkpoint.tensors)}
    directory = path if path.is_dir() else path.parent
    return read_json_object(directory / "config.json")


def raw_preprocessor_config(path: Path) -> tuple[Mapping[str, Any], Path]:
    """(what preprocessor_config.json beside a model says about its images, that file); nothing where there is none."""
    file = (path if path.is_dir() else path.parent) / "preprocessor_config.json"
    return (read_json_object(file) if is_there(file) else {}), file
