"""Sliding windows: what qwen3_next allows."""

from __future__ import annotations

from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return TechniqueFact(
        "sliding-window attention",
        "attention",
        "not applicable",
        exact=False,
        reason="attention layers see everything; cheap memory over long distances is the DeltaNet layers' task",
    )
