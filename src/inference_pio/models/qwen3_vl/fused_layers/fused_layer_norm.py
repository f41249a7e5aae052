"""Residual addition and RMSNorm in one pass over the hidden states."""

from __future__ import annotations

from inference_pio.layers import ResidualNorm
from inference_pio.models.qwen3_vl.config import Qwen3VLConfig


def residual_norm(config: Qwen3VLConfig) -> ResidualNorm:
    """The norm in front of each block and behind the last."""
    return ResidualNorm(config.hidden_size, config.rms_norm_eps, fused=config.use_fused_layer_norm)
