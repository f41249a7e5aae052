"""What follows a projection is one pass each: norm, rotation and cache write of heads; the router; the experts."""

from __future__ import annotations

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return techniques.gpu_kernels(
        "the router and the experts are one native pass each, norms, rotation and cache write one"
    )
