"""Sliding windows: what glm4_moe_lite allows."""

from __future__ import annotations

from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return TechniqueFact(
        "sliding-window attention",
        "attention",
        "not applicable",
        exact=False,
        reason="no layer of a glm4_moe_lite has a window; cutting the context off would be an approximation, and no "
        "quality bound guards approximations yet",
    )
