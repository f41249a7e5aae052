"""Which experts a token goes through (DeepSeek-AI 2024, DeepSeek-V3, section 2.1.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig

# T tokens, D hidden size, K experts of a token


class Router(nn.Module):
    """Scores are sigmoids. A bias that balanced the experts in training is added to choose, and not to weigh.

    Parameters and all of the arithmetic are float32, whatever the rest of the model uses: close scores decide.
    """

    parameter_dtype = torch.float32

    def __init__(self, config: Glm4MoeLiteConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            torch.empty(config.n_routed_experts, config.hidden_size), requires_grad=False
        )
        self.e_score_correction_bias = nn.Parameter(torch.empty(config.n_routed_experts), requires_grad=False)
        self.per_token, self.factor = config.num_experts_per_tok, config.routed_scaling_factor
        self.groups = (config.n_group, config.topk_group)
        self.normalize = config.norm_topk_prob

    def forward(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """Chosen experts [T, K] int64, and their weights [T, K] float32."""
        how = (self.per_token, self.groups, self.normalize, self.factor)
        return ops.top_sigmoid_experts(x_TD, self.weight, self.e_score_correction_bias, *how)
