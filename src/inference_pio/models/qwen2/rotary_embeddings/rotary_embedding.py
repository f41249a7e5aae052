"""The table of cosines and sines that every layer shares.

Rotary positions: Su et al. 2021. YaRN: Peng et al. 2023, with the details of `_compute_yarn_parameters` of
transformers' modeling_rope_utils.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.models.qwen2.config import Qwen2Config, RopeConfig


class RotaryEmbedding(nn.Module):
    """cos_sin [positions, head_dim] float32: cosines in the first half of the columns, sines in the second."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.rope, self.head_dim = config.rope, config.head_dim
        self.max_positions = config.max_position_embeddings
        self.cos_sin = torch.empty(0)

    def finish_loading(self, device: torch.device, dtype: torch.dtype) -> None:  # noqa: ARG002
        frequencies, scale = ops.inverse_frequencies(self.rope.theta, self.head_dim), 1.0
        if self.rope.rope_type == "yarn":
            frequencies, scale = _yarn(frequencies, self.rope), _attention_factor(self.rope)
        self.cos_sin = ops.cos_sin_table(frequencies, self.max_positions, scale).to(device)


def _yarn(frequencies: Tensor, rope: RopeConfig) -> Tensor:
    """Pairs that turn often within the training length stay, those that turn seldom are slowed by `factor`.

    Between the two, the share that is slowed grows linearly with the number of the pair.
    """
    head_dim = 2 * len(frequencies)
    first = max(math.floor(_pair_that_turns(rope.beta_fast, rope, head_dim)), 0)
    last = min(math.ceil(_pair_that_turns(rope.beta_slow, rope, head_dim)), head_dim - 1)
    pairs = torch.arange(len(frequencies), dtype=torch.float32)
    slowed = ((pairs - first) / (last - first or 0.001)).clamp(0, 1)
    return frequencies * (1 - slowed) + frequencies / rope.factor * slowed


def _pair_that_turns(times: float, rope: RopeConfig, head_dim: int) -> float:
    """The number, with a fraction, of the pair that turns so many times within the training length."""
    wavelength = rope.original_max_position_embeddings / times
    return head_dim * math.log(wavelength / (2 * math.pi)) / (2 * math.log(rope.theta))


def _attention_factor(rope: RopeConfig) -> float:
    """Scores over longer texts are sharpened: both queries and keys are multiplied by this."""
    if rope.attention_factor is not None:
        return rope.attention_factor
    return 0.1 * math.log(rope.factor) + 1 if rope.factor > 1 else 1.0
