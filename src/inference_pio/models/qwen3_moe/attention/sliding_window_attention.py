"""Sliding windows: none of the published models has one."""

from __future__ import annotations

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return techniques.windows_for_all(
        "every layer was trained to see the whole text, up to 262,144 tokens in Qwen3-Coder; a configuration "
        "with use_sliding_window is refused"
    )
