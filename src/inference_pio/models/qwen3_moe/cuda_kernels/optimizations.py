"""What follows a projection is one pass each: norm, rotation and cache write of heads; the router; the experts."""

from __future__ import annotations

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return techniques.fused_operations(
        "the router is one, the experts are one, and so are norms, rotation and cache write"
    )
