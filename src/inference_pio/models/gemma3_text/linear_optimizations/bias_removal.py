"""Bias removal: gemma3_text has no bias to remove.

`attention_bias` of config.json must be false, and no other map of the architecture could have one.
"""

from __future__ import annotations

from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return TechniqueFact(
        "bias removal",
        "hardware",
        "not applicable",
        exact=True,
        reason="no linear map of gemma3_text adds a bias",
    )
