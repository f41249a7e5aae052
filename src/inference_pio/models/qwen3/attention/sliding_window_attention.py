"""Sliding windows: what qwen3 allows."""

from __future__ import annotations

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return techniques.windows_for_all(
        "the architecture knows windows, but every Qwen3 is published with use_sliding_window false, and a "
        "checkpoint that asks for one is refused"
    )
