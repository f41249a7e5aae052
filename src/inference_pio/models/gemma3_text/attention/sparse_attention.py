"""Sparse attention: what gemma3_text allows."""

from __future__ import annotations

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return techniques.sparse_attention(
        "layers with a window read no more than that; the others were trained with dense attention"
    )
