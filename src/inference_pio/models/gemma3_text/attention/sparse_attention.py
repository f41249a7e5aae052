"""Sparse attention: what gemma3_text allows."""

from __future__ import annotations

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return techniques.no_sparse_attention(
        "gemma3_text was trained with windows and dense attention within them; selecting pages would be an "
        "approximation, and no quality bound guards approximations yet"
    )
