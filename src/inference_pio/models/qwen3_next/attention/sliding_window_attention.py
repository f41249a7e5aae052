"""Sliding windows: what qwen3_next allows."""

from __future__ import annotations

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return techniques.windows_for_all(
        "attention layers see everything; cheap memory over long distances is the DeltaNet layers' task"
    )
