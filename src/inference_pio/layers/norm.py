"""RMSNorm (Zhang and Sennrich 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inference_pio import ops


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · weight, statistics in float32."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(hidden_size), requires_grad=False)

    def forward(self, x_TD: Tensor) -> Tensor:
        return ops.rms_norm(x_TD, self.weight, self.eps)
