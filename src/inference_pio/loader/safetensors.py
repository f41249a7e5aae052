"""safetensors files, single and sharded, as checkpoints.

Format: 8 bytes of header length, a JSON object {name: {dtype, shape, data_offsets}}, the data without holes
(github.com/huggingface/safetensors, README). Sharded checkpoints add an index {weight_map: {name: file}}.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import torch
from torch import Tensor

from inference_pio.errors import ModelFileError
from inference_pio.loader.closing import Closing
from inference_pio.loader.regular_file import RegularFile
from inference_pio.loader.safetensors_index import read_index
from inference_pio.loader.stored_floats import read_floats
from inference_pio.loader.strict_json import strict_object
from inference_pio.loader.tensor_info import CheckpointFormat, TensorInfo, is_usable_name

MAX_HEADER_BYTES = 100_000_000
MAX_TENSORS = 65_536
_MAX_ELEMENTS = 2**63 - 1

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


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


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
            data_start, entries = _read_header(self._file)
            infos = {name: _tensor_info(path, name, entry) for name, entry in entries.items()}
            _check_layout(self._file, entries, data_start)
        except BaseException:
            self._file.close()
            raise
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(infos)
        self._offsets = {name: data_start + entry.data_offsets[0] for name, entry in entries.items()}

    def read(
        self, name: str, dtype: torch.dtype | None = None, part: tuple[int, int] | None = None
    ) -> Tensor:
        info, skipped = self.tensors[name].narrowed(part)
        stored = DTYPES[info.dtype]
        if dtype is not None and dtype != stored and info.dtype not in _CONVERTIBLE:
            raise ModelFileError(
                self.path,
                f"has type {info.dtype}; only floating point weights are read",
                where=f"tensor {name}",
            )
        offset = self._offsets[name] + skipped * stored.itemsize
        return read_floats(self._file, offset, info.shape, stored, dtype)

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
                _check_listed(path, file, listed)
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

    def first_bytes(self, name: str, count: int) -> bytes:
        return self._holder[name].first_bytes(name, count)

    def close(self) -> None:
        for file in self._files:
            file.close()


def _read_header(file: RegularFile) -> tuple[int, dict[str, _Entry]]:
    """Where the data starts, and the entries in the order of their data."""
    if file.size < 8:
        raise ModelFileError(file.path, f"is no safetensors file: it has {file.size} bytes")
    length = int.from_bytes(file.read(0, 8), "little")
    if length > MAX_HEADER_BYTES:
        raise ModelFileError(
            file.path,
            f"claims a header of {length} bytes, more than {MAX_HEADER_BYTES}",
            where="header",
            byte=0,
        )
    if 8 + length > file.size:
        raise ModelFileError(
            file.path,
            f"download incomplete: {file.size} of at least {8 + length} bytes",
            where="header",
            byte=0,
        )
    raw = strict_object(file.read(8, length), file.path, "header")
    _converted(raw.pop("__metadata__", {}), dict[str, str], file.path, "header: __metadata__")
    if not raw:
        raise ModelFileError(file.path, "holds no tensor", where="header")
    if len(raw) > MAX_TENSORS:
        raise ModelFileError(file.path, f"lists {len(raw)} tensors, more than {MAX_TENSORS}", where="header")
    entries: dict[str, _Entry] = {}
    for name, value in raw.items():
        if not is_usable_name(name):
            raise ModelFileError(file.path, f"{name!a} is not a usable tensor name", where="header")
        entries[name] = _converted(value, _Entry, file.path, f"tensor {name}")
    ordered = sorted(entries, key=lambda name: entries[name].data_offsets)
    return 8 + length, {name: entries[name] for name in ordered}


def _converted(value: Any, kind: Any, path: Path, where: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ModelFileError(path, str(error), where=where) from error


def _tensor_info(path: Path, name: str, entry: _Entry) -> TensorInfo:
    where = f"tensor {name}"
    if entry.dtype not in DTYPES:
        raise ModelFileError(
            path, f"has type {entry.dtype!a}, which is unknown; known: {', '.join(DTYPES)}", where=where
        )
    if any(size < 0 for size in entry.shape) or math.prod(entry.shape) > _MAX_ELEMENTS:
        raise ModelFileError(path, f"has the impossible shape {entry.shape}", where=where)
    begin, end = entry.data_offsets
    needed = math.prod(entry.shape) * DTYPES[entry.dtype].itemsize
    if begin < 0 or end - begin != needed:
        raise ModelFileError(
            path,
            f"lies at {begin} to {end}, but shape {entry.shape} of {entry.dtype} needs {needed} bytes",
            where=where,
        )
    return TensorInfo(name, tuple(entry.shape), entry.dtype, needed)


def _check_layout(file: RegularFile, entries: dict[str, _Entry], data_start: int) -> None:
    """Tensors lie side by side without holes, and the file ends with the last."""
    expected, previous = 0, "the header"
    for name, entry in entries.items():
        begin, end = entry.data_offsets
        if begin != expected:
            relation = "overlaps" if begin < expected else "leaves a hole after"
            raise ModelFileError(
                file.path,
                f"begins at {begin}, expected {expected}: it {relation} {previous}",
                where=f"tensor {name}",
            )
        expected, previous = end, name
    size = data_start + expected
    if file.size < size:
        raise ModelFileError(file.path, f"download incomplete: {file.size} of {size} bytes")
    if file.size > size:
        raise ModelFileError(file.path, f"has {file.size - size} bytes after its last tensor", byte=size)


def _check_listed(index: Path, file: SafetensorsFile, listed: frozenset[str]) -> None:
    for names, what in (
        (listed - file.tensors.keys(), "lacks"),
        (file.tensors.keys() - listed, "holds, against the index,"),
    ):
        if names:
            shown = ", ".join(sorted(names)[:5]) + (" …" if len(names) > 5 else "")
            raise ModelFileError(index, f"{file.path.name} {what} {len(names)} tensors: {shown}")
