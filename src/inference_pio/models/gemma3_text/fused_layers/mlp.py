"""GeGLU (Shazeer 2020) on merged gate and up projections, none of which has a bias; gelu in its tanh form."""

from __future__ import annotations

from inference_pio.layers import GatedMLP
from inference_pio.models.gemma3_text.config import Gemma3TextConfig
from inference_pio.parallel import Shard


def feed_forward(config: Gemma3TextConfig, shard: Shard) -> GatedMLP:
    return GatedMLP(config.hidden_size, config.intermediate_size, shard, activation="gelu_tanh")
