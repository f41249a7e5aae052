"""The table of cosines and sines that all layers of one kind share.

Rotary positions: Su et al. 2021. Full layers of the larger models count positions in eighths (Chen et al. 2023): what
was trained on shorter texts then reaches further.
"""

from __future__ import annotations

import torch
from torch import nn

from inference_pio import ops
from inference_pio.models.gemma3_text.config import Gemma3TextConfig, RopeConfig


class RotaryEmbedding(nn.Module):
    """cos_sin [positions, head_dim] float32: cosines in the first half of the columns, sines in the second."""

    def __init__(self, config: Gemma3TextConfig, rope: RopeConfig) -> None:
        super().__init__()
        self.rope, self.head_dim = rope, config.head_dim
        self.max_positions = config.max_position_embeddings
        self.cos_sin = torch.empty(0)

    def finish_loading(self, device: torch.device, dtype: torch.dtype) -> None:  # noqa: ARG002
        frequencies = ops.inverse_frequencies(self.rope.theta, self.head_dim) / self.rope.factor
        self.cos_sin = ops.cos_sin_table(frequencies, self.max_positions).to(device)
