"""Residual addition and RMSNorm in one pass over the hidden states."""

from __future__ import annotations

from inference_pio.layers import ResidualNorm
from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def residual_norm(config: Glm4MoeLiteConfig) -> ResidualNorm:
    """The norm in front of each block and behind the last."""
    return ResidualNorm(config.hidden_size, config.rms_norm_eps, fused=config.use_fused_layer_norm)


def technique(config: Glm4MoeLiteConfig) -> TechniqueFact:
    return techniques.fused_layer_norm(
        config, "residual addition and RMSNorm in one pass; the norms of latents stand alone"
    )
