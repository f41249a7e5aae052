"""Biases: attention and feed-forward blocks have one where `attention_bias` or `mlp_bias` gives it to them.

Llama's own checkpoints have none; those that were converted between frameworks may carry some that are zero.
"""

from __future__ import annotations

from inference_pio.models.llama.config import LlamaConfig
from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique(config: LlamaConfig) -> TechniqueFact:
    blocks = {"attention": config.attention_bias, "feed-forward blocks": config.mlp_bias}
    return techniques.bias_removal(config, " and ".join(name for name, biased in blocks.items() if biased))
