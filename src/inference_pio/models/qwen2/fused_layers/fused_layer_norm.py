"""Residual addition and RMSNorm in one pass over the hidden states."""

from __future__ import annotations

from inference_pio.layers import ResidualNorm
from inference_pio.models.qwen2.config import Qwen2Config


def residual_norm(config: Qwen2Config) -> ResidualNorm:
    """The norm in front of each block and behind the last."""
    return ResidualNorm(config.hidden_size, config.rms_norm_eps, fused=config.use_fused_layer_norm)
