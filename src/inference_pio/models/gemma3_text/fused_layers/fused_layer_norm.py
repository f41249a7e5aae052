"""Residual addition and RMSNorm in one pass over the hidden states. Weights are zero-centred: 1 + w multiplies."""

from __future__ import annotations

from inference_pio.layers import ResidualNorm, RMSNorm
from inference_pio.models.gemma3_text.config import Gemma3TextConfig
from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def residual_norm(config: Gemma3TextConfig) -> ResidualNorm:
    """The norm in front of each block and behind the last."""
    fused = config.use_fused_layer_norm
    return ResidualNorm(config.hidden_size, config.rms_norm_eps, fused=fused, offset=1.0)


def output_norm(config: Gemma3TextConfig) -> RMSNorm:
    """The norm of what a block made, before it enters the residual stream."""
    return RMSNorm(config.hidden_size, config.rms_norm_eps, offset=1.0)


def technique(config: Gemma3TextConfig) -> TechniqueFact:
    return techniques.fused_layer_norm(
        config, "residual addition and the RMSNorm of the next block in one pass"
    )
