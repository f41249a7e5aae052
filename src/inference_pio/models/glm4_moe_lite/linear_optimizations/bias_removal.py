"""Biases: where `attention_bias` says so, of the projections down to latents and of the output.

GLM-4.7-Flash has none.
"""

from __future__ import annotations

from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique(config: Glm4MoeLiteConfig) -> TechniqueFact:
    return techniques.bias_removal(config, "attention" if config.attention_bias else "")
