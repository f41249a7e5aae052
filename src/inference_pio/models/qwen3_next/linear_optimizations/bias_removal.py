"""Biases: attention layers may have them (`attention_bias`), published checkpoints have none."""

from __future__ import annotations

from inference_pio.models.qwen3_next.config import Qwen3NextConfig
from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique(config: Qwen3NextConfig) -> TechniqueFact:
    return techniques.bias_removal(config, "attention layers" if config.attention_bias else "")
