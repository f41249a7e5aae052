"""SwiGLU (Shazeer 2020) on merged gate and up projections, none of which has a bias."""

from __future__ import annotations

from inference_pio.layers import GatedMLP
from inference_pio.models.qwen2.config import Qwen2Config
from inference_pio.parallel import Shard


def feed_forward(config: Qwen2Config, shard: Shard) -> GatedMLP:
    return GatedMLP(config.hidden_size, config.intermediate_size, shard)
