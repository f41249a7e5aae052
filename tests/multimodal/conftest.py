from __future__ import annotations

from typing import Any

import pytest
from PIL import Image, ImageFile


@pytest.fixture
def never_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to decode fails the test, and so does letting Pillow open a file."""

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("decoded before the limits were checked")

    monkeypatch.setattr(Image, "open", refuse)
    monkeypatch.setattr(Image.Image, "load", refuse)
    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
