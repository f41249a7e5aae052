"""GGUF files as checkpoints: every tensor becomes dense floating point on reading."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inference_pio.loader.closing import Closing
from inference_pio.loader.dequantize import DECODERS
from inference_pio.loader.ggml_types import TYPES_BY_NAME
from inference_pio.loader.gguf_header import read_header
from inference_pio.loader.regular_file import RegularFile
from inference_pio.loader.stored_blocks import decode_blocks, read_rows
from inference_pio.loader.stored_floats import read_floats
from inference_pio.loader.tensor_info import CheckpointFormat, TensorInfo

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
        self._offsets, self._pairs = header.offsets, header.pairs

    def read(
        self, name: str, dtype: torch.dtype | None = None, part: tuple[int, int] | None = None
    ) -> Tensor:
        info, offset = self._place(name, part)
        if info.dtype in DECODERS:
            return decode_blocks(self._file, offset, info, dtype or torch.float32)
        return read_floats(self._file, offset, info.shape, _PLAIN[info.dtype], dtype)

    def read_blocks(self, name: str, part: tuple[int, int] | None = None) -> Tensor:
        info, offset = self._place(name, part)
        return read_rows(self._file, offset, info)

    def raw_pairs(self, without: Collection[str]) -> list[bytes]:
        """Keys with their values as they lie in the file, those of `without` left out."""
        spans = [span for key, span in self._pairs.items() if key not in without]
        return [self._file.read(first, end - first) for first, end in spans]

    def first_bytes(self, name: str, count: int) -> bytes:
        return self._file.read(self._offsets[name], min(count, self.tensors[name].nbytes))

    def _place(self, name: str, part: tuple[int, int] | None) -> tuple[TensorInfo, int]:
        """The tensor, or what is read of it, and where in the file that begins; rows are whole blocks."""
        info, skipped = self.tensors[name].narrowed(part)
        return info, self._offsets[name] + TYPES_BY_NAME[info.dtype].nbytes(skipped)

    def close(self) -> None:
        self._file.close()
