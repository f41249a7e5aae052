"""What a checkpoint file offers, whatever its format."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

CheckpointFormat = Literal["safetensors", "gguf"]


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as the header describes it.

    shape   outermost dimension first, as torch counts
    dtype   the file's own name: "BF16", "F8_E4M3" (safetensors), "Q4_1" (GGUF)
    nbytes  in the file
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)


class CheckpointHeader(Protocol):
    """Names and shapes, whether or not the data is at hand."""

    @property
    def path(self) -> Path: ...

    @property
    def format(self) -> CheckpointFormat: ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """By name, in the order of the file."""


class Checkpoint(CheckpointHeader, Protocol):
    """Open weights: headers read and checked, data read on request. Leaving the `with` block closes the files."""

    def read(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """One tensor, dense, in memory of its own.

        Args:
            dtype: a floating type to convert to piece by piece, so that no second copy is held. By default the
                stored type; float32 where the tensor is quantised.

        Raises:
            KeyError: no tensor has that name.
            ModelFileError: the data cannot be read, or `dtype` was given for a tensor that is not floating point.
        """

    def close(self) -> None: ...

    def __enter__(self) -> Checkpoint: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class HoldsBlocks(Protocol):
    """A checkpoint whose tensors may be quantised."""

    def read_blocks(self, name: str) -> torch.Tensor:
        """A quantised tensor [rows, columns] as it is stored: uint8 [rows, bytes of a row].

        Raises:
            KeyError: no quantised tensor has that name.
            ModelFileError: the data cannot be read.
        """


def is_usable_name(name: str) -> bool:
    """Names end up in error messages and in paths of parameters: no empty ones, no control characters."""
    return bool(name) and name.isprintable()
