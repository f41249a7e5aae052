"""Biases: `attention_bias` of config.json must be false, and no other map of the architecture could have one."""

from __future__ import annotations

from inference_pio.models.gemma3_text.config import Gemma3TextConfig
from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique(config: Gemma3TextConfig) -> TechniqueFact:
    return techniques.bias_removal(config, "")
