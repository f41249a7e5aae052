"""Tables for rotary positions (Su et al. 2021), made once when a model is loaded."""

from __future__ import annotations

import torch
from torch import Tensor


def inverse_frequencies(theta: float, head_dim: int) -> Tensor:
    """[head_dim / 2] float32: theta^(-2i / head_dim), the angle per position of each pair of dimensions."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    return 1.0 / (theta**exponents)


def cos_sin_table(frequencies: Tensor, num_positions: int, scale: float = 1.0) -> Tensor:
    """[positions, head_dim] float32: `scale` times the cosines in the first half of the columns, sines in the second.

    This is the layout that `rope_and_cache` reads.
    """
    angles_PF = torch.arange(num_positions, dtype=torch.float32)[:, None] * frequencies
    return torch.cat((angles_PF.cos(), angles_PF.sin()), dim=-1) * scale
