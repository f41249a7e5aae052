"""From a path to open weights, whichever format they are in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from inference_pio.loader.gguf import GGUFFile
from inference_pio.loader.safetensors import SafetensorsFile, ShardedSafetensors
from inference_pio.loader.tensor_info import Checkpoint, CheckpointHeader, TensorInfo
from inference_pio.loader.weight_files import WeightsKind, find_weights

__all__ = ["Checkpoint", "CheckpointHeader", "TensorInfo", "open_checkpoint"]

_OPENED_BY: Mapping[WeightsKind, Callable[[Path], Checkpoint]] = {
    "gguf": GGUFFile,
    "safetensors": SafetensorsFile,
    "index": ShardedSafetensors,
}


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a .gguf file, a .safetensors file, an index of several, or a directory that holds one of these.

    Only headers are read.

    Raises:
        UnsafeWeightsError: there are weights, but in a container that is not loaded; nothing of it was read.
        ModelFileError: there are no weights, or they cannot be used.
    """
    file, kind = find_weights(path)
    return _OPENED_BY[kind](file)
