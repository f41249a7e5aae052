"""SwiGLU (Shazeer 2020) on merged gate and up projections: the dense layers, and the shared experts of the others."""

from __future__ import annotations

from torch import Tensor, nn

from inference_pio.layers import GatedLinear, RowParallelLinear
from inference_pio.parallel import Shard


class MLP(nn.Module):
    """down(silu(gate(x)) · up(x)), `intermediate_size` wide."""

    def __init__(self, hidden_size: int, intermediate_size: int, shard: Shard) -> None:
        super().__init__()
        width = shard.part(intermediate_size)
        self.gate_up_proj = GatedLinear(hidden_size, width)
        self.down_proj = RowParallelLinear(width, hidden_size, shard)

    def forward(self, x_TD: Tensor) -> Tensor:
        y_TD: Tensor = self.down_proj(self.gate_up_proj(x_TD))
        return y_TD
