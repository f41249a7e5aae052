"""Sparse attention: what glm4_moe_lite allows."""

from __future__ import annotations

from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return TechniqueFact(
        "sparse attention",
        "attention",
        "not applicable",
        exact=False,
        reason="every layer was trained with dense attention (its larger relative glm_moe_dsa has an indexer that "
        "selects tokens); selecting pages would be an approximation, and no quality bound guards approximations yet",
    )
