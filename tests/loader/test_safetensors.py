"""Reading safetensors files that the safetensors package wrote, and refusing broken ones."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from inference_pio.errors import ModelFileError
from inference_pio.loader.checkpoint import open_checkpoint
from inference_pio.loader.safetensors import DTYPES, SafetensorsFile
from inference_pio.loader.safetensors_header import ITEM_BYTES
from support.packed_gguf import decode

GOOD: dict[str, Any] = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
}


def encoded(header: dict[str, Any] | bytes, data: bytes = bytes(32), length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def changed(name: str, **fields: Any) -> dict[str, Any]:
    return {**GOOD, name: {**GOOD[name], **fields}}


def write(folder: Path, data: bytes, name: str = "model.safetensors") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def samples() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name, dtype in DTYPES.items():
        bits = torch.randint(
            0, 2 if dtype == torch.bool else 256, (3 * 4 * dtype.itemsize,), generator=generator
        )
        tensors[f"t.{name}"] = bits.to(torch.uint8).view(dtype).view(3, 4).clone()
    tensors["scalar"] = torch.tensor(1.5)
    tensors["none"] = torch.zeros(0, 7)
    return tensors


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and bytes_of(left) == bytes_of(right)


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def test_sizes_are_those_of_the_types() -> None:
    assert {name: dtype.itemsize for name, dtype in DTYPES.items()} == ITEM_BYTES


def test_round_trip_of_every_type(tmp_path: Path) -> None:
    tensors = samples()
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.format == "safetensors"
        assert checkpoint.tensors.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert checkpoint.tensors[name].shape == tuple(tensor.shape)
            assert checkpoint.tensors[name].nbytes == tensor.nbytes
            assert same_bits(checkpoint.read(name), tensor)


def test_conversion_on_reading_in_pieces(tmp_path: Path) -> None:
    tensors = {
        "f32": torch.randn(300, 1001),
        "bf16": torch.randn(700, 1001).bfloat16(),
        "f16": torch.randn(5, 7).half(),
        "f64": torch.randn(5, 7).double(),
    }
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    with SafetensorsFile(path) as file:
        for name, tensor in tensors.items():
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                assert same_bits(file.read(name, dtype), tensor.to(dtype))


@pytest.mark.parametrize("name", ["t.I8", "t.U8", "t.F8_E4M3", "t.I32", "t.BOOL"])
def test_integers_and_scaled_floats_are_not_taken_for_weights(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(samples(), path)
    with SafetensorsFile(path) as file, pytest.raises(ModelFileError, match="only floating point weights"):
        file.read(name, torch.bfloat16)


BROKEN = {
    "empty": (b"", "has 0 bytes"),
    "seven bytes": (bytes(7), "has 7 bytes"),
    "header of 0 bytes": (bytes(8), "not JSON"),
    "header of 2^63 bytes": (encoded(GOOD, length=2**63), "claims a header of 9223372036854775808 bytes"),
    "header of 200 MB": (encoded(GOOD, length=200_000_000), "more than 100000000"),
    "header beyond the end": (encoded(GOOD, length=50_000), r"download incomplete: \d+ of at least 50008"),
    "not JSON": (encoded(b"{{"), "not JSON"),
    "an array": (encoded(b"[1]"), "must be a JSON object"),
    "not UTF-8": (encoded(b'{"\xff": 1}'), "not JSON"),
    "100,000 deep": (encoded(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "nested too deep|not JSON"),
    "NaN": (encoded(b'{"a": NaN}'), "NaN is not JSON"),
    "number of 10,000 digits": (encoded(b'{"a": ' + b"9" * 10_000 + b"}"), "not JSON"),
    "tensor twice": (
        encoded(
            b'{"a": {"dtype":"F32","shape":[8],"data_offsets":[0,32]},'
            b'"a": {"dtype":"F32","shape":[8],"data_offsets":[0,32]}}'
        ),
        "'a' appears twice",
    ),
    "field twice": (
        encoded(b'{"a": {"dtype":"F32","dtype":"F32","shape":[8],"data_offsets":[0,32]}}'),
        "appears twice",
    ),
    "unknown field": (encoded(changed("a", extra=1)), "tensor a.*unknown field"),
    "field missing": (encoded({"a": {"dtype": "F32", "shape": [8]}}), "missing required field"),
    "entry is a list": (encoded({"a": []}), "tensor a"),
    "metadata of numbers": (encoded({**GOOD, "__metadata__": {"a": 1}}), "__metadata__"),
    "overlap": (encoded(changed("b", data_offsets=[20, 28])), "tensor b.*overlaps a"),
    "hole": (encoded(changed("b", data_offsets=[28, 36]), bytes(36)), "tensor b.*hole after a"),
    "hole at the start": (
        encoded({"a": {"dtype": "F32", "shape": [6], "data_offsets": [8, 32]}}),
        "hole after the header",
    ),
    "trailing bytes": (encoded(GOOD, bytes(33)), "has 1 bytes after its last tensor"),
    "truncated": (encoded(GOOD, bytes(31)), r"download incomplete: \d+ of \d+ bytes"),
    "negative offsets": (encoded(changed("a", data_offsets=[-24, 0])), "tensor a"),
    "reversed offsets": (encoded(changed("a", data_offsets=[24, 0])), "tensor a"),
    "three offsets": (encoded(changed("a", data_offsets=[0, 12, 24])), "tensor a"),
    "float offset": (encoded(changed("a", data_offsets=[0, 24.5])), "tensor a"),
    "shape overflow": (encoded(changed("a", shape=[2**33, 2**33])), "impossible shape"),
    "negative size": (encoded(changed("a", shape=[-2, -3])), "impossible shape"),
    "float size": (encoded(changed("a", shape=[2.5, 3])), "tensor a"),
    "truth as size": (encoded(changed("a", shape=[True, 6])), "tensor a"),
    "size above 64 bits": (encoded(changed("a", shape=[2**70])), "tensor a"),
    "product is not the bytes": (encoded(changed("a", shape=[2, 4])), "needs 32 bytes"),
    "unknown type": (encoded(changed("a", dtype="Q9")), "type 'Q9', which is unknown"),
    "type is a number": (encoded(changed("a", dtype=3)), "tensor a"),
    "no tensors": (encoded({"__metadata__": {}}, b""), "holds no tensor"),
    "empty name": (encoded({"": GOOD["a"]}, bytes(24)), "not a usable tensor name"),
    "NUL in a name": (encoded({"a\0": GOOD["a"]}, bytes(24)), "not a usable tensor name"),
    "line break in a name": (encoded({"a\nb": GOOD["a"]}, bytes(24)), "not a usable tensor name"),
    "surrogate in a name": (encoded(b'{"\\ud800": {}}', b""), "not a usable tensor name"),
    "70,000 tensors": (
        encoded({f"t{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(70_000)}, b""),
        "lists 70000 tensors, more than 65536",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_refused_with_one_line(case: str, tmp_path: Path) -> None:
    data, message = BROKEN[case]
    path = write(tmp_path, data)
    with pytest.raises(ModelFileError, match=message) as caught:
        open_checkpoint(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


def test_what_the_broken_files_were_made_from_is_good(tmp_path: Path) -> None:
    with SafetensorsFile(write(tmp_path, encoded(GOOD))) as file:
        assert list(file.tensors) == ["a", "b"]


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = encoded(GOOD)
    for length in range(len(whole)):
        with pytest.raises(ModelFileError):
            SafetensorsFile(write(tmp_path, whole[:length]))


def test_a_header_that_lies_takes_no_memory(tmp_path: Path) -> None:
    lying = {"a": {"dtype": "F32", "shape": [125 * 10**9], "data_offsets": [0, 5 * 10**11]}}
    path = write(tmp_path, encoded(lying, b""))
    process = psutil.Process()
    before = process.memory_info().rss
    with pytest.raises(ModelFileError, match=r"download incomplete: \d+ of 5000000000\d\d bytes"):
        SafetensorsFile(path)
    assert process.memory_info().rss - before < 5_000_000


def test_a_file_that_shrinks_after_opening_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    path = write(tmp_path, encoded(GOOD))
    with SafetensorsFile(path) as file:
        os.truncate(path, 150)
        with pytest.raises(ModelFileError, match="changed while it was read"):
            file.read("b")


@settings(max_examples=400, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 230), st.binary(min_size=1, max_size=6)), min_size=1, max_size=4),
    st.booleans(),
)
def test_whatever_is_changed_only_a_model_file_error_comes_out(
    tmp_path: Path, changes: list[tuple[int, bytes]], insert: bool
) -> None:
    data = bytearray(encoded(GOOD))
    for place, new in changes:
        data[place : place if insert else place + len(new)] = new
    try:
        file = SafetensorsFile(write(tmp_path, bytes(data)))
    except ModelFileError as error:
        one_line = "\n" not in str(error)
    else:
        one_line = True
        with file:
            for name in file.tensors:
                assert tuple(file.read(name).shape) == file.tensors[name].shape
    assert one_line


# Sharded ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A directory of two shards and their index."""
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"a": torch.arange(6.0), "b": torch.ones(2, 2).bfloat16()}, folder / "m-1.safetensors")
    save_file({"c": torch.full((3,), 7.0)}, folder / "m-2.safetensors")
    write_index(folder, {"a": "m-1.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"})
    return folder


