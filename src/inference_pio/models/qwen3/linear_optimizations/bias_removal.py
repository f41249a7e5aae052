"""Biases: where Qwen2.5 adds one to queries and keys, Qwen3 normalises them; published models have none at all.

The architecture still knows `attention_bias`, for q, k, v and o together. One that is not zero cannot be folded into
anything behind it: those of q and k stand in front of a norm.
"""

from __future__ import annotations

from inference_pio.models.qwen3.config import Qwen3Config
from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique(config: Qwen3Config) -> TechniqueFact:
    return techniques.bias_removal(config, "attention" if config.attention_bias else "")
