"""GeGLU (Shazeer 2020) on merged gate and up projections, none of which has a bias."""

from __future__ import annotations

from torch import Tensor, nn

from inference_pio.layers import GatedLinear, RowParallelLinear
from inference_pio.models.gemma3_text.config import Gemma3TextConfig
from inference_pio.parallel import Shard


class MLP(nn.Module):
    """down(gelu(gate(x)) · up(x)), gelu in its tanh form."""

    def __init__(self, config: Gemma3TextConfig, shard: Shard) -> None:
        super().__init__()
        width = shard.part(config.intermediate_size)
        self.gate_up_proj = GatedLinear(config.hidden_size, width, activation="gelu_tanh")
        self.down_proj = RowParallelLinear(width, config.hidden_size, shard)

    def forward(self, x_TD: Tensor) -> Tensor:
        y_TD: Tensor = self.down_proj(self.gate_up_proj(x_TD))
        return y_TD
