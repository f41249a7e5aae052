"""GGUF files as checkpoints: every tensor becomes dense floating point on reading."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inference_pio.loader.closing import Closing
from inference_pio.loader.dequantize import DECODERS, dequantize
from inference_pio.loader.ggml_types import TYPES_BY_NAME
from inference_pio.loader.gguf_header import read_header
from inference_pio.loader.regular_file import RegularFile
from inference_pio.loader.stored_floats import bytes_of, read_floats
from inference_pio.loader.tensor_info import CheckpointFormat, TensorInfo

# Values decoded at once: what stays in the processor's cache, and what torch still computes on the calling thread.
# Larger pieces, whose threads meet after every operation, are 1.5 times as fast on two idle cores and a tenth as fast
# on busy ones.
_PIECE = 32 * 1024
_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class GGUFFile(Closing):
    """Implements `Checkpoint`; `metadata` holds every key of the header.

    Raises:
        ModelFileError: the header is wrong in any way, or the file is shorter than it says.
    """

    format: CheckpointFormat = "gguf"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = RegularFile(path)
        try:
            header = read_header(self._file)
        except BaseException:
            self._file.close()
            raise
        self.version: int = header.version
        self.metadata: Mapping[str, Any] = header.metadata
        self.tensors: Mapping[str, TensorInfo] = header.tensors
        self._offsets = header.offsets

    def read(
        self, name: str, dtype: torch.dtype | None = None, part: tuple[int, int] | None = None
    ) -> Tensor:
        info, offset = self._place(name, part)
        if info.dtype in DECODERS:
            return self._decode(info, offset, dtype or torch.float32)
        return read_floats(self._file, offset, info.shape, _PLAIN[info.dtype], dtype)

    def read_blocks(self, name: str, part: tuple[int, int] | None = None) -> Tensor:
        info, offset = self._place(name, part)
        row_bytes = TYPES_BY_NAME[info.dtype].nbytes(info.shape[-1])
        rows = torch.empty(math.prod(info.shape[:-1]), row_bytes, dtype=torch.uint8)
        self._file.read_into(offset, bytes_of(rows))
        return rows

    def first_bytes(self, name: str, count: int) -> bytes:
        return self._file.read(self._offsets[name], min(count, self.tensors[name].nbytes))

    def _place(self, name: str, part: tuple[int, int] | None) -> tuple[TensorInfo, int]:
        """The tensor, or what is read of it, and where in the file that begins; rows are whole blocks."""
        info, skipped = self.tensors[name].narrowed(part)
        return info, self._offsets[name] + TYPES_BY_NAME[info.dtype].nbytes(skipped)

    def _decode(self, info: TensorInfo, offset: int, dtype: torch.dtype) -> Tensor:
        kind = TYPES_BY_NAME[info.dtype]
        num_blocks = info.num_elements // kind.block_size
        values = torch.empty(num_blocks, kind.block_size, dtype=dtype)
        step = _PIECE // kind.block_size
        raw = torch.empty(min(step, num_blocks), kind.block_bytes, dtype=torch.uint8)
        for first in range(0, num_blocks, step):
            target = values[first : first + step]
            blocks = raw[: len(target)]
            self._file.read_into(offset + first * kind.block_bytes, bytes_of(blocks))
            target.copy_(dequantize(blocks, kind.name))
        return values.view(info.shape)

    def close(self) -> None:
        self._file.close()
