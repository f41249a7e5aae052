"""Sliding windows: the model was trained with them, so that attending to less is exact here."""

from __future__ import annotations

from inference_pio.models.gemma3_text.config import SLIDING, Gemma3TextConfig
from inference_pio.plugin.facts import TechniqueFact


def technique(config: Gemma3TextConfig) -> TechniqueFact:
    sliding = config.layer_types.count(SLIDING)
    return TechniqueFact(
        "sliding-window attention",
        "attention",
        "active" if sliding else "not applicable",
        exact=True,
        reason=f"{sliding} of {config.num_hidden_layers} layers see the last {config.sliding_window} positions: keys "
        "before them are not read, but stay in the cache"
        if sliding
        else "every layer of this checkpoint attends to everything",
    )
