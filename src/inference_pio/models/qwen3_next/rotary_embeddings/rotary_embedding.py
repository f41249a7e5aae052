"""The table of cosines and sines for the dimensions that turn (Su et al. 2021); the rest of a head has no position."""

from __future__ import annotations

import torch
from torch import nn

from inference_pio import ops
from inference_pio.models.qwen3_next.config import Qwen3NextConfig


class RotaryEmbedding(nn.Module):
    """cos_sin [positions, rotary_dim] float32: cosines in the first half of the columns, sines in the second."""

    def __init__(self, config: Qwen3NextConfig) -> None:
        super().__init__()
        self.theta, self.width = config.rope_theta, config.rotary_dim
        self.positions = config.max_position_embeddings
        self.cos_sin = torch.empty(0)

    def finish_loading(self, device: torch.device, dtype: torch.dtype) -> None:  # noqa: ARG002
        table = ops.cos_sin_table(ops.inverse_frequencies(self.theta, self.width), self.positions)
        self.cos_sin = table.to(device)
