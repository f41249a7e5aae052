"""`inference-pio calibrate`: calibration texts that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inference_pio.cli.calibrate import read_text
from inference_pio.errors import UnavailableError, UsageError


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty: give a few thousand words"),
        (b" \n\t ", "is empty"),
        (b"\x7fELF\x02\x01\x01\x00", "is not text: byte 7 is 0"),
        (b"abc\xff\xfe", "byte 3 of 5 is no UTF-8"),
    ],
)
def test_what_is_no_text_is_told(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "text"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=words):
        read_text(path)


def test_a_text_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="No such file"):
        read_text(tmp_path / "none")


def test_the_usual_text_is_prose_and_code() -> None:
    text = read_text(None)
    assert len(text) > 60_000
    assert "ROMEO" in text
    assert "def " in text


def test_a_text_without_an_end_is_told_and_not_read_for_ever() -> None:
    with pytest.raises(UsageError, match="more than 16 MiB: a few thousand words are enough"):
        read_text(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (("--dtype", "floaty"), "got 'floaty'"),
        (("--quantize", "int9"), "quantize must be int8 or int4"),
    ],
)
def test_wrong_words_are_told_before_anything_is_measured(
    cli: Any, typed: tuple[str, ...], words: str
) -> None:
    """There is no such model: it is not looked for."""
    cli("calibrate", "no-such-model", *typed).complains(2, words)
