"""The feed-forward block of a layer without experts: SwiGLU (Shazeer 2020), gate and up as one product."""

from __future__ import annotations

from inference_pio.layers import GatedMLP
from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig
from inference_pio.parallel import Shard


def feed_forward(config: Qwen3MoeConfig, shard: Shard) -> GatedMLP:
    return GatedMLP(config.hidden_size, config.intermediate_size, shard)
