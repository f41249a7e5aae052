"""Sparse attention: what mistral allows."""

from __future__ import annotations

from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return TechniqueFact(
        "sparse attention",
        "attention",
        "not applicable",
        exact=False,
        reason="within its window a token attends to every other; selecting pages would be an approximation, and no "
        "quality bound guards approximations yet",
    )
