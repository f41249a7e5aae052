"""The table of cosines and sines that every layer shares.

Rotary positions: Su et al. 2021; decoupled from what a latent holds: DeepSeek-AI 2024, section 2.1.3.
"""

from __future__ import annotations

import torch
from torch import nn

from inference_pio import ops
from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig


class RotaryEmbedding(nn.Module):
    """cos_sin [positions, qk_rope_head_dim] float32: cosines in the first half of the columns, sines in the second."""

    def __init__(self, config: Glm4MoeLiteConfig) -> None:
        super().__init__()
        self.theta, self.rope_dim = config.rope_theta, config.qk_rope_head_dim
        self.max_positions = config.max_position_embeddings
        self.cos_sin = torch.empty(0)

    def finish_loading(self, device: torch.device, dtype: torch.dtype) -> None:  # noqa: ARG002
        frequencies = ops.inverse_frequencies(self.theta, self.rope_dim)
        self.cos_sin = ops.cos_sin_table(frequencies, self.max_positions).to(device)
