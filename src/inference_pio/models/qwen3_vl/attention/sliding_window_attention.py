"""Sliding windows: what qwen3_vl allows."""

from __future__ import annotations

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return techniques.windows_for_all(
        "every layer of the text sees all earlier tokens, every layer of the vision tower all of an image; a "
        "checkpoint that names a window is refused"
    )
