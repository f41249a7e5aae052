"""The residual stream's norms, each joined with the addition in front of it."""

from __future__ import annotations

from inference_pio.layers import ResidualNorm
from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig
from inference_pio.plugin.facts import TechniqueFact


def residual_norm(config: Qwen3MoeConfig) -> ResidualNorm:
    """In front of attention, in front of the feed-forward block, and behind the last layer."""
    return ResidualNorm(config.hidden_size, config.rms_norm_eps, fused=config.use_fused_layer_norm)


def technique(config: Qwen3MoeConfig) -> TechniqueFact:
    fused = config.use_fused_layer_norm
    return TechniqueFact(
        "fused layer norm",
        "hardware",
        "active" if fused else "dormant",
        exact=True,
        reason="residual addition and RMSNorm in one pass" if fused else "use_fused_layer_norm is off",
    )
