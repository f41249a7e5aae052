"""Sparse attention: what qwen3_vl allows."""

from __future__ import annotations

from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return TechniqueFact(
        "sparse attention",
        "attention",
        "not applicable",
        exact=False,
        reason="qwen3_vl was trained with dense attention in every layer; selecting pages would be an approximation, "
        "and no quality bound guards approximations yet",
    )
