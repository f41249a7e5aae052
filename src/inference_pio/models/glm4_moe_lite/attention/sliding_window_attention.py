"""Sliding windows: what glm4_moe_lite allows."""

from __future__ import annotations

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return techniques.no_sliding_window(
        "no layer of a glm4_moe_lite has a window, and its latents are read as a whole"
    )