def write_index(folder: Path, weight_map: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 44}, "weight_map": weight_map})
    )


def test_shards_read_as_one(sharded: Path) -> None:
    with open_checkpoint(sharded) as checkpoint:
        assert set(checkpoint.tensors) == {"a", "b", "c"}
        assert torch.equal(checkpoint.read("a"), torch.arange(6.0))
        assert torch.equal(checkpoint.read("b"), torch.ones(2, 2).bfloat16())
        assert torch.equal(checkpoint.read("c", torch.bfloat16), torch.full((3,), 7.0).bfloat16())


INDICES = {
    "missing shard": (
        {"a": "m-1.safetensors", "b": "m-1.safetensors", "c": "m-3.safetensors"},
        "m-3.* is missing",
    ),
    "parent": ({"a": "../m-1.safetensors"}, "not the name of a safetensors file in the same folder"),
    "absolute": ({"a": "/etc/passwd"}, "not the name"),
    "Windows' separators": ({"a": "x\\m-1.safetensors"}, "not the name"),
    "drive": ({"a": "C:m-1.safetensors"}, "not the name"),
    "folder": ({"a": "."}, "not the name"),
    "pickle": ({"a": "m-1.bin"}, "not the name of a safetensors"),
    "NUL": ({"a": "m\0.safetensors"}, "not the name"),
    "number": ({"a": 1}, "names no file for a"),
    "empty": ({}, "lists no tensors"),
    "list": (["m-1.safetensors"], "lists no tensors"),
    "wrong shard": (
        {"a": "m-2.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"},
        "m-1.safetensors holds, against the index, 1 tensors: a",
    ),
    "not listed": (
        {"a": "m-1.safetensors", "c": "m-2.safetensors"},
        "holds, against the index, 1 tensors: b",
    ),
    "not in the shard": (
        {"a": "m-1.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors", "d": "m-2.safetensors"},
        "m-2.safetensors lacks 1 tensors: d",
    ),
    "name with a line break": ({"a\nb": "m-1.safetensors"}, "not a usable tensor name"),
}


