"""The table of cosines and sines that every layer shares, and which values turn together.

Rotary positions: Su et al. 2021; decoupled from what a latent holds: DeepSeek-AI 2024, section 2.1.3.
"""

from __future__ import annotations

import torch
from torch import nn

from inference_pio import ops
from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.ops.latent import Turn


def turning(config: Glm4MoeLiteConfig) -> Turn:
    """Neighbours turn together, or the two halves do."""
    return ops.turn_pairs if config.rope_interleave else ops.reference.apply_rope


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
