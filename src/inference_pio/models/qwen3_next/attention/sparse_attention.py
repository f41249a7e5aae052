"""Sparse attention: what qwen3_next allows."""

from __future__ import annotations

from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return TechniqueFact(
        "sparse attention",
        "attention",
        "not applicable",
        exact=False,
        reason="only one layer in four keeps tokens at all, and it was trained to see each of them",
    )
