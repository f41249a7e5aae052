"""Sparse attention: what qwen3_next allows."""

from __future__ import annotations

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return techniques.sparse_attention(
        "only one layer in four keeps tokens at all, and it was trained to see each of them"
    )
