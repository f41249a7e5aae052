"""SwiGLU (Shazeer 2020): dense layers and, narrower, the expert that every token goes through."""

from __future__ import annotations

from torch import Tensor, nn

from inference_pio.layers import GatedLinear, RowParallelLinear
from inference_pio.parallel import Shard


class MLP(nn.Module):
    """down(silu(gate(x)) · up(x)) of any width."""

    def __init__(self, hidden_size: int, intermediate_size: int, shard: Shard) -> None:
        super().__init__()
        part = shard.part(intermediate_size)
        self.gate_up_proj = GatedLinear(hidden_size, part)
        self.down_proj = RowParallelLinear(part, hidden_size, shard)

    def forward(self, x_TD: Tensor) -> Tensor:
        made_TI = self.gate_up_proj(x_TD)
        y_TD: Tensor = self.down_proj(made_TI)
        return y_TD
