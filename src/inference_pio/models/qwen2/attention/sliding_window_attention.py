"""Sliding windows: what qwen2 allows."""

from __future__ import annotations

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return techniques.windows_for_all(
        "the architecture knows windows, but Qwen2.5 is published without (use_sliding_window is false), and "
        "checkpoints that ask for one are refused"
    )
