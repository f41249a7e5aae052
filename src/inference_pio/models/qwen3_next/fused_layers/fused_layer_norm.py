"""The norm of the residual stream, zero-centred: a stored weight w multiplies by 1 + w."""

from __future__ import annotations

from inference_pio.layers import ResidualNorm
from inference_pio.models.qwen3_next.config import Qwen3NextConfig
from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def zero_centred_norm(config: Qwen3NextConfig) -> ResidualNorm:
    """The norm in front of each block and behind the last; weights stay as they are stored, the operation adds 1."""
    return ResidualNorm(
        config.hidden_size, config.rms_norm_eps, fused=config.use_fused_layer_norm, offset=1.0
    )


def technique(config: Qwen3NextConfig) -> TechniqueFact:
    return techniques.fused_layer_norm(
        config, "addition to the residual stream and zero-centred norm in one pass"
    )
