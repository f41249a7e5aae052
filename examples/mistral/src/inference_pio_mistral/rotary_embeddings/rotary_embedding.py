"""The table of cosines and sines that every layer shares.

Rotary positions: Su et al. 2021. Llama 3 scaling: `_compute_llama3_parameters` of transformers' modeling_rope_utils.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio_mistral.config import MistralConfig, RopeConfig


class RotaryEmbedding(nn.Module):
    """cos_sin [positions, head_dim] float32: cosines in the first half of the columns, sines in the second."""

    # The divisors are read as they are: rounded to bfloat16 they would turn far positions by whole radians.
    parameter_dtype = torch.float32

    def __init__(self, config: MistralConfig) -> None:
        super().__init__()
        self.rope, self.head_dim = config.rope, config.head_dim
        self.max_positions = config.max_position_embeddings
        # A GGUF file carries Llama 3's scaling as one divisor per frequency instead of its parameters.
        self.freq_factors = (
            nn.Parameter(torch.empty(config.head_dim // 2), requires_grad=False)
            if config.rope.rope_type == "factors"
            else None
        )
        self.cos_sin = torch.empty(0)

    def finish_loading(self, device: torch.device, dtype: torch.dtype) -> None:  # noqa: ARG002
        frequencies = ops.inverse_frequencies(self.rope.theta, self.head_dim)
        if self.rope.rope_type == "llama3":
            frequencies = _llama3(frequencies, self.rope)
        if self.freq_factors is not None:
            frequencies = frequencies / self.freq_factors.float().cpu()
        self.cos_sin = ops.cos_sin_table(frequencies, self.max_positions).to(device)


def _llama3(frequencies: Tensor, rope: RopeConfig) -> Tensor:
    """Long wavelengths are slowed by `factor`, short ones stay, those between are blended."""
    wavelengths = 2 * math.pi / frequencies
    turns = rope.original_max_position_embeddings / wavelengths
    blend = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    blended = (1 - blend) * frequencies / rope.factor + blend * frequencies
    slowed = torch.where(turns < rope.low_freq_factor, frequencies / rope.factor, blended)
    return torch.where(turns > rope.high_freq_factor, frequencies, slowed)
