"""The feed-forward block of a decoder's layer."""

from __future__ import annotations

from torch import Tensor, nn

from inference_pio import ops
from inference_pio.layers.linear import GatedLinear, RowParallelLinear
from inference_pio.parallel import Shard


class GatedMLP(nn.Module):
    """down(activation(gate(x)) · up(x)) (Shazeer 2020), gate and up merged into one product.

    Each rank holds a part of the intermediate features; the ranks' results are summed.
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
        width = shard.part(intermediate_size)
        self.gate_up_proj = GatedLinear(hidden_size, width, bias=bias, activation=activation)
        self.down_proj = RowParallelLinear(width, hidden_size, shard, bias=bias)

    def forward(self, x_TD: Tensor) -> Tensor:
        y_TD: Tensor = self.down_proj(self.gate_up_proj(x_TD))
        return y_TD
