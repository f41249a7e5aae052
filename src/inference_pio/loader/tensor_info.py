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
_MOST_NAME = 1024


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

    def narrowed(self, part: tuple[int, int] | None) -> tuple[TensorInfo, int]:
        """(first, number) of the entries along dimension 0 as a tensor, and where it begins, in elements."""
        if part is None:
            return self, 0
        first, count = part
        if not (self.shape and first >= 0 and count >= 0 and first + count <= self.shape[0]):
            raise ValueError(f"{self.name} {list(self.shape)} has no entries {first} to {first + count}")
        nbytes = self.nbytes // self.shape[0]
        narrow = TensorInfo(self.name, (count, *self.shape[1:]), self.dtype, nbytes * count)
        return narrow, first * math.prod(self.shape[1:])


class CheckpointHeader(Protocol):
    """Names and shapes, whether or not the data is at hand."""

    @property
    def path(self) -> Path: ...

    @property
    def format(self) -> CheckpointFormat: ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """By name, in the order of the file."""


@dataclass(frozen=True)
class DescribedCheckpoint:
    """A header without a file behind it."""

    path: Path
    format: CheckpointFormat
    tensors: Mapping[str, TensorInfo]


class Checkpoint(CheckpointHeader, Protocol):
    """Open weights: headers read and checked, data read on request. Leaving the `with` block closes the files."""

    def read(
        self, name: str, dtype: torch.dtype | None = None, part: tuple[int, int] | None = None
    ) -> torch.Tensor:
        """One tensor, dense, in memory of its own.

        Args:
            part: (first, number) of the entries along dimension 0 that are read; all by default.
            dtype: a floating type to convert to piece by piece, so that no second copy is held. By default the
                stored type; float32 where the tensor is quantised.

        Raises:
            KeyError: no tensor has that name.
            ModelFileError: the data cannot be read, or `dtype` was given for a tensor that is not floating point.
        """

    def first_bytes(self, name: str, count: int) -> bytes:
        """The first `count` bytes of a tensor as they are stored, or all where it has fewer.

        Raises:
            KeyError: no tensor has that name.
            ModelFileError: the data cannot be read.
        """

    def close(self) -> None: ...

    def __enter__(self) -> Checkpoint: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class HoldsBlocks(Protocol):
    """A checkpoint whose tensors may be quantised."""

    def read_blocks(self, name: str, part: tuple[int, int] | None = None) -> torch.Tensor:
        """A quantised tensor [rows, columns] as it is stored: uint8 [rows, bytes of a row]. Of a stack of matrices the
        rows of one follow those of the one before; `part` is as for `Checkpoint.read`.

        Raises:
            KeyError: no quantised tensor has that name.
            ModelFileError: the data cannot be read.
        """


def is_usable_name(name: str) -> bool:
    """Names end up in error messages and in paths of parameters: no empty or long ones, no control characters."""
    return 0 < len(name) <= _MOST_NAME and name.isprintable()
