"""From a path to open weights, whichever format they are in."""

from __future__ import annotations

import os
from pathlib import Path

from inference_pio.errors import ModelFileError, UnsafeWeightsError
from inference_pio.given import names_in
from inference_pio.loader.gguf import GGUFFile
from inference_pio.loader.regular_file import RegularFile
from inference_pio.loader.safetensors import SafetensorsFile, ShardedSafetensors
from inference_pio.loader.tensor_info import Checkpoint, CheckpointHeader, TensorInfo
from inference_pio.loader.weight_files import INDEX, SINGLE, container_of

__all__ = ["Checkpoint", "CheckpointHeader", "TensorInfo", "open_checkpoint"]

_GGUF_MAGIC = b"GGUF"


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a .gguf file, a .safetensors file, an index of several, or a directory that holds one of these.

    Only headers are read. A directory's model.safetensors comes first, then the index, then its only GGUF file.

    Raises:
        UnsafeWeightsError: there are weights, but in a container that is not loaded; nothing of it was read.
        ModelFileError: there are no weights, or they cannot be used.
    """
    if os.path.isdir(path):  # unlike Path.is_dir, no error where a folder above may not be entered
        return _open_directory(path)
    if path.name.endswith(".safetensors.index.json"):
        return ShardedSafetensors(path)
    if path.suffix == ".safetensors":
        return SafetensorsFile(path)
    if path.suffix == ".gguf":
        return GGUFFile(path)
    if (container := container_of(path.name)) is not None:
        raise _unsafe(path, container)
    with RegularFile(path) as file:  # stores that name files by their hash keep no ending
        if file.size >= len(_GGUF_MAGIC) and file.read(0, len(_GGUF_MAGIC)) == _GGUF_MAGIC:
            return GGUFFile(path)
    raise ModelFileError(path, "is neither a GGUF nor a safetensors file")


def _open_directory(path: Path) -> Checkpoint:
    try:
        names = names_in(path)
    except OSError as error:
        raise ModelFileError(path, f"cannot be listed: {error.strerror}") from error
    if SINGLE in names:
        return SafetensorsFile(path / SINGLE)
    if INDEX in names:
        return ShardedSafetensors(path / INDEX)
    gguf = [name for name in names if name.endswith(".gguf")]
    if len(gguf) == 1:
        return GGUFFile(path / gguf[0])
    if gguf:
        raise ModelFileError(
            path, f"holds {len(gguf)} GGUF files: {', '.join(gguf[:5])}", hint="name one of them"
        )
    for name in names:
        if (container := container_of(name)) is not None:
            raise _unsafe(path / name, container)
    raise ModelFileError(path, f"holds no weights: neither {SINGLE}, nor {INDEX}, nor a .gguf file")


def _unsafe(path: Path, container: str) -> UnsafeWeightsError:
    return UnsafeWeightsError(
        path, f"{container} weights are not loaded and were not read", hint="convert them to safetensors"
    )
