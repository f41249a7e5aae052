"""`inference-pio calibrate`: calibration texts that are none."""

from __future__ import annotations

from pathlib import Path

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
