"""Reading a run of plain values out of a file, converted on the way if wanted.

Values lie little-endian in both formats and are taken as they lie: machines of the other byte order are not supported.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inference_pio.loader.regular_file import RegularFile

_PIECE_BYTES = 1 << 20


def read_floats(
    file: RegularFile, offset: int, shape: tuple[int, ...], stored: torch.dtype, wanted: torch.dtype | None
) -> Tensor:
    """`shape` values of type `stored` at `offset`, as `wanted` (by default as stored).

    Where types differ, conversion goes piece by piece: beside the result one piece is in memory.
    """
    count = math.prod(shape)
    result = torch.empty(count, dtype=wanted or stored)
    if result.dtype == stored:
        _fill(file, offset, result)
        return result.view(shape)
    step = _PIECE_BYTES // stored.itemsize
    piece = torch.empty(min(step, count), dtype=stored)
    for first in range(0, count, step):
        target = result[first : first + step]
        part = piece[: len(target)]
        _fill(file, offset + first * stored.itemsize, part)
        target.copy_(part)
    return result.view(shape)


def bytes_of(values: Tensor) -> memoryview:
    """The memory of a contiguous tensor, to be written to."""
    return values.view(torch.uint8).numpy().data.cast("B")


def _fill(file: RegularFile, offset: int, values: Tensor) -> None:
    if values.numel():
        file.read_into(offset, bytes_of(values))
