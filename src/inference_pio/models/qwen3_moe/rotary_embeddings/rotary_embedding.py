"""Cosines and sines of every position, shared by all layers.

Rotary positions: Su et al. 2021. YaRN: Peng et al. 2023, section 3; where the paper leaves a choice (rounding of the
borders, the default attention factor) it is that of transformers' `_compute_yarn_parameters`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig, RopeConfig


class RotaryEmbedding(nn.Module):
    """cos_sin [positions, head_dim] float32: cosines in the first half of the columns, sines in the second."""

    def __init__(self, config: Qwen3MoeConfig) -> None:
        super().__init__()
        self.rope, self.head_dim, self.positions = (
            config.rope,
            config.head_dim,
            config.max_position_embeddings,
        )
        self.cos_sin = torch.empty(0)

    def finish_loading(self, device: torch.device, dtype: torch.dtype) -> None:  # noqa: ARG002
        frequencies = ops.inverse_frequencies(self.rope.theta, self.head_dim)
        scale = 1.0
        if self.rope.rope_type == "yarn":
            frequencies = frequencies * _slowing(self.rope, self.head_dim)
            scale = _attention_factor(self.rope)
        self.cos_sin = ops.cos_sin_table(frequencies, self.positions, scale).to(device)


def _slowing(rope: RopeConfig, head_dim: int) -> Tensor:
    """[head_dim / 2]: 1 for pairs that turn often within the training length, 1 / factor for those that turn seldom.

    Between the two borders it falls linearly with the number of the pair.
    """

    def pair_with(turns: float) -> float:
        """The pair, counted with a fraction, whose wavelength fits the training length so many times."""
        wavelength = rope.original_max_position_embeddings / turns
        return 0.5 * head_dim * math.log(wavelength / (2 * math.pi), rope.theta)

    begin = max(math.floor(pair_with(rope.beta_fast)), 0)
    end = min(math.ceil(pair_with(rope.beta_slow)), head_dim - 1)
    width = end - begin if end != begin else 1e-3  # a step, where both borders are one pair
    share = ((torch.arange(head_dim // 2, dtype=torch.float32) - begin) / width).clamp(0.0, 1.0)
    return 1 - share + share / rope.factor


def _attention_factor(rope: RopeConfig) -> float:
    """What both queries and keys are multiplied by: scores over longer texts are made sharper."""
    if rope.attention_factor is not None:
        return rope.attention_factor
    return 1.0 if rope.factor <= 1 else 1 + 0.1 * math.log(rope.factor)
