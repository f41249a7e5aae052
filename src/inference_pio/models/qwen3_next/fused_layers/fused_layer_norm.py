"""Two norms: zero-centred in the residual stream, where a stored weight w multiplies by 1 + w; and one with a gate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.layers import ResidualNorm
from inference_pio.models.qwen3_next.config import Qwen3NextConfig
from inference_pio.plugin.facts import TechniqueFact


def zero_centred_norm(config: Qwen3NextConfig) -> ResidualNorm:
    """The norm in front of each block and behind the last; weights stay as they are stored, the operation adds 1."""
    return ResidualNorm(
        config.hidden_size, config.rms_norm_eps, fused=config.use_fused_layer_norm, offset=1.0
    )


class GatedNorm(nn.Module):
    """norm(x) · weight · silu(gate) over each value head; its weight is not zero-centred, and stays float32."""

    parameter_dtype = torch.float32

    def __init__(self, config: Qwen3NextConfig) -> None:
        super().__init__()
        self.eps = config.rms_norm_eps
        self.weight = nn.Parameter(torch.empty(config.linear_value_head_dim), requires_grad=False)

    def forward(self, x_TNV: Tensor, gate_TNV: Tensor) -> Tensor:
        return ops.gated_rms_norm(x_TNV, gate_TNV, self.weight, self.eps)


def technique(config: Qwen3NextConfig) -> TechniqueFact:
    on = config.use_fused_layer_norm
    return TechniqueFact(
        "fused layer norm",
        "hardware",
        "active" if on else "dormant",
        exact=True,
        reason="addition to the residual stream and zero-centred norm in one pass"
        if on
        else "use_fused_layer_norm is off",
    )
