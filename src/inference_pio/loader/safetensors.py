"""safetensors files, single (`safetensors_header.py`) and sharded (`safetensors_index.py`), as checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from inference_pio.errors import ModelFileError
from inference_pio.loader.closing import Closing
from inference_pio.loader.dequantize import DECODERS
from inference_pio.loader.ggml_types import TYPES_BY_NAME
from inference_pio.loader.regular_file import RegularFile
from inference_pio.loader.safetensors_header import read_header
from inference_pio.loader.safetensors_index import check_listed, read_index
from inference_pio.loader.stored_blocks import decode_blocks, read_rows
from inference_pio.loader.stored_floats import read_floats
from inference_pio.loader.tensor_info import CheckpointFormat, TensorInfo

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
# What may be converted without losing meaning: integers and 8-bit floats are halves of a pair with their scales.
_CONVERTIBLE = frozenset({"F64", "F32", "F16", "BF16"})


class SafetensorsFile(Closing):
    """One file. Implements `Checkpoint`.

    Raises:
        ModelFileError: the header is wrong in any way, or the file is not as long as it says.
    """

    format: CheckpointFormat = "safetensors"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = RegularFile(path)
        try:
            header = read_header(self._file)
        except BaseException:
            self._file.close()
            raise
        self.tensors: Mapping[str, TensorInfo] = header.tensors
        self._offsets = header.offsets

    def read(
        self, name: str, dtype: torch.dtype | None = None, part: tuple[int, int] | None = None
    ) -> Tensor:
        info, skipped = self.tensors[name].narrowed(part)
        if info.dtype in DECODERS:
            offset = self._offsets[name] + TYPES_BY_NAME[info.dtype].nbytes(skipped)
            return decode_blocks(self._file, offset, info, dtype or torch.float32)
        stored = DTYPES[info.dtype]
        if dtype is not None and dtype != stored and info.dtype not in _CONVERTIBLE:
            raise ModelFileError(
                self.path,
                f"has type {info.dtype}; only floating point weights are read",
                where=f"tensor {name}",
            )
        offset = self._offsets[name] + skipped * stored.itemsize
        return read_floats(self._file, offset, info.shape, stored, dtype)

    def read_blocks(self, name: str, part: tuple[int, int] | None = None) -> Tensor:
        info, skipped = self.tensors[name].narrowed(part)
        return read_rows(self._file, self._offsets[name] + TYPES_BY_NAME[info.dtype].nbytes(skipped), info)

    def first_bytes(self, name: str, count: int) -> bytes:
        return self._file.read(self._offsets[name], min(count, self.tensors[name].nbytes))

    def close(self) -> None:
        self._file.close()


class ShardedSafetensors(Closing):
    """Several files under one index. Implements `Checkpoint`; `path` is the index.

    Raises:
        ModelFileError: the index is wrong, a file is missing, lies elsewhere, or holds other tensors than listed.
    """

    format: CheckpointFormat = "safetensors"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: list[SafetensorsFile] = []
        self._holder: dict[str, SafetensorsFile] = {}
        try:
            for shard, listed in read_index(path).items():
                file = SafetensorsFile(shard)
                self._files.append(file)
                check_listed(path, file.path.name, file.tensors.keys(), listed)
                self._holder.update(dict.fromkeys(file.tensors, file))
        except BaseException:
            self.close()
            raise
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(
            {name: file.tensors[name] for name, file in self._holder.items()}
        )

    def read(
        self, name: str, dtype: torch.dtype | None = None, part: tuple[int, int] | None = None
    ) -> Tensor:
        return self._holder[name].read(name, dtype, part)

    def read_blocks(self, name: str, part: tuple[int, int] | None = None) -> Tensor:
        return self._holder[name].read_blocks(name, part)

    def first_bytes(self, name: str, count: int) -> bytes:
        return self._holder[name].first_bytes(name, count)

    def close(self) -> None:
        for file in self._files:
            file.close()
