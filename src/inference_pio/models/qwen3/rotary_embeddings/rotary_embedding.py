"""The table of cosines and sines that every layer shares.

Rotary positions: Su et al. 2021. YaRN, with which Qwen3 reads up to 131,072 tokens: Peng et al. 2023.
"""

from __future__ import annotations

import torch
from torch import nn

from inference_pio import ops
from inference_pio.models.qwen3.config import Qwen3Config


class RotaryEmbedding(nn.Module):
    """cos_sin [positions, head_dim] float32: cosines in the first half of the columns, sines in the second."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.rope, self.head_dim = config.rope, config.head_dim
        self.max_positions = config.max_position_embeddings
        self.cos_sin = torch.empty(0)

    def finish_loading(self, device: torch.device, dtype: torch.dtype) -> None:  # noqa: ARG002
        self.cos_sin = ops.rotary_table(self.rope, self.head_dim, self.max_positions).to(device)
