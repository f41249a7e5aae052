"""RMSNorm (Zhang and Sennrich 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inference_pio import ops


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · (offset + weight), statistics in float32."""

    def __init__(self, hidden_size: int, eps: float, *, offset: float = 0.0) -> None:
        super().__init__()
        self.eps, self.offset = eps, offset
        self.weight = nn.Parameter(torch.empty(hidden_size), requires_grad=False)

    def forward(self, x_TD: Tensor) -> Tensor:
        return ops.rms_norm(x_TD, self.weight, self.eps, self.offset)


class ResidualNorm(RMSNorm):
    """Adds what a block made to the residual stream and normalises the sum, in one pass where `fused`."""

    def __init__(self, hidden_size: int, eps: float, *, fused: bool, offset: float = 0.0) -> None:
        super().__init__(hidden_size, eps, offset=offset)
        self._add = self._fused if fused else self._separate

    @property
    def fused(self) -> bool:
        return self._add == self._fused

    def fuse(self) -> None:
        """Add and normalise in one pass from now on."""
        self._add = self._fused

    def add(self, x_TD: Tensor | None, residual_TD: Tensor) -> tuple[Tensor, Tensor]:
        """(norm(residual + x), residual + x); the residual given may be overwritten. x is None in front of the first
        block: nothing has been made yet.
        """
        return (self(residual_TD), residual_TD) if x_TD is None else self._add(x_TD, residual_TD)

    def _fused(self, x_TD: Tensor, residual_TD: Tensor) -> tuple[Tensor, Tensor]:
        return ops.add_rms_norm(x_TD, residual_TD, self.weight, self.eps, self.offset)

    def _separate(self, x_TD: Tensor, residual_TD: Tensor) -> tuple[Tensor, Tensor]:
        residual_TD = residual_TD + x_TD
        return self(residual_TD), residual_TD
