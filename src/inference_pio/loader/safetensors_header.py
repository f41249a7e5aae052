"""The header of a safetensors file, read strictly: what lies where, without a byte of it in memory.

Format: 8 bytes of header length, a JSON object {name: {dtype, shape, data_offsets}}, the data without holes
(github.com/huggingface/safetensors, README).

Tensors that this package quantised lie as uint8 rows of ggml's blocks, and "__metadata__" has the kind of blocks of
each under "blocks:<name>" (`loader/write_safetensors.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from inference_pio.errors import ModelFileError
from inference_pio.loader.ggml_types import BLOCK_KINDS, TYPES_BY_NAME
from inference_pio.loader.regular_file import RegularFile
from inference_pio.loader.strict_json import strict_object
from inference_pio.loader.tensor_info import TensorInfo, is_usable_name

MAX_HEADER_BYTES = 100_000_000
MAX_TENSORS = 65_536
BLOCKS = "blocks:"  # in front of a tensor's name in the metadata: its kind of blocks
_MAX_ELEMENTS = 2**63 - 1
_MAX_DIMENSIONS = 64  # torch's

ITEM_BYTES: dict[str, int] = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
}


@dataclass(frozen=True)
class SafetensorsHeader:
    """tensors  by name, in the order of their data
    offsets  positions in the file, by tensor name
    """

    tensors: Mapping[str, TensorInfo]
    offsets: Mapping[str, int]


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def read_header(file: RegularFile) -> SafetensorsHeader:
    """Read and check everything before the data, and that the data is all there.

    Raises:
        ModelFileError: the header is wrong in any way, or the file is not as long as it says.
    """
    path = file.path
    data_start, entries, kinds = _read_entries(file)
    infos = {name: _tensor_info(path, name, entry) for name, entry in entries.items()}
    infos |= {name: _of_blocks(path, name, infos.get(name), kind) for name, kind in kinds.items()}
    _check_layout(file, entries, data_start)
    offsets = {name: data_start + entry.data_offsets[0] for name, entry in entries.items()}
    return SafetensorsHeader(MappingProxyType(infos), MappingProxyType(offsets))


def _read_entries(file: RegularFile) -> tuple[int, dict[str, _Entry], dict[str, str]]:
    """Where the data starts, the entries in the order of their data, and the kinds of those that are blocks."""
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
    notes = _converted(raw.pop("__metadata__", {}), dict[str, str], file.path, "header: __metadata__")
    kinds = {key.removeprefix(BLOCKS): kind for key, kind in notes.items() if key.startswith(BLOCKS)}
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
    return 8 + length, {name: entries[name] for name in ordered}, kinds


def _converted(value: Any, kind: Any, path: Path, where: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ModelFileError(path, str(error), where=where) from error


def _tensor_info(path: Path, name: str, entry: _Entry) -> TensorInfo:
    where = f"tensor {name}"
    if entry.dtype not in ITEM_BYTES:
        raise ModelFileError(
            path, f"has type {entry.dtype!a}, which is unknown; known: {', '.join(ITEM_BYTES)}", where=where
        )
    if len(entry.shape) > _MAX_DIMENSIONS:  # their product alone could take seconds
        raise ModelFileError(
            path, f"has {len(entry.shape)} dimensions, more than {_MAX_DIMENSIONS}", where=where
        )
    if any(size < 0 for size in entry.shape) or math.prod(entry.shape) > _MAX_ELEMENTS:
        raise ModelFileError(path, f"has the impossible shape {entry.shape}", where=where)
    begin, end = entry.data_offsets
    needed = math.prod(entry.shape) * ITEM_BYTES[entry.dtype]
    if begin < 0 or end - begin != needed:
        raise ModelFileError(
            path,
            f"lies at {begin} to {end}, but shape {entry.shape} of {entry.dtype} needs {needed} bytes",
            where=where,
        )
    return TensorInfo(name, tuple(entry.shape), entry.dtype, needed)


def _of_blocks(path: Path, name: str, info: TensorInfo | None, kind: str) -> TensorInfo:
    """The tensor as what its rows of bytes stand for."""
    where = f"tensor {name}"
    if info is None:
        raise ModelFileError(path, f"is said to be {kind} and is not there", where=where)
    if kind not in BLOCK_KINDS:
        raise ModelFileError(path, f"is blocks of {kind!a}; known: {', '.join(BLOCK_KINDS)}", where=where)
    block = TYPES_BY_NAME[kind]
    if info.dtype != "U8" or len(info.shape) < 2 or info.shape[-1] % block.block_bytes:
        found = f"{info.dtype} {list(info.shape)}"
        raise ModelFileError(path, f"is {found}, no rows of {kind}'s {block.block_bytes} bytes", where=where)
    columns = info.shape[-1] // block.block_bytes * block.block_size
    return TensorInfo(name, (*info.shape[:-1], columns), kind, info.nbytes)


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
