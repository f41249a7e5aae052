"""The feed-forward block of a decoder's layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.layers.linear import GatedLinear, RowParallelLinear
from inference_pio.parallel import Shard


class GatedMLP(nn.Module):
    """down(activation(gate(x)) · up(x)) (Shazeer 2020), gate and up merged into one product.

    Each rank holds a part of the intermediate features; the ranks' results are summed.

    rows  tokens that go through it at once at most; None: all. Each token's result is the same either way
    """

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        shard: Shard,
        *,
        bias: bool = False,
        activation: ops.Activation = "silu",
    ) -> None:
        super().__init__()
        self.rows: int | None = None
        width = shard.part(intermediate_size)
        self.gate_up_proj = GatedLinear(hidden_size, width, bias=bias, activation=activation)
        self.down_proj = RowParallelLinear(width, hidden_size, shard, bias=bias)

    def forward(self, x_TD: Tensor) -> Tensor:
        if self.rows is None or len(x_TD) <= self.rows:
            return self._through(x_TD)
        return torch.cat([self._through(x_RD) for x_RD in x_TD.split(self.rows)])

    def _through(self, x_TD: Tensor) -> Tensor:
        y_TD: Tensor = self.down_proj(self.gate_up_proj(x_TD))
        return y_TD
