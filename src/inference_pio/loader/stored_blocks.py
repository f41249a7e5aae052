"""Reading a run of quantised values out of a file: as blocks, or decoded on the way."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inference_pio.loader.dequantize import dequantize
from inference_pio.loader.ggml_types import TYPES_BY_NAME
from inference_pio.loader.regular_file import RegularFile
from inference_pio.loader.stored_floats import bytes_of
from inference_pio.loader.tensor_info import TensorInfo

# Values decoded at once: what stays in the processor's cache, and what torch still computes on the calling thread.
# Larger pieces, whose threads meet after every operation, are 1.5 times as fast on two idle cores and a tenth as fast
# on busy ones.
_PIECE = 32 * 1024


def read_rows(file: RegularFile, offset: int, info: TensorInfo) -> Tensor:
    """The blocks of a tensor: uint8 [rows, bytes of a row]."""
    row_bytes = TYPES_BY_NAME[info.dtype].nbytes(info.shape[-1])
    rows = torch.empty(math.prod(info.shape[:-1]), row_bytes, dtype=torch.uint8)
    file.read_into(offset, bytes_of(rows))
    return rows


def decode_blocks(file: RegularFile, offset: int, info: TensorInfo, dtype: torch.dtype) -> Tensor:
    """The values of a tensor, in its shape."""
    kind = TYPES_BY_NAME[info.dtype]
    num_blocks = info.num_elements // kind.block_size
    values = torch.empty(num_blocks, kind.block_size, dtype=dtype)
    step = _PIECE // kind.block_size
    raw = torch.empty(min(step, num_blocks), kind.block_bytes, dtype=torch.uint8)
    for first in range(0, num_blocks, step):
        target = values[first : first + step]
        blocks = raw[: len(target)]
        file.read_into(offset + first * kind.block_bytes, bytes_of(blocks))
        target.copy_(dequantize(blocks, kind.name))
    return values.view(info.shape)
