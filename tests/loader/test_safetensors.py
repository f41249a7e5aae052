"""Reading safetensors files that the safetensors package wrote, and refusing broken ones."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

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


def test_what_is_changed_below_is_good(tmp_path: Path) -> None:
    with SafetensorsFile(write(tmp_path, encoded(GOOD))) as file:
        assert list(file.tensors) == ["a", "b"]


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = encoded(GOOD)
    for length in range(len(whole)):
        with pytest.raises(ModelFileError):
            SafetensorsFile(write(tmp_path, whole[:length]))


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
