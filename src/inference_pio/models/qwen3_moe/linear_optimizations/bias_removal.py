"""Biases: the architecture has none, and a checkpoint that brings one is refused by its configuration or its names."""

from __future__ import annotations

from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig
from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique(config: Qwen3MoeConfig) -> TechniqueFact:
    return techniques.bias_removal(config, "")
