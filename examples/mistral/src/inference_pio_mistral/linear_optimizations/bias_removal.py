"""Biases: mistral has none, so there is none to remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference_pio.plugin import techniques

if TYPE_CHECKING:
    from inference_pio.config import BaseModelConfig
    from inference_pio.plugin.facts import TechniqueFact


def technique(config: BaseModelConfig) -> TechniqueFact:
    return techniques.bias_removal(config, "")
