"""Files that are written whole, or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from inference_pio.loader.partial import write_atomically


def test_a_full_disk_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "receipt.json"
    write_atomically(path, b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left.*receipt.json"):
        write_atomically(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_two_that_write_at_once_do_not_share_a_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one writes all of it while the first one is about to give its draft the name."""
    path, sync, nested = tmp_path / "tuned.json", os.fsync, []

    def other_writes_meanwhile(descriptor: int) -> None:
        sync(descriptor)
        if not nested:
            nested.append(True)
            write_atomically(path, b"the other one's, which is longer")

    monkeypatch.setattr(os, "fsync", other_writes_meanwhile)
    write_atomically(path, b"the first one's")
    assert path.read_bytes() == b"the first one's"
    assert list(tmp_path.iterdir()) == [path]