@pytest.mark.parametrize("case", INDICES)
def test_an_index_that_does_not_fit_is_refused(case: str, sharded: Path) -> None:
    weight_map, message = INDICES[case]
    write_index(sharded, weight_map)
    with pytest.raises(ModelFileError, match=message) as caught:
        open_checkpoint(sharded)
    assert "\n" not in str(caught.value)


def test_an_index_that_lists_a_tensor_twice_is_refused(sharded: Path) -> None:
    path = sharded / "model.safetensors.index.json"
    path.write_text('{"weight_map": {"a": "m-1.safetensors", "a": "m-2.safetensors"}}')
    with pytest.raises(ModelFileError, match="'a' appears twice"):
        open_checkpoint(sharded)


def test_a_shard_that_links_out_of_the_folder_is_refused(sharded: Path) -> None:
    outside = sharded.parent / "outside.safetensors"
    (sharded / "m-2.safetensors").rename(outside)
    (sharded / "m-2.safetensors").symlink_to(outside)
    with pytest.raises(ModelFileError, match="leads out of the checkpoint's folder"):
        open_checkpoint(sharded)


def test_links_inside_the_hub_cache_are_followed(sharded: Path) -> None:
    repository = sharded.parent / "models--org--name"
    snapshot, blobs = repository / "snapshots" / "abc", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(sharded.iterdir())):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(blobs / str(number))
    with open_checkpoint(snapshot) as checkpoint:
        assert set(checkpoint.tensors) == {"a", "b", "c"}


def blocks(kinds: dict[str, str], dtype: str = "U8", shape: tuple[int, ...] = (3, 40)) -> bytes:
    """One tensor `a` of two blocks of Q4_1 a row, and what the metadata says of it."""
    size = DTYPES[dtype].itemsize
    for extent in shape:
        size *= extent
    notes = {f"blocks:{name}": kind for name, kind in kinds.items()}
    header = {"__metadata__": notes, "a": {"dtype": dtype, "shape": list(shape), "data_offsets": [0, size]}}
    values = torch.randint(0, 60, (size,), generator=torch.Generator().manual_seed(4), dtype=torch.uint8)
    return encoded(header, values.numpy().tobytes())


def test_tensors_of_blocks_are_what_their_blocks_stand_for(tmp_path: Path) -> None:
    data = blocks({"a": "Q4_1"})
    rows = torch.frombuffer(bytearray(data[-120:]), dtype=torch.uint8).view(3, 40)
    with open_checkpoint(write(tmp_path, data)) as checkpoint:
        assert checkpoint.tensors["a"].dtype == "Q4_1"
        assert checkpoint.tensors["a"].shape == (3, 64)
        assert torch.equal(checkpoint.read_blocks("a"), rows)
        assert torch.equal(checkpoint.read_blocks("a", (1, 2)), rows[1:])
        expected = decode(rows, "Q4_1")
        assert torch.equal(checkpoint.read("a"), expected)
        assert torch.equal(checkpoint.read("a", torch.bfloat16, (2, 1)), expected[2:].bfloat16())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (blocks({"b": "Q4_1"}), "tensor b: is said to be Q4_1 and is not there"),
        (blocks({"a": "Q9"}), r"tensor a: is blocks of 'Q9'; known: Q4_0, Q4_1"),
        (blocks({"a": "Q8_0"}), r"tensor a: is U8 \[3, 40\], no rows of Q8_0's 34 bytes"),
        (blocks({"a": "Q4_1"}, "I8"), r"tensor a: is I8 \[3, 40\], no rows of Q4_1's 20 bytes"),
        (blocks({"a": "Q4_1"}, shape=(120,)), r"tensor a: is U8 \[120\], no rows of Q4_1's 20 bytes"),
    ],
)
def test_blocks_that_are_none(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        open_checkpoint(write(tmp_path, data))
