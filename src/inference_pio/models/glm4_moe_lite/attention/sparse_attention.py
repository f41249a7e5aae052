"""Sparse attention: what glm4_moe_lite allows."""

from __future__ import annotations

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return techniques.no_sparse_attention(
        "every layer was trained with dense attention (its larger relative glm_moe_dsa has an indexer that selects "
        "tokens), and the cache holds latents, of which no bound of a key follows"
    )
