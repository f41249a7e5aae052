"""Sparse attention: qwen3_moe is sparse in its feed-forward blocks, not here."""

from __future__ import annotations

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return techniques.sparse_attention(
        "attention is dense in every layer, which is where a long text's time goes"
    )
