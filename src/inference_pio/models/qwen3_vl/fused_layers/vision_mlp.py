"""The vision tower's feed-forward block: two maps with biases and a GELU in its tanh form between them."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from inference_pio.models.qwen3_vl.config import VisionConfig
from inference_pio.models.qwen3_vl.linear_optimizations.dense_map import DenseMap


class VisionMLP(nn.Module):
    """fc2(gelu(fc1(x))), gelu as in Hendrycks and Gimpel 2016, eq. 2."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.linear_fc1 = DenseMap((config.hidden_size,), config.intermediate_size)
        self.linear_fc2 = DenseMap((config.intermediate_size,), config.hidden_size)

    def forward(self, x_ND: Tensor) -> Tensor:
        y_ND: Tensor = self.linear_fc2(functional.gelu(self.linear_fc1(x_ND), approximate="tanh"))
        return y_ND
