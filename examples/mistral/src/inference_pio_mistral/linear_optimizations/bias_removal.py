"""Biases: mistral has none, so there is none to remove."""

from __future__ import annotations

from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return TechniqueFact(
        "bias removal",
        "hardware",
        "not applicable",
        exact=True,
        reason="no linear map of a mistral adds a bias",
    )
