"""Biases: published Qwen3-VL models have none in the text's layers.

The architecture still knows `attention_bias`, for q, k, v and o together. The vision tower's maps all have biases, and
keep them.
"""

from __future__ import annotations

from inference_pio.models.qwen3_vl.config import Qwen3VLConfig
from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique(config: Qwen3VLConfig) -> TechniqueFact:
    return techniques.bias_removal(config, "the text's attention" if config.attention_bias else "")
