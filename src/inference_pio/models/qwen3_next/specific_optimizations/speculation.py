"""Guessing ahead: what qwen3_next does not allow."""

from __future__ import annotations

from inference_pio.models.qwen3_next.config import Qwen3NextConfig
from inference_pio.plugin.facts import TechniqueFact


def technique(config: Qwen3NextConfig) -> TechniqueFact:
    """Where a layer keeps state, the engine makes no drafts whatever it is asked for."""
    return TechniqueFact(
        "speculative decoding",
        "hardware",
        "not applicable" if config.keeps_state else "active",
        exact=True,
        reason="a state that has taken in a wrong guess cannot be taken back, so nothing is guessed; the checkpoint's "
        "layer for guesses (mtp) is not loaded"
        if config.keeps_state
        else "every layer attends: guesses from a request's own text, where they pay",
    )
