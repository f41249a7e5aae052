"""Sliding windows: what mistral allows."""

from __future__ import annotations

from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return TechniqueFact(
        "sliding-window attention",
        "attention",
        "not applicable",
        exact=False,
        reason="no layer of a mistral has a window; cutting the context off would be an approximation, and no quality "
        "bound guards approximations yet",
    )
