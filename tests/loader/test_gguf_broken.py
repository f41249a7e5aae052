"""GGUF files that must be refused: each with one line, at once, and without memory for what they only claim."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference_pio.errors import ModelFileError
from inference_pio.loader.checkpoint import open_checkpoint
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


BROKEN = {
    "empty": (b"", "needs 4 bytes, 0 are left"),
    "three bytes": (b"GGU", "needs 4 bytes"),
    "magic only": (b"GGUF", "needs 4 bytes"),
    "zeros": (bytes(64), "is not a GGUF file"),
    "old format": (GGUFBytes(magic=b"GGML").build(), "old GGML file"),
    "version 0": (GGUFBytes(version=0).build(), "big-endian|version 0"),
    "version 1": (GGUFBytes(version=1).build(), "version 1"),
    "version 99": (GGUFBytes(version=99).build(), "version 99"),
    "big-endian": (GGUFBytes(version=3 << 24).build(), "big-endian"),
    "2^62 tensors": (GGUFBytes(tensor_count=2**62).build(), "claims 4611686018427387904 tensors"),
    "10^8 tensors": (GGUFBytes(tensor_count=10**8).build(), "claims 100000000 tensors"),
    "2^62 pairs": (GGUFBytes(pair_count=2**62).build(), "claims 4611686018427387904 metadata entries"),
    "one pair too many": (GGUFBytes(pair_count=2).build(), "tensor 0.*text of"),
    "one tensor too many": (GGUFBytes(tensor_count=3).build(), "tensor 2"),
    "key of 2^63 bytes": (GGUFBytes(pairs=[struct.pack("<Q", 2**63 - 1)]).build(), "more than 65535"),
    "key of 70,000 bytes": (with_pair(pair("k" * 70_000, U8, b"\1")), "more than 65535"),
    "empty key": (with_pair(pair("", U8, b"\1")), "not a usable key"),
    "key with a line break": (with_pair(pair("a\nb", U8, b"\1")), "not a usable key"),
    "key not UTF-8": (with_pair(pair(b"\xff\xfe", U8, b"\1")), "not UTF-8"),
    "string of 4 GB": (with_pair(pair("s", STRING, struct.pack("<Q", 2**32))), "text of 4294967296 bytes"),
    "string past the end": (with_pair(pair("s", STRING, struct.pack("<Q", 10_000))), "needs 10000 bytes"),
    "string not UTF-8": (with_pair(pair("s", STRING, text(b"\xc3("))), "not UTF-8"),
    "strings not UTF-8": (with_pair(pair("s", ARRAY, array(STRING, 1, text(b"\xc3(")))), "not UTF-8"),
    "10^9 strings": (with_pair(pair("s", ARRAY, array(STRING, 10**9))), "claims 1000000000 strings"),
    "strings past the end": (
        with_pair(pair("s", ARRAY, array(STRING, 1, struct.pack("<Q", 10_000)))),
        "needs 10008 bytes",
    ),
    "strings of 2^64-1": (
        with_pair(pair("s", ARRAY, array(STRING, 1, struct.pack("<Q", 2**64 - 1)))),
        "needs 18446744073709551623 bytes",
    ),
    "2^61 numbers": (with_pair(pair("n", ARRAY, array(F32, 2**61))), "bytes are left|are left"),
    "2^61 truth values": (with_pair(pair("n", ARRAY, array(BOOL, 2**61))), "are left"),
    "2^61 arrays": (with_pair(pair("n", ARRAY, array(ARRAY, 2**61))), "claims 2305843009213693952 arrays"),
    "arrays 5,000 deep": (with_pair(pair("n", ARRAY, nested(5000))), "nested more than 4 deep"),
    "value type 99": (with_pair(pair("n", 99, b"\1")), "unknown value type 99"),
    "array of type 99": (with_pair(pair("n", ARRAY, array(99, 1))), "unknown value type 99"),
    "truth value 7": (with_pair(pair("n", BOOL, b"\7")), "truth value 7"),
    "truth value 7 in an array": (with_pair(pair("n", ARRAY, array(BOOL, 2, b"\0\7"))), "truth value 7"),
    "key twice": (with_pair(pair("k", U8, b"\1"), pair("k", U8, b"\2")), "key k.*appears twice"),
    "tensor twice": (
        with_tensor(tensor("a", (32,), 0, 0), tensor("a", (32,), 0, 128), data=256),
        "tensor a.*appears twice",
    ),
    "tensor without name": (with_tensor(tensor("", (32,), 0, 0)), "not a usable name"),
    "tensor name with NUL": (with_tensor(tensor("a\0b", (32,), 0, 0)), "not a usable name"),
    "tensor name of 2,000 bytes": (with_tensor(tensor("n" * 2000, (32,), 0, 0)), "more than 1024"),
    "tensor name not UTF-8": (with_tensor(tensor(b"\xff", (32,), 0, 0)), "not UTF-8"),
    "no dimensions": (with_tensor(tensor("a", (), 0, 0)), "0 dimensions"),
    "five dimensions": (with_tensor(tensor("a", (2, 2, 2, 2, 2), 0, 0)), "5 dimensions"),
    "2^31 dimensions": (with_tensor(tensor("a", (2,), 0, 0, dims=2**31)), "2147483648 dimensions"),
    "dimension 0": (with_tensor(tensor("a", (32, 0), 0, 0)), "impossible shape"),
    "dimension 2^64-32": (with_tensor(tensor("a", (2**64 - 32,), 0, 0)), "impossible shape"),
    "2^33 × 2^33": (with_tensor(tensor("a", (2**33, 2**33), 0, 0)), "impossible shape"),
    "type 99": (with_tensor(tensor("a", (32,), 99, 0)), "number 99, which is unknown; supported: F32"),
    "removed type 4": (with_tensor(tensor("a", (32,), 4, 0)), "Q4_2 .removed"),
    "type not decoded": (with_tensor(tensor("a", (256,), 21, 0)), "type IQ3_S; supported: F32, F16, Q4_0"),
    "row of 33 in Q4_0": (with_tensor(tensor("a", (33,), 2, 0)), "rows of 33 values"),
    "row of 128 in Q4_K": (with_tensor(tensor("a", (128, 2), 12, 0)), "multiples of 256"),
    "offset unaligned": (with_tensor(tensor("a", (32,), 0, 4)), "offset 4, not a multiple of 32"),
    "offset 2^40": (
        with_tensor(tensor("a", (32,), 0, 2**40)),
        "offset 1099511627776, expected 0: it leaves a gap",
    ),
    "offset 2^64-32": (with_tensor(tensor("a", (32,), 0, 2**64 - 32)), "leaves a gap"),
    "overlap": (with_tensor(tensor("a", (32,), 0, 0), tensor("b", (32,), 0, 96)), "tensor b.*overlaps a"),
    "same place": (with_tensor(tensor("a", (32,), 0, 0), tensor("b", (32,), 0, 0)), "overlaps"),
    "alignment 0": (with_pair(pair("general.alignment", U32, u32(0))), "alignment.*is 0"),
    "alignment 3": (with_pair(pair("general.alignment", U32, u32(3))), "alignment.*is 3"),
    "alignment 2^31": (with_pair(pair("general.alignment", U32, u32(2**31))), "alignment.*is 2147483648"),
    "alignment as text": (with_pair(pair("general.alignment", STRING, text("32"))), "alignment.*is '32'"),
    "alignment as a float": (
        with_pair(pair("general.alignment", F32, struct.pack("<f", 32))),
        "alignment.*is 32.0",
    ),
    "data cut": (GGUFBytes().build()[:-1], r"download incomplete: \d+ of \d+ bytes"),
    "no data": (GGUFBytes(data=b"").build(), "download incomplete"),
    "500 GB claimed": (
        with_tensor(tensor("a", (1_000_000, 125_000), 0, 0), data=0),
        r"download incomplete: \d+ of 500000000\d+ bytes",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_refused_with_one_line(case: str, tmp_path: Path) -> None:
    data, message = BROKEN[case]
    path = tmp_path / "broken.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=message) as caught:
        open_checkpoint(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


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


def test_a_header_that_claims_500_gb_takes_no_memory_and_no_time(tmp_path: Path) -> None:
    path = tmp_path / "lying.gguf"
    claims = [
        with_tensor(tensor("a", (1_000_000, 125_000), 0, 0), data=0),
        with_pair(pair("s", ARRAY, array(STRING, 5 * 10**11))),
        with_pair(pair("s", STRING, struct.pack("<Q", 5 * 10**11))),
        with_pair(pair("s", ARRAY, array(U8, 5 * 10**11))),
    ]
    process = psutil.Process()
    before, started = process.memory_info().rss, time.monotonic()
    for data in claims:
        path.write_bytes(data)
        with pytest.raises(ModelFileError):
            GGUFFile(path)
    assert process.memory_info().rss - before < 5_000_000
    assert time.monotonic() - started < 1


def test_a_large_sparse_file_does_not_make_its_claims_affordable(tmp_path: Path) -> None:
    path = tmp_path / "sparse.gguf"
    path.write_bytes(GGUFBytes(pairs=[pair("s", ARRAY, array(U8, 10**11))]).build())
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
