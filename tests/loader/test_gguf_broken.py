"""GGUF files that must be refused: each with one line, at once, and without memory for what they only claim."""

from __future__ import annotations

import struct
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference_pio.errors import ModelFileError
from inference_pio.loader.gguf import GGUFFile
from support.gguf_bytes import (
    ARCHITECTURE,
    ARRAY,
    BOOL,
    F32,
    STRING,
    U8,
    U32,
    GGUFBytes,
    array,
    pair,
    tensor,
    text,
)


def with_pair(*pairs: bytes) -> bytes:
    return GGUFBytes(pairs=[ARCHITECTURE, *pairs]).build()


def with_tensor(*tensors: bytes, data: int = 4096) -> bytes:
    return GGUFBytes(tensors=list(tensors), data=bytes(data)).build()


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def nested(depth: int) -> bytes:
    return array(ARRAY, 1) * depth + array(U8, 1, b"\1")


def test_what_the_broken_files_were_made_from_is_good(tmp_path: Path) -> None:
    for index, data in enumerate(
        (
            GGUFBytes().build(),
            with_pair(pair("n", ARRAY, nested(3))),
            with_pair(pair("general.alignment", U32, u32(32))),
            with_tensor(tensor("a", (32,), 0, 0), tensor("b", (32,), 0, 128)),
        )
    ):
        path = tmp_path / f"{index}.gguf"
        path.write_bytes(data)
        GGUFFile(path).close()


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = GGUFBytes(
        pairs=[
            ARCHITECTURE,
            pair("n", ARRAY, array(STRING, 2, text("a") + text("bc"))),
            pair("f", F32, bytes(4)),
        ]
    ).build()
    path = tmp_path / "cut.gguf"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match="damaged|incomplete"):
            GGUFFile(path)


def test_a_large_sparse_file_does_not_make_its_claims_affordable(tmp_path: Path) -> None:
    path = tmp_path / "sparse.gguf"
    path.write_bytes(GGUFBytes(pairs=[pair("s", STRING, struct.pack("<Q", 2**27))]).build())
    with path.open("r+b") as file:
        file.truncate(2 * 10**11)  # holes: nothing is on disk
    process = psutil.Process()
    before = process.memory_info().rss
    with pytest.raises(ModelFileError, match="a header may have 134217728 bytes"):
        GGUFFile(path)
    assert process.memory_info().rss - before < 5_000_000


def test_a_file_that_shrinks_after_opening_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "shrinking.gguf"
    path.write_bytes(GGUFBytes().build())
    with GGUFFile(path) as file:
        with path.open("r+b") as other:
            other.truncate(300)
        with pytest.raises(ModelFileError, match="changed while it was read"):
            file.read("b.weight")


def test_reading_after_closing_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "closed.gguf"
    path.write_bytes(GGUFBytes().build())
    with GGUFFile(path) as file:
        pass
    with pytest.raises(ModelFileError, match="closed"):
        file.read("a.weight")


RICH = GGUFBytes(
    pairs=[
        ARCHITECTURE,
        pair("general.alignment", U32, u32(64)),
        pair("n", ARRAY, nested(2)),
        pair("s", ARRAY, array(STRING, 3, text("a") + text("") + text("ž"))),
        pair("b", ARRAY, array(BOOL, 2, b"\0\1")),
    ],
    tensors=[tensor("a.weight", (32, 4), 0, 0), tensor("b.weight", (256, 4), 12, 512)],
    data=bytes(512 + 576),
    alignment=64,
).build()


@settings(max_examples=400, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, len(RICH) - 1), st.binary(min_size=1, max_size=9)), min_size=1, max_size=4
    ),
    st.integers(0, len(RICH)),
)
def test_whatever_is_changed_only_a_model_file_error_comes_out(
    tmp_path: Path, changes: list[tuple[int, bytes]], cut: int
) -> None:
    data = bytearray(RICH)
    for place, new in changes:
        data[place : place + len(new)] = new
    path = tmp_path / "fuzzed.gguf"
    path.write_bytes(data if cut % 3 else data[:cut])
    try:
        file = GGUFFile(path)
    except ModelFileError as error:
        one_line = "\n" not in str(error)
    else:
        one_line = True
        with file:
            for name in file.tensors:
                assert tuple(file.read(name).shape) == file.tensors[name].shape
    assert one_line
