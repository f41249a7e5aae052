"""Sparse attention: what qwen2 allows."""

from __future__ import annotations

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return techniques.dense_throughout("qwen2")
