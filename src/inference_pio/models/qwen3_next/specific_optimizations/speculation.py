"""Guessing ahead: what a wrong guess costs a model with state."""

from __future__ import annotations

from inference_pio.models.qwen3_next.config import Qwen3NextConfig
from inference_pio.plugin.facts import TechniqueFact


def technique(config: Qwen3NextConfig) -> TechniqueFact:
    """The engine drafts from a request's own text, and measures whether that pays.

    A draft's row goes through ten experts of its own in each layer, so it costs more here than in a dense model. A
    state takes in a draft only once it is known to be right (`cache/specs.py`, StateCache).
    """
    return TechniqueFact(
        "speculative decoding",
        "hardware",
        "active",
        exact=True,
        reason="guesses from a request's own text, where they pay; a state takes in those that were right, afterwards"
        if config.keeps_state
        else "every layer attends: guesses from a request's own text, where they pay",
    )
