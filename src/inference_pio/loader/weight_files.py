"""Files of weights by their names: what is loaded, and what is refused unread."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from inference_pio.errors import ModelFileError, UnsafeWeightsError
from inference_pio.given import names_in
from inference_pio.loader.regular_file import RegularFile

WeightsKind = Literal["gguf", "safetensors", "index"]
_GGUF_MAGIC = b"GGUF"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_REFUSED = {
    "pickle": (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".mar"),
    "HDF5": (".h5", ".hdf5", ".keras"),
    "NumPy": (".npz", ".npy"),
    "Flax": (".msgpack",),
    "ONNX": (".onnx",),
}


def find_weights(path: Path) -> tuple[Path, WeightsKind]:
    """The file of weights that `path` means, and what it is: `path` itself, or what lies in that directory. There
    model.safetensors comes first, then the index, then the only GGUF file.

    Raises:
        UnsafeWeightsError: there are weights, but in a container that is not loaded; nothing of it was read.
        ModelFileError: there are no weights.
    """
    if os.path.isdir(path):  # unlike Path.is_dir, no error where a folder above may not be entered
        return _in_directory(path)
    if path.name.endswith(".safetensors.index.json"):
        return path, "index"
    if path.suffix == ".safetensors":
        return path, "safetensors"
    if path.suffix == ".gguf":
        return path, "gguf"
    if (container := container_of(path.name)) is not None:
        raise _unsafe(path, container)
    with RegularFile(path) as file:  # stores that name files by their hash keep no ending
        if file.size >= len(_GGUF_MAGIC) and file.read(0, len(_GGUF_MAGIC)) == _GGUF_MAGIC:
            return path, "gguf"
    raise ModelFileError(path, "is neither a GGUF nor a safetensors file")


def _in_directory(path: Path) -> tuple[Path, WeightsKind]:
    try:
        names = names_in(path)
    except OSError as error:
        raise ModelFileError(path, f"cannot be listed: {error.strerror}") from error
    if SINGLE in names:
        return path / SINGLE, "safetensors"
    if INDEX in names:
        return path / INDEX, "index"
    gguf = [name for name in names if name.endswith(".gguf")]
    if len(gguf) == 1:
        return path / gguf[0], "gguf"
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


def holds_weights(directory: Path) -> bool:
    """Whether anything in it is a file of weights, of a kind that is loaded or of another."""
    return any(is_weights(name) for name in os.listdir(directory))


def is_weights(name: str) -> bool:
    """Whether a file of this name holds weights, or is the index of such files."""
    return name == INDEX or name.endswith((".gguf", ".safetensors")) or container_of(name) is not None


def container_of(name: str) -> str | None:
    """The container that is not loaded and that a file of this name is; None for any other file."""
    suffix = os.path.splitext(name)[1].lower()
    return next((container for container, suffixes in _REFUSED.items() if suffix in suffixes), None)
