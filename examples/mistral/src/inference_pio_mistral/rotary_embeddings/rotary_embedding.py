"""The table of cosines and sines that every layer shares (rotary positions: Su et al. 2021)."""

from __future__ import annotations

import torch
from torch import nn

from inference_pio import ops
from inference_pio_mistral.config import MistralConfig


class RotaryEmbedding(nn.Module):
    """cos_sin [positions, head_dim] float32: cosines in the first half of the columns, sines in the second."""

    def __init__(self, config: MistralConfig) -> None:
        super().__init__()
        self.theta, self.head_dim = config.rope.theta, config.head_dim
        self.max_positions = config.max_position_embeddings
        self.cos_sin = torch.empty(0)

    def finish_loading(self, device: torch.device, dtype: torch.dtype) -> None:  # noqa: ARG002 - the loader gives both
        frequencies = ops.inverse_frequencies(self.theta, self.head_dim)
        self.cos_sin = ops.cos_sin_table(frequencies, self.max_positions).to(device)
