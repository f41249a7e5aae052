"""Files of weights by their names: what is loaded, and what is refused unread."""

from __future__ import annotations

import os
from pathlib import Path

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_REFUSED = {
    "pickle": (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".mar"),
    "HDF5": (".h5", ".hdf5", ".keras"),
    "NumPy": (".npz", ".npy"),
    "Flax": (".msgpack",),
    "ONNX": (".onnx",),
}


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
