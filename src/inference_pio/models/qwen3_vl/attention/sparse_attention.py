"""Sparse attention: what qwen3_vl allows."""

from __future__ import annotations

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return techniques.dense_throughout("qwen3_vl")
