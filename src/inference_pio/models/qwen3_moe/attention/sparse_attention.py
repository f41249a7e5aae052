"""Sparse attention: qwen3_moe is sparse in its feed-forward blocks, not here."""

from __future__ import annotations

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return techniques.no_sparse_attention(
        "attention is dense in every layer; leaving blocks of the cache out would be an approximation, and no "
        "quality bound guards approximations yet"
    )
