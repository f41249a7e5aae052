"""The feed-forward block of a layer without experts: SwiGLU (Shazeer 2020), gate and up as one product."""

from __future__ import annotations

from torch import Tensor, nn

from inference_pio.layers import GatedLinear, RowParallelLinear
from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig
from inference_pio.parallel import Shard


class MLP(nn.Module):
    """down(silu(gate(x)) · up(x))."""

    def __init__(self, config: Qwen3MoeConfig, shard: Shard) -> None:
        super().__init__()
        features = shard.part(config.intermediate_size)
        self.gate_up_proj = GatedLinear(config.hidden_size, features)
        self.down_proj = RowParallelLinear(features, config.hidden_size, shard)

    def forward(self, x_TD: Tensor) -> Tensor:
        y_TD: Tensor = self.down_proj(self.gate_up_proj(x_TD))
        return y_TD
