"""Residual addition and RMSNorm in one pass over the hidden states."""

from __future__ import annotations

from inference_pio.layers import ResidualNorm
from inference_pio.models.llama.config import LlamaConfig


def residual_norm(config: LlamaConfig) -> ResidualNorm:
    """The norm in front of each block and behind the last."""
    return ResidualNorm(config.hidden_size, config.rms_norm_eps, fused=config.use_fused_layer_norm)
