"""The table of cosines and sines that every layer shares.

Rotary positions: Su et al. 2021. Llama 3 scaling: `_compute_llama3_parameters` of transformers' modeling_rope_utils.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from inference_pio.models.llama.config import LlamaConfig, RopeConfig


class RotaryEmbedding(nn.Module):
    """cos_sin [positions, head_dim] float32: cosines in the first half of the columns, sines in the second."""

    # The divisors are read as they are: rounded to bfloat16 they would turn far positions by whole radians.
    parameter_dtype = torch.float32

    def __init__(self, config: LlamaConfig) -> None:
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
        frequencies = inverse_frequencies(self.rope, self.head_dim)
        if self.freq_factors is not None:
            frequencies = frequencies / self.freq_factors.float().cpu()
        angles_PF = torch.arange(self.max_positions, dtype=torch.float32)[:, None] * frequencies
        self.cos_sin = torch.cat((angles_PF.cos(), angles_PF.sin()), dim=-1).to(device)


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> Tensor:
    """[head_dim / 2] float32: angle per position of each pair of dimensions."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    frequencies = 1.0 / (rope.theta**exponents)
    return _llama3(frequencies, rope) if rope.rope_type == "llama3" else frequencies


def _llama3(frequencies: Tensor, rope: RopeConfig) -> Tensor:
    """Long wavelengths are slowed by `factor`, short ones stay, those between are blended."""
    wavelengths = 2 * math.pi / frequencies
    turns = rope.original_max_position_embeddings / wavelengths
    blend = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    blended = (1 - blend) * frequencies / rope.factor + blend * frequencies
    slowed = torch.where(turns < rope.low_freq_factor, frequencies / rope.factor, blended)
    return torch.where(turns > rope.high_freq_factor, frequencies, slowed)
