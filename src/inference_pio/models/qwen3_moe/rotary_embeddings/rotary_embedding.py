"""Cosines and sines of every position, shared by all layers.

Rotary positions: Su et al. 2021. YaRN: Peng et al. 2023.
"""

from __future__ import annotations

import torch
from torch import nn

from inference_pio import ops
from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig


class RotaryEmbedding(nn.Module):
    """cos_sin [positions, head_dim] float32: cosines in the first half of the columns, sines in the second."""

    def __init__(self, config: Qwen3MoeConfig) -> None:
        super().__init__()
        self.rope, self.head_dim = config.rope, config.head_dim
        self.max_positions = config.max_position_embeddings
        self.cos_sin = torch.empty(0)

    def finish_loading(self, device: torch.device, dtype: torch.dtype) -> None:  # noqa: ARG002
        self.cos_sin = ops.rotary_table(self.rope, self.head_dim, self.max_positions).to(device)
