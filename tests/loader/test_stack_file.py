"""The file of stacks: written once, mapped from then on, and never half there."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import filelock
import pytest
import torch

from inference_pio.errors import ResourceError
from inference_pio.loader.stack_file import StackFile

SIZES = [100, 64, 4096]


def enough(needed: int) -> None:
    assert needed == 4096 + 128 + 64 + 4096


def filled(path: Path, key: str = "one\n", value: int = 1) -> None:
    with StackFile(path, key, SIZES, enough) as file:
        assert not file.complete
        for number, size in enumerate(SIZES):
            file.take(size).fill_(value + number)
        file.finish()
        assert file.complete


def test_what_was_written_is_there_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.stacks"
    filled(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with StackFile(path, "one\n", SIZES, enough) as file:
        assert file.complete
        pieces = [file.take(size) for size in SIZES]
    for number, (piece, size) in enumerate(zip(pieces, SIZES, strict=True)):
        assert torch.equal(piece, torch.full((size,), 1 + number, dtype=torch.uint8))
        assert piece.data_ptr() % 64 == 0
    if sys.platform == "linux":  # what nobody can write counts against no limit of the process
        mapped = [
            line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line
        ]
        assert {fields[1] for fields in mapped} == {"r--p"}


@pytest.mark.parametrize("spoil", ["another key", "cut off", "another size", "no header"])
def test_a_file_that_does_not_fit_is_written_again(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "x.stacks"
    filled(path, "two\n" if spoil == "another key" else "one\n", 5)
    if spoil == "cut off":
        os.truncate(path, 5000)
    if spoil == "another size":
        os.truncate(path, path.stat().st_size + 1)
    if spoil == "no header":
        path.write_bytes(bytes(path.stat().st_size))
    filled(path)
    with StackFile(path, "one\n", SIZES, enough) as file:
        assert file.complete


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    filled(tmp_path / "other")
    link = tmp_path / "x.stacks"
    link.symlink_to(tmp_path / "other")
    filled(link, "two\n")
    assert not link.is_symlink()
    with StackFile(tmp_path / "other", "one\n", SIZES, enough) as file:
        assert file.complete


def test_what_was_not_finished_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "x.stacks"

    def stop() -> None:
        with StackFile(path, "one\n", SIZES, enough) as file:
            file.take(100).fill_(1)
            raise KeyError

    with pytest.raises(KeyError):
        stop()
    assert [entry.name for entry in tmp_path.iterdir() if not entry.name.endswith(".lock")] == []
    filled(path)


def test_no_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(needed: int) -> None:
        raise ResourceError(f"{needed} bytes are too many")

    path = tmp_path / "x.stacks"
    with pytest.raises(ResourceError, match="8384 bytes are too many"):
        StackFile(path, "one\n", SIZES, refuse)

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ResourceError, match=r"experts on disk take: No space left on device; free some"):
        StackFile(path, "one\n", SIZES, enough)
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir() if not entry.name.endswith(".lock")] == []
    filled(path)


def test_two_processes_do_not_write_it_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.stacks"
    with filelock.FileLock(f"{path}.lock"), pytest.raises(ResourceError, match="written by another process"):
        StackFile(path, "one\n", SIZES, enough)
    filled(path)
    with filelock.FileLock(f"{path}.lock"), StackFile(path, "one\n", SIZES, enough) as file:
        assert file.complete, "reading needs no lock"
