"""SwiGLU (Shazeer 2020) on merged gate and up projections."""

from __future__ import annotations

from inference_pio.layers import GatedMLP
from inference_pio.models.llama.config import LlamaConfig
from inference_pio.parallel import Shard


def feed_forward(config: LlamaConfig, shard: Shard) -> GatedMLP:
    return GatedMLP(config.hidden_size, config.intermediate_size, shard, bias=config.mlp_bias)
