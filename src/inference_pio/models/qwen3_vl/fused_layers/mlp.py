"""SwiGLU (Shazeer 2020) on merged gate and up projections, none of which has a bias."""

from __future__ import annotations

from torch import Tensor, nn

from inference_pio.layers import GatedLinear, RowParallelLinear
from inference_pio.models.qwen3_vl.config import Qwen3VLConfig
from inference_pio.parallel import Shard


class MLP(nn.Module):
    """down(silu(gate(x)) · up(x))."""

    def __init__(self, config: Qwen3VLConfig, shard: Shard) -> None:
        super().__init__()
        width = shard.part(config.intermediate_size)
        self.gate_up_proj = GatedLinear(config.hidden_size, width)
        self.down_proj = RowParallelLinear(width, config.hidden_size, shard)

    def forward(self, x_TD: Tensor) -> Tensor:
        y_TD: Tensor = self.down_proj(self.gate_up_proj(x_TD))
        return y_TD
