"""Residual addition and RMSNorm in one pass over the hidden states."""

from __future__ import annotations

from inference_pio.layers import ResidualNorm
from inference_pio.models.qwen3.config import Qwen3Config


def residual_norm(config: Qwen3Config) -> ResidualNorm:
    """The norm in front of each block and behind the last."""
    return ResidualNorm(config.hidden_size, config.rms_norm_eps, fused=config.use_fused_layer_norm)
