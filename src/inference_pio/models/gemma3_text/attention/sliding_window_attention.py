"""Sliding windows: the model was trained with them, so that attending to less is exact here."""

from __future__ import annotations

from inference_pio.models.gemma3_text.config import SLIDING, Gemma3TextConfig
from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique(config: Gemma3TextConfig) -> TechniqueFact:
    sliding = config.layer_types.count(SLIDING)
    if not sliding:
        return techniques.windows_for_all("every layer of this checkpoint attends to everything")
    saved = config.use_sliding_window_attention
    return TechniqueFact(
        "sliding-window attention",
        "attention",
        "active" if saved else "dormant",
        exact=True,
        reason=f"{sliding} of {config.num_hidden_layers} layers see the last {config.sliding_window} positions: keys "
        "before them are not read, but stay in the cache"
        if saved
        else "use_sliding_window_attention is off: keys before a window are read, and count for nothing",
    )
