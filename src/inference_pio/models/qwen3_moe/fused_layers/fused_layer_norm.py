"""The residual stream's norms, each joined with the addition in front of it."""

from __future__ import annotations

from inference_pio.layers import ResidualNorm
from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig


def residual_norm(config: Qwen3MoeConfig) -> ResidualNorm:
    """In front of attention, in front of the feed-forward block, and behind the last layer."""
    return ResidualNorm(config.hidden_size, config.rms_norm_eps, fused=config.use_fused_layer_norm)
