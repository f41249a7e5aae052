"""Files that were opened for this process are read as they were then, whatever lies there now."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inference_pio import given


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given, "_descriptors", {})


def test_a_file_that_was_given_is_the_one_that_was_opened(tmp_path: Path) -> None:
    file, other = tmp_path / "model", tmp_path / "other"
    file.write_text("the first")
    opened = os.open(file, os.O_RDONLY)
    given.give({str(file): opened})
    other.write_text("another")
    other.rename(file)
    assert file.read_text() == "another"
    assert given.text_now(file) == "the first"
    file.unlink()
    assert given.is_there(file)
    assert given.text_now(file) == "the first"
    assert given.names_in(tmp_path) == ["model"]
    os.close(opened)


def test_other_files_are_opened_by_their_path(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("plain")
    (tmp_path / "a").write_text("")
    assert given.text_now(tmp_path / "b") == "plain"
    assert given.names_in(tmp_path) == ["a", "b"]
    assert not given.is_there(tmp_path / "c")
    with pytest.raises(FileNotFoundError):
        given.open_to_read(tmp_path / "c")


def test_files_of_the_system_are_kept_open(tmp_path: Path) -> None:
    file = tmp_path / "status"
    file.write_text("1")
    given.keep([str(file), str(tmp_path / "none")])
    with file.open("r+") as changing:  # the same file says something else now
        changing.write("2")
    assert given.text_now(file) == "2"
    assert not given.is_there(tmp_path / "none")
    os.close(given._descriptors[str(file)])
