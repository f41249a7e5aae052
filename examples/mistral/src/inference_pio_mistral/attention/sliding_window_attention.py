"""The sliding window of Mistral 7B v0.1 (Jiang et al. 2023, section 2): a token sees itself and those before it.

With a window of W, the token at position p sees the positions p - W + 1 to p, in every layer. Keys behind the window
stay in the cache: its blocks belong to whole sequences.
"""

from __future__ import annotations

from inference_pio.plugin.facts import TechniqueFact
from inference_pio_mistral.config import MistralConfig


def technique(config: MistralConfig) -> TechniqueFact:
    window = config.sliding_window
    return TechniqueFact(
        "sliding-window attention",
        "attention",
        "not applicable" if window is None else "active",
        exact=True,
        reason="this checkpoint has no window: every token sees all before it"
        if window is None
        else f"every layer was trained with a window of {window} tokens, and reads no key behind it",
    )
