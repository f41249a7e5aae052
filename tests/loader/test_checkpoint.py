"""What `open_checkpoint` opens, and what it refuses unread."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from inference_pio.errors import ModelFileError, UnsafeWeightsError
from inference_pio.loader.checkpoint import open_checkpoint
from support.gguf_bytes import GGUFBytes


def save(path: Path) -> Path:
    save_file({"a": torch.ones(2)}, path)
    return path


def test_a_directory_with_either_format(tmp_path: Path) -> None:
    (tmp_path / "one.gguf").write_bytes(GGUFBytes().build())
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.format == "gguf"
        assert checkpoint.path == tmp_path / "one.gguf"
    save(tmp_path / "model.safetensors")
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.format == "safetensors"


def test_gguf_without_an_ending_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    (tmp_path / "sha256-1234").write_bytes(GGUFBytes().build())
    with open_checkpoint(tmp_path / "sha256-1234") as checkpoint:
        assert checkpoint.format == "gguf"


@pytest.mark.parametrize(
    ("name", "container"),
    [
        ("pytorch_model.bin", "pickle"),
        ("model.pt", "pickle"),
        ("model.pth", "pickle"),
        ("model.PKL", "pickle"),
        ("model.ckpt", "pickle"),
        ("tf_model.h5", "HDF5"),
        ("weights.npz", "NumPy"),
        ("flax_model.msgpack", "Flax"),
        ("model.onnx", "ONNX"),
    ],
)
@pytest.mark.parametrize("directly", [True, False])
def test_other_containers_are_refused_by_name_and_unread(
    name: str, container: str, directly: bool, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / name)  # opening it would wait, reading it would fail
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        UnsafeWeightsError, match=f"{container} weights are not loaded.*convert them to safetensors"
    ):
        open_checkpoint(tmp_path / name if directly else tmp_path)


@pytest.mark.parametrize("name", ["m.gguf", "m.safetensors", "m", "m.safetensors.index.json"])
def test_what_is_not_a_file_is_refused_at_once(name: str, tmp_path: Path) -> None:
    pipe, link, listening = tmp_path / f"pipe-{name}", tmp_path / f"link-{name}", tmp_path / f"s-{name}"
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "nowhere")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(listening))  # socket paths must be short
        for path, message in (
            (pipe, "is a pipe, not a file"),
            (link, "cannot be opened: No such file"),
            (tmp_path / name, "cannot be opened: No such file"),
            (listening, "cannot be opened|is a socket"),
        ):
            with pytest.raises(ModelFileError, match=message):
                open_checkpoint(path)


def test_a_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "zero.gguf").symlink_to("/dev/zero")
    with pytest.raises(ModelFileError, match="is a device, not a file"):
        open_checkpoint(tmp_path / "zero.gguf")


def test_a_directory_with_a_name_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(ModelFileError, match="is a directory, not a file"):
        open_checkpoint(tmp_path)


def test_a_directory_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelFileError, match="holds no weights"):
        open_checkpoint(tmp_path)


def test_a_directory_with_two_gguf_files(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(GGUFBytes().build())
    with pytest.raises(ModelFileError, match="holds 2 GGUF files: a.gguf, b.gguf .name one of them"):
        open_checkpoint(tmp_path)


def test_some_other_file(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ModelFileError, match="is neither a GGUF nor a safetensors file"):
        open_checkpoint(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    "name", ["a\nb.gguf", "ž🦙.gguf", "x" * 250 + ".gguf", "bad\udcff.gguf", "nul\0.gguf"]
)
def test_messages_stay_one_line_whatever_the_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError) as caught:
        open_checkpoint(tmp_path / name)
    assert str(caught.value).isprintable()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = save(tmp_path / "model.safetensors")
    path.chmod(0)
    with pytest.raises(ModelFileError, match="Permission denied"):
        open_checkpoint(path)
