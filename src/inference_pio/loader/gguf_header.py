"""The header of a GGUF file: metadata and tensor table, read strictly (ggml's docs/gguf.md, versions 2 and 3).

Nothing is allocated because a header says so: every count is first compared with the bytes that are left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from inference_pio.errors import ModelFileError
from inference_pio.loader.ggml_types import GGML_TYPES, OTHER_TYPES
from inference_pio.loader.header_cursor import HeaderCursor
from inference_pio.loader.regular_file import RegularFile
from inference_pio.loader.tensor_info import TensorInfo, is_usable_name

_VERSIONS = (2, 3)
_OLD_MAGICS = (b"GGML", b"GGMF", b"GGJT", b"lmgg", b"fmgg", b"tjgg")
_DEFAULT_ALIGNMENT = 32
_ALIGNMENTS = tuple(2**exponent for exponent in range(3, 17))
_MAX_KEY_BYTES = 65_535
_MAX_NAME_BYTES = 1024
_MAX_ARRAY_DEPTH = 4
_MAX_ELEMENTS = 2**63 - 1
_SMALLEST_PAIR = 8 + 1 + 4 + 1  # length and one byte of a key, type, one byte of value
_SMALLEST_TENSOR = 8 + 1 + 4 + 8 + 4 + 8

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9
_UINT32 = 4


@dataclass(frozen=True)
class GGUFHeader:
    """pairs    (first byte, end) in the file of each key with its value
    offsets  positions in the file, by tensor name
    """

    version: int
    metadata: Mapping[str, Any]
    pairs: Mapping[str, tuple[int, int]]
    tensors: Mapping[str, TensorInfo]
    offsets: Mapping[str, int]


def read_header(file: RegularFile) -> GGUFHeader:
    """Read and check everything before the data, and that the data is all there.

    Metadata arrays become lists, integers int, floats float, strings str.

    Raises:
        ModelFileError: anything at all is wrong with it.
    """
    cursor = HeaderCursor(file)
    version = _read_version(cursor)
    tensor_count = cursor.scalar("Q", "tensor count")
    pair_count = cursor.scalar("Q", "metadata count")
    cursor.require_room(pair_count, _SMALLEST_PAIR, "metadata entries")
    metadata, pairs, alignment = _read_metadata(cursor, pair_count)
    cursor.require_room(tensor_count, _SMALLEST_TENSOR, "tensors")
    tensors: dict[str, TensorInfo] = {}
    relative: dict[str, int] = {}
    for index in range(tensor_count):
        info, offset = _read_tensor(cursor, index, alignment)
        if info.name in tensors:
            raise cursor.error("appears twice", f"tensor {info.name}")
        tensors[info.name], relative[info.name] = info, offset
    data_start = _aligned(cursor.position, alignment)
    _check_layout(file, tensors, relative, alignment, data_start)
    offsets = {name: data_start + offset for name, offset in relative.items()}
    return GGUFHeader(
        version,
        MappingProxyType(metadata),
        MappingProxyType(pairs),
        MappingProxyType(tensors),
        MappingProxyType(offsets),
    )


def _read_version(cursor: HeaderCursor) -> int:
    magic = cursor.take(4, "magic")
    if magic in _OLD_MAGICS:
        raise cursor.error(
            f"is an old {magic.decode()} file", hint="convert it to GGUF with llama.cpp's tools"
        )
    if magic != b"GGUF":
        raise cursor.error(f"is not a GGUF file: it begins with {magic!r}")
    version = cursor.scalar("I", "version")
    if version not in _VERSIONS:
        if version & 0xFFFF == 0:
            raise cursor.error(
                "is big-endian, which is not supported", hint="convert it on this machine's byte order"
            )
        raise cursor.error(f"is GGUF version {version}; versions 2 and 3 are supported")
    return int(version)


def _read_metadata(
    cursor: HeaderCursor, count: int
) -> tuple[dict[str, Any], dict[str, tuple[int, int]], int]:
    metadata: dict[str, Any] = {}
    pairs: dict[str, tuple[int, int]] = {}
    alignment = _DEFAULT_ALIGNMENT
    for index in range(count):
        first = cursor.position
        key = cursor.string(f"key {index}", _MAX_KEY_BYTES)
        if not is_usable_name(key):
            raise cursor.error(f"{key!r} is not a usable key", f"key {index}")
        if key in metadata:
            raise cursor.error("appears twice", f"key {key}")
        kind = cursor.scalar("I", f"key {key}")
        value = _read_value(cursor, kind, key, 0)
        if key == "general.alignment":
            if kind != _UINT32 or value not in _ALIGNMENTS:
                raise cursor.error(f"is {value!r}, not a power of two from 8 to 65536", f"key {key}")
            alignment = value
        metadata[key], pairs[key] = value, (first, cursor.position)
    return metadata, pairs, alignment


def _read_value(cursor: HeaderCursor, kind: int, key: str, depth: int) -> Any:
    if kind in _SCALARS:
        return cursor.scalar(_SCALARS[kind], f"key {key}")
    if kind == _BOOL:
        return _booleans(cursor, 1, key)[0]
    if kind == _STRING:
        return cursor.string(f"key {key}")
    if kind == _ARRAY:
        if depth == _MAX_ARRAY_DEPTH:
            raise cursor.error(f"has arrays nested more than {_MAX_ARRAY_DEPTH} deep", f"key {key}")
        return _read_array(cursor, key, depth + 1)
    raise cursor.error(f"has the unknown value type {kind}", f"key {key}")


def _read_array(cursor: HeaderCursor, key: str, depth: int) -> list[Any]:
    kind = cursor.scalar("I", f"key {key}")
    count = cursor.scalar("Q", f"key {key}")
    cursor.count_values(count, f"key {key}")
    if kind in _SCALARS:
        return cursor.scalars(_SCALARS[kind], count, f"key {key}")
    if kind == _BOOL:
        return _booleans(cursor, count, key)
    if kind == _STRING:
        return cursor.strings(count, f"key {key}")
    cursor.require_room(count, 12, f"arrays in key {key}")
    return [_read_value(cursor, kind, key, depth) for _ in range(count)]


def _booleans(cursor: HeaderCursor, count: int, key: str) -> list[bool]:
    values = cursor.scalars("B", count, f"key {key}")
    if values and max(values) > 1:
        raise cursor.error(f"has the truth value {max(values)}", f"key {key}")
    return [value == 1 for value in values]


def _read_tensor(cursor: HeaderCursor, index: int, alignment: int) -> tuple[TensorInfo, int]:
    name = cursor.string(f"tensor {index}", _MAX_NAME_BYTES)
    if not is_usable_name(name):
        raise cursor.error(f"{name!r} is not a usable name", f"tensor {index}")
    where = f"tensor {name}"
    dimensions = cursor.scalar("I", where)
    if not 1 <= dimensions <= 4:
        raise cursor.error(f"has {dimensions} dimensions, not 1 to 4", where)
    sizes = cursor.scalars("Q", dimensions, where)
    if min(sizes) < 1 or math.prod(sizes) > _MAX_ELEMENTS:
        raise cursor.error(f"has the impossible shape {sizes}", where)
    number = cursor.scalar("I", where)
    if number not in GGML_TYPES:
        known = OTHER_TYPES.get(number, f"number {number}, which is unknown")
        supported = ", ".join(kind.name for kind in GGML_TYPES.values())
        raise cursor.error(f"has type {known}; supported: {supported}", where)
    kind = GGML_TYPES[number]
    if sizes[0] % kind.block_size:
        raise cursor.error(
            f"has rows of {sizes[0]} values, {kind.name} needs multiples of {kind.block_size}", where
        )
    offset = cursor.scalar("Q", where)
    if offset % alignment:
        raise cursor.error(f"lies at offset {offset}, not a multiple of {alignment}", where)
    # The file counts dimensions from the innermost one.
    return TensorInfo(name, tuple(reversed(sizes)), kind.name, kind.nbytes(math.prod(sizes))), offset


def _check_layout(
    file: RegularFile,
    tensors: dict[str, TensorInfo],
    offsets: dict[str, int],
    alignment: int,
    data_start: int,
) -> None:
    """Tensors lie side by side, each padded to the alignment, and the file holds all of them."""
    expected, end, previous = 0, 0, ""
    for name in sorted(offsets, key=offsets.__getitem__):
        if offsets[name] != expected:
            relation = f"overlaps {previous}" if offsets[name] < expected else "leaves a gap"
            raise ModelFileError(
                file.path,
                f"lies at offset {offsets[name]}, expected {expected}: it {relation}",
                where=f"tensor {name}",
            )
        end = expected + tensors[name].nbytes
        expected, previous = _aligned(end, alignment), name
    if tensors and data_start + end > file.size:  # without tensors the header's padding may be left out
        raise ModelFileError(file.path, f"download incomplete: {file.size} of {data_start + end} bytes")


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment
